"""timm: one or two of every family of image networks."""

from functools import partial

from families._member import Member, noise

_CONVOLUTIONAL = (
    "resnet18",
    "resnet50d",
    "resnetv2_50",
    "resnext50_32x4d",
    "seresnet50",
    "ecaresnet26t",
    "skresnet18",
    "resnest14d",
    "res2net50_26w_4s",
    "densenet121",
    "dpn68",
    "dla34",
    "hrnet_w18_small",
    "vgg11_bn",
    "repvgg_a0",
    "repvgg_b1g4",
    "mobileone_s0",
    "efficientnet_b0",
    "tf_efficientnetv2_b0",
    "mobilenetv2_050",
    "mobilenetv3_small_100",
    "mnasnet_small",
    "mixnet_s",
    "ghostnet_100",
    "lcnet_050",
    "tinynet_e",
    "fbnetc_100",
    "hardcorenas_a",
    "regnetx_002",
    "regnety_002",
    "rexnet_100",
    "ese_vovnet19b_dw",
    "cspresnet50",
    "cspdarknet53",
    "cs3darknet_s",
    "selecsls42b",
    "gernet_s",
    "tresnet_m",
    "xception41",
    "inception_v4",
    "nf_resnet26",
    "dm_nfnet_f0",
    "convnext_atto",
    "convnextv2_atto",
    "convmixer_768_32",
    "inception_next_tiny",
    "poolformer_s12",
    "repvit_m1",
    "fastvit_t8",
)
_ATTENTION = {
    "edgenext_xx_small": 128,
    "mobilevit_xxs": 128,
    "mobilevitv2_050": 128,
    "coatnet_pico_rw_224": 224,
    "maxxvit_rmlp_nano_rw_256": 256,
    "levit_128s": 224,
    "efficientformer_l1": 224,
    "visformer_tiny": 224,
    "botnet26t_256": 256,
    "pvt_v2_b0": 128,
    "vit_tiny_patch16_224": 224,
    "deit_tiny_patch16_224": 224,
    "swin_tiny_patch4_window7_224": 224,
}


def members() -> tuple[Member, ...]:
    """All networks."""
    import timm

    sizes = dict.fromkeys(_CONVOLUTIONAL, 128) | _ATTENTION
    return tuple(
        Member(name, partial(timm.create_model, name, pretrained=False), noise((1, 3, size, size)), name in _ATTENTION)
        for name, size in sizes.items()
    )
