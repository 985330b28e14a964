"""segmentation_models_pytorch_3d: every decoder, and Unet with encoders of every kind."""

from functools import partial

from families._member import Member, noise, volume

_DECODERS = ("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus")
# Unet passes `strides` to every encoder, which those of most other kinds refuse.
_ENCODERS = (
    "resnet34",
    "resnet50",
    "resnext50_32x4d",
    "vgg11_bn",
    "densenet121",
    "dpn68",
    "efficientnet-b0",
    "mobileone_s0",
)


def members() -> tuple[Member, ...]:
    """All networks."""
    import segmentation_models_pytorch_3d as smp

    options = {"encoder_weights": None, "classes": 3}
    image = noise(volume(3, 64, 3))
    decoders = [
        Member(f"{name}, resnet18", partial(getattr(smp, name), "resnet18", **options), image) for name in _DECODERS
    ]
    pyramid = Member("PAN, resnet18", partial(smp.PAN, "resnet18", **options), noise(volume(3, 128, 3)))
    encoders = [Member(f"Unet, {name}", partial(smp.Unet, name, **options), image) for name in _ENCODERS]
    transformer = Member("Unet, mit_b0", partial(smp.Unet, "mit_b0", **options), image, attention=True)
    return (*decoders, pyramid, *encoders, transformer)
