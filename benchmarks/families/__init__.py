"""The zoo: convolutional networks that people really use, by the package that offers them."""

from families import _monai, _nnunet, _pytorchvideo, _smp3d, _timm, _torchvision
from families._member import Family, Member
from families._monai import uncovered

FAMILIES: tuple[Family, ...] = (
    Family("MONAI", "monai", _monai.members, _monai.small_members),
    Family("nnU-Net", "dynamic_network_architectures", _nnunet.members, _nnunet.small_members),
    Family("segmentation_models_pytorch_3d", "segmentation_models_pytorch_3d", _smp3d.members),
    Family("PyTorchVideo", "pytorchvideo", _pytorchvideo.members),
    Family("torchvision", "torchvision", _torchvision.members),
    Family("timm", "timm", _timm.members),
)

__all__ = ["FAMILIES", "Family", "Member", "uncovered"]
