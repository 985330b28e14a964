"""torchvision: all its video networks, and one or two of each family of image networks."""

from functools import partial
from typing import Any

from families._member import Member, noise

_VIDEO = {
    "r3d_18": (8, 64, 64),
    "mc3_18": (8, 64, 64),
    "r2plus1d_18": (8, 64, 64),
    "s3d": (16, 224, 224),
    "mvit_v1_b": (16, 224, 224),
    "mvit_v2_s": (16, 224, 224),
    "swin3d_t": (4, 64, 64),
}
_IMAGES = {
    "alexnet": 128,
    "vgg11_bn": 64,
    "resnet18": 128,
    "resnet50": 128,
    "resnext50_32x4d": 128,
    "wide_resnet50_2": 128,
    "densenet121": 128,
    "mobilenet_v2": 128,
    "mobilenet_v3_small": 128,
    "mobilenet_v3_large": 128,
    "mnasnet1_0": 128,
    "shufflenet_v2_x1_0": 128,
    "squeezenet1_1": 128,
    "googlenet": 128,
    "inception_v3": 299,
    "efficientnet_b0": 128,
    "efficientnet_v2_s": 128,
    "regnet_x_400mf": 128,
    "regnet_y_400mf": 128,
    "convnext_tiny": 128,
    "vit_b_16": 224,
    "swin_t": 128,
    "swin_v2_t": 128,
    "maxvit_t": 224,
    "deeplabv3_resnet50": 128,
    "deeplabv3_mobilenet_v3_large": 128,
    "fcn_resnet50": 128,
    "lraspp_mobilenet_v3_large": 128,
}
_ATTENTION = {"mvit_v1_b", "mvit_v2_s", "swin3d_t", "vit_b_16", "swin_t", "swin_v2_t", "maxvit_t"}
_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": True, "init_weights": False},
    "inception_v3": {"aux_logits": True, "init_weights": False},
    "deeplabv3_resnet50": {"weights_backbone": None},
    "deeplabv3_mobilenet_v3_large": {"weights_backbone": None, "aux_loss": True},
    "fcn_resnet50": {"weights_backbone": None, "aux_loss": True},
    "lraspp_mobilenet_v3_large": {"weights_backbone": None},
}


def members() -> tuple[Member, ...]:
    """All networks."""
    from torchvision.models import get_model

    sizes = _VIDEO | {name: (side, side) for name, side in _IMAGES.items()}
    return tuple(
        Member(
            name,
            partial(get_model, name, weights=None, **_OPTIONS.get(name, {})),
            noise((1, 3, *size)),
            name in _ATTENTION,
        )
        for name, size in sizes.items()
    )
