"""MONAI: every network of `monai.networks.nets` that holds convolutions, in 3D and, where it has one, in 2D."""

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

import ranp
from families._member import Member, Pick, full_size, noise, small_size, volume

Options = dict[str, Any]

EXCLUDED = {
    "BertAttention": "holds no convolution",
    "BertMixedLayer": "holds no convolution",
    "BertOutput": "holds no convolution",
    "BertPreTrainedModel": "abstract",
    "DecoderOnlyTransformer": "holds no convolution",
    "FullyConnectedNet": "holds no convolution",
    "HyenaNDUNETR": "needs nvsubquadratic",
    "MultiModal": "holds no convolution",
    "NaViT": "holds no convolution",
    "PatchMerging": "holds no convolution",
    "Pooler": "holds no convolution",
    "Transchex": "downloads a pretrained BERT",
    "VarFullyConnectedNet": "holds no convolution",
}
_VOLUMES = {3: 32}
_BOTH = {3: 32, 2: 64}
_LESS = {3: 16, 2: 32}
WITH_TORCHVISION = {"DAF3D", "MILModel", "NetAdapter", "TorchVisionFCModel"}


def members(pick: Pick = full_size) -> tuple[Member, ...]:
    """All networks; those that need torchvision only where it is installed."""
    from monai.networks import nets

    groups = (_unets, _segmentation, _attention, _registration, _classifiers, _backbones, _autoencoders, _diffusion)
    found = [member for group in groups for member in group(nets, pick)]
    if importlib.util.find_spec("torchvision"):
        found += _with_torchvision(nets)
    return tuple(found)


def small_members() -> tuple[Member, ...]:
    """Small networks of every class and variant; of those that differ in depth or width only, one."""
    return members(small_size)


def uncovered(covered_by: tuple[Member, ...]) -> set[str]:
    """Network classes of MONAI that are neither built by one of these members nor excluded."""
    from monai.networks import nets

    offered = {entry for entry in vars(nets).values() if isinstance(entry, type) and issubclass(entry, nn.Module)}
    built = {kind for member in covered_by for kind in _kinds(member)}
    absent = set() if importlib.util.find_spec("torchvision") else WITH_TORCHVISION
    return {entry.__name__ for entry in offered} - built - EXCLUDED.keys() - absent


def _kinds(member: Member) -> set[str]:
    """Classes of a network and of all its modules, with their bases."""
    try:
        with torch.device("meta"):
            network = member.build()
    except (NotImplementedError, RuntimeError):  # its constructor computes with values
        network = member.build()
    return {base.__name__ for module in network.modules() for base in type(module).__mro__}


def _each(
    name: str, network: Callable[..., nn.Module], *, sides: dict[int, int], reads: int = 1, **options: Any
) -> Iterator[Member]:
    """One member per number of dimensions in `sides`, named such as `UNet 2D, residual`."""
    base, _, variant = name.partition(", ")
    attention = options.pop("attention", False)
    for dims, side in sides.items():
        label = f"{base} {dims}D" + (f", {variant}" if variant else "")
        build = partial(network, spatial_dims=dims, **options)
        yield Member(label, build, noise(volume(reads, side, dims)), attention)


def _unets(nets: Any, pick: Pick) -> Iterator[Member]:
    both, volumes = pick(_BOTH, _LESS), pick(_VOLUMES, {3: 16})
    wide: Options = {"in_channels": 1, "out_channels": 3}
    wide |= pick(
        {"channels": (16, 32, 64, 128, 256), "strides": (2, 2, 2, 2)}, {"channels": (4, 8, 16), "strides": (2, 2)}
    )
    yield from _each("UNet", nets.UNet, sides=both, **wide)
    yield from _each("UNet, residual", nets.UNet, sides=both, num_res_units=2, **wide)
    yield from _each("UNet, batch norm", nets.UNet, sides=volumes, norm="BATCH", act="RELU", num_res_units=2, **wide)
    yield from _each("AttentionUnet", nets.AttentionUnet, sides=both, **wide)
    basic: Options = pick({}, {"features": (4, 4, 8, 8, 16, 4)})
    basic_sides = pick(_BOTH, {2: 32})
    yield from _each("BasicUNet", nets.BasicUNet, sides=basic_sides, **basic)
    for upsample in ("pixelshuffle", "nontrainable"):
        yield from _each(f"BasicUNet, {upsample}", nets.BasicUNet, sides=_VOLUMES, upsample=upsample, **basic)
    yield from _each("BasicUNetPlusPlus", nets.BasicUNetPlusPlus, sides=basic_sides, **basic)
    deeply: Options = {"deep_supervision": True, **basic}
    yield from _each("BasicUNetPlusPlus, deep supervision", nets.BasicUNetPlusPlus, sides=_VOLUMES, **deeply)
    yield from _each("VNet", nets.VNet, sides=pick(_VOLUMES, {}))
    yield from _each("VNet", nets.VNet, sides={2: pick(64, 32)}, dropout_dim=2)
    nnunet: Options = {"in_channels": 1, "out_channels": 3}
    nnunet |= pick(
        {"kernel_size": (3,) * 5, "strides": (1, 2, 2, 2, 2), "upsample_kernel_size": (2,) * 4},
        {
            "kernel_size": (3,) * 4,
            "strides": (1, 2, 2, 2),
            "upsample_kernel_size": (2,) * 3,
            "filters": (4, 8, 12, 16),
        },
    )
    yield from _each("DynUNet", nets.DynUNet, sides=both, **nnunet)
    yield from _each("DynUNet, residual", nets.DynUNet, sides=both, res_block=True, **nnunet)
    deep: Options = {"deep_supervision": True, "deep_supr_num": pick(2, 1)}
    yield from _each("DynUNet, deep supervision", nets.DynUNet, sides=volumes, **deep, **nnunet)
    uneven: Options = {"kernel_size": ((1, 3, 3), 3, 3, 3), "strides": (1, (1, 2, 2), 2, 2)}
    uneven |= {"upsample_kernel_size": ((1, 2, 2), 2, 2), "in_channels": 2, "out_channels": 3}
    uneven |= pick({}, {"filters": (4, 8, 12, 16)})
    yield from _each("DynUNet, anisotropic", nets.DynUNet, sides=volumes, reads=2, **uneven)
    for backbone in ("resnet18", "efficientnet-b0"):
        flexible: Options = {"in_channels": 3, "out_channels": 2, "backbone": backbone}
        flexible |= pick({}, {"decoder_channels": (32, 16, 16, 8, 8)})
        sides = pick(_BOTH, {2: 32})
        yield from _each(f"FlexibleUNet, {backbone}", nets.FlexibleUNet, sides=sides, reads=3, **flexible)


def _segmentation(nets: Any, pick: Pick) -> Iterator[Member]:
    both, volumes = pick(_BOTH, _LESS), pick(_VOLUMES, {3: 16})
    yield from _each("SegResNet", nets.SegResNet, sides=both)
    yield from _each("SegResNet, deconv", nets.SegResNet, sides=volumes, upsample_mode="deconv", norm="INSTANCE")
    for dims, side in both.items():
        size = (side,) * dims
        yield from _each("SegResNetVAE", nets.SegResNetVAE, sides={dims: side}, input_image_size=size)
    narrow: Options = pick({}, {"init_filters": 8, "blocks_down": (1, 2, 2)})
    yield from _each("SegResNetDS", nets.SegResNetDS, sides=both, **narrow)
    depth = pick(4, 3)
    yield from _each("SegResNetDS, deep supervision", nets.SegResNetDS, sides=volumes, dsdepth=depth, **narrow)
    yield from _each("SegResNetDS2", nets.SegResNetDS2, sides=both, **narrow)
    yield from _each("HighResNet", nets.HighResNet, sides=pick(_BOTH, {3: 8, 2: 16}))
    for upsample in ("transpose", "nearest"):
        shallow: Options = pick({}, {"layers": (1, 1, 1, 1), "psp_block_num": 1})
        build = partial(nets.AHNet, upsample_mode=upsample, **shallow)
        yield Member(f"AHNet 3D, {upsample}", build, noise(pick((1, 1, 128, 128, 32), (1, 1, 32, 32, 32))))
    blocks = (1, 1, 1, 1)
    light: Options = pick({}, {"init_filters": 4, "blocks_down": blocks, "blocks_up": blocks, "blocks_bottleneck": 1})
    yield from _each("MedNeXt", nets.MedNeXt, sides=pick(_BOTH, {2: 32}), **light)
    yield from _each("MedNeXt, deep supervision", nets.MedNeXt, sides=_VOLUMES, deep_supervision=True, **light)
    for letter in pick("SBML", ""):
        yield from _each(f"MedNeXt {letter}", getattr(nets, f"MedNeXt{letter}"), sides=_VOLUMES)
    filters: Options = pick({}, {"num_filters": 8})
    yield Member("Quicknat 2D", partial(nets.Quicknat, **filters), noise((1, 1, *pick((64, 64), (32, 32)))))
    image = noise((1, 3, 256, 256))
    yield Member("HoVerNet 2D", pick(nets.HoVerNet, partial(_narrowed, nets.HoVerNet, image)), image)
    if pick(True, False):  # differs in kernels and strides only
        original = partial(nets.HoVerNet, mode="original", out_classes=5)
        yield Member("HoVerNet 2D, original", original, noise((1, 3, 270, 270)))
    cuts: Options = {"in_channels": 1, "num_classes": 3}
    for dims, side in both.items():
        kinds = ("TopologySearch", "TopologyInstance")
        for kind in kinds if pick(True, dims == 2) else kinds[1:]:
            build = partial(_dints, nets, kind, dims, pick(0.5, 0.125), **cuts)
            yield Member(f"DiNTS {dims}D, {kind}", build, noise(volume(1, side, dims)))
    scan = volume(1, 32, 3)
    build = partial(nets.vista3d132, encoder_embed_dim=pick(48, 8))
    yield Member("VISTA3D, classes", build, partial(_prompt, scan, {"class_vector": [[1], [2]]}))
    points = {"point_coords": [[[8, 9, 10], [12, 11, 10]]], "point_labels": [[1, 0]]}
    yield Member("VISTA3D, points", build, partial(_prompt, scan, points), attention=True)


def _narrowed(network: Callable[[], nn.Module], inputs: Callable[[], Any]) -> nn.Module:
    """A network that has no option for its widths: it is pruned, and can be pruned again."""
    model = network().eval()
    graph = ranp.trace(model, inputs())
    scores = ranp.score(model, graph, [], criterion="random")
    return ranp.apply(model, ranp.allocate(graph, scores, ranp.Budget(macs=0.02)))


def _dints(nets: Any, kind: str, dims: int, width: float, **options: Any) -> nn.Module:
    space: Options = {"channel_mul": width, "num_blocks": 6, "num_depths": 3, "spatial_dims": dims}
    if kind == "TopologyInstance":
        paths, operations = 7, 5 if dims == 3 else 2
        space["arch_code"] = [np.ones((6, paths)), np.arange(6 * paths).reshape(6, paths) % operations]
    network: nn.Module = nets.DiNTS(getattr(nets, kind)(**space), spatial_dims=dims, **options)
    return network


def _prompt(shape: tuple[int, ...], prompts: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {"input_images": torch.randn(shape)} | {name: torch.tensor(value) for name, value in prompts.items()}


def _attention(nets: Any, pick: Pick) -> Iterator[Member]:
    from monai.networks.nets.restormer import Restormer

    io: Options = {"in_channels": 1, "out_channels": 2}
    # UNETR reads the outputs of layers 3, 6 and 9 of 12.
    narrow: Options = pick({}, {"hidden_size": 48, "mlp_dim": 64, "num_heads": 4})
    shallow: Options = narrow | pick({}, {"num_layers": 2})
    decoder: Options = shallow | pick(
        {},
        {"decoder_hidden_size": 48, "decoder_mlp_dim": 64, "decoder_num_layers": 1, "decoder_num_heads": 4},
    )
    for dims, side in pick(_BOTH, {2: 64}).items():
        sized: Options = {"sides": {dims: side}, "img_size": (side,) * dims, "attention": True, "in_channels": 1}
        yield from _each("UNETR", nets.UNETR, out_channels=2, **sized, **narrow)
        yield from _each("ViT, classifier", nets.ViT, patch_size=16, classification=True, **sized, **shallow)
        yield from _each("ViTAutoEnc", nets.ViTAutoEnc, patch_size=16, **sized, **shallow)
        yield from _each("MaskedAutoEncoderViT", nets.MaskedAutoEncoderViT, patch_size=8, **sized, **decoder)
    windows: Options = pick({}, {"feature_size": 12, "depths": (2, 1, 1, 1), "window_size": 2})
    yield from _each("SwinUNETR", nets.SwinUNETR, sides=pick({3: 64, 2: 64}, {2: 64}), attention=True, **io, **windows)
    windows |= {"use_v2": True}
    yield from _each("SwinUNETR, v2", nets.SwinUNETR, sides={pick(3, 2): 64}, attention=True, **io, **windows)
    restored: Options = {"in_channels": 1, "out_channels": 1, "attention": True}
    restored |= pick({}, {"dim": 8, "num_refinement_blocks": 1})
    yield from _each("Restormer", Restormer, sides={3: 16, 2: pick(64, 32)}, **restored)


def _registration(nets: Any, pick: Pick) -> Iterator[Member]:
    width = pick(16, 4)
    for dims, side in pick(_BOTH, _LESS).items():
        pair, size = volume(2, side, dims), [side] * dims
        local: Options = {"spatial_dims": dims, "in_channels": 2, "num_channel_initial": width, "out_channels": dims}
        yield Member(f"RegUNet {dims}D", partial(nets.RegUNet, depth=3, **local), noise(pair))
        yield Member(f"LocalNet {dims}D", partial(nets.LocalNet, extract_levels=(0, 1, 2), **local), noise(pair))
        options: Options = {"in_channels": 2, "num_channel_initial": width, "depth": 3}
        build = partial(nets.GlobalNet, image_size=size, spatial_dims=dims, **options)
        yield Member(f"GlobalNet {dims}D", build, noise(pair))
        backbone = partial(
            nets.VoxelMorphUNet,
            spatial_dims=dims,
            in_channels=2,
            unet_out_channels=2 * width,
            channels=pick((16, 32, 32, 32, 32, 32), (4, 8, 8, 8)),
            final_conv_channels=(width, width),
        )
        yield Member(f"VoxelMorphUNet {dims}D", backbone, noise(pair))
        image = volume(1, side, dims)
        yield Member(f"VoxelMorph {dims}D", partial(_voxelmorph, nets, backbone, dims), noise(image, image))
    image = volume(1, pick(32, 16), 3)
    yield Member("VoxelMorph 3D, half resolution", partial(nets.VoxelMorph, half_res=True), noise(image, image))


def _voxelmorph(nets: Any, backbone: Callable[[], nn.Module], dims: int) -> nn.Module:
    network: nn.Module = nets.VoxelMorph(backbone=backbone(), spatial_dims=dims)
    return network


def _classifiers(nets: Any, pick: Pick) -> Iterator[Member]:
    for dims, side in pick(_BOTH, _LESS).items():
        image = volume(1, side, dims)
        size = image[1:]
        stack: Options = {"channels": (16, 32, 64), "strides": (2, 2, 2)}
        yield Member(f"Regressor {dims}D", partial(nets.Regressor, size, (1,), **stack), noise(image))
        yield Member(f"Classifier {dims}D", partial(nets.Classifier, size, 3, **stack), noise(image))
        yield Member(f"Discriminator {dims}D", partial(nets.Discriminator, size, **stack), noise(image))
        yield Member(f"Critic {dims}D", partial(nets.Critic, size, **stack), noise(image))
        start = (32, *(side // 8,) * dims)
        layers: Options = {"channels": (32, 16, 1), "strides": (2, 2, 2)}
        yield Member(f"Generator {dims}D", partial(nets.Generator, (64,), start, **layers), noise((1, 64)))
    patch: Options = {"channels": pick(64, 16), "in_channels": 1}
    yield from _each("PatchDiscriminator", nets.PatchDiscriminator, sides={3: 64, 2: 64}, **patch)
    scales: Options = {"num_d": 2, "num_layers_d": 2, "channels": 16, "in_channels": 1, "minimum_size_im": 64}
    yield from _each("MultiScalePatchDiscriminator", nets.MultiScalePatchDiscriminator, sides={3: 64, 2: 64}, **scales)


def _backbones(nets: Any, pick: Pick) -> Iterator[Member]:
    both, volumes = pick(_BOTH, {2: 32}), pick(_VOLUMES, {3: 16})
    narrow: Options = pick({}, {"init_features": 8, "growth_rate": 4, "block_config": (2, 2, 2)})
    for name in ("DenseNet121", "DenseNet169", "DenseNet201", "DenseNet264"):
        sides = both if name == "DenseNet121" else volumes
        yield from _each(name, getattr(nets, name), sides=sides, in_channels=1, out_channels=2, **narrow)
    one: Options = {"n_input_channels": 1, "num_classes": 2, **pick({}, {"widen_factor": 0.125})}
    deeper = ("resnet34", "resnet50", "resnet101", "resnet152", "resnet200")
    for name in ("resnet10", "resnet18", *pick(deeper, ("resnet50",))):
        sides = both if name in ("resnet18", "resnet50") else volumes
        yield from _each(name, getattr(nets, name), sides=sides, **one)
    medical: Options = {"shortcut_type": "A", "bias_downsample": False, **one}
    yield from _each("resnet18, padded shortcut", nets.resnet18, sides=volumes, **medical)
    for kind in ("ResNetFeatures", "ResNetEncoder"):
        yield from _each(kind, getattr(nets, kind), sides=volumes, model_name="resnet18", pretrained=False)
    deep = ("SENet154", "SEResNet50", "SEResNet101", "SEResNet152", "SEResNext50", "SEResNext101")
    shallow: Options = pick({}, {"layers": (1, 1, 1, 1)})
    for name in deep:
        sides = both if name.endswith("50") else pick(_VOLUMES, {2: 32})
        yield from _each(name, getattr(nets, name), sides=sides, in_channels=1, num_classes=2, **shallow)
    for name in ("EfficientNetBN", "EfficientNetBNFeatures", "EfficientNetEncoder"):
        scaled: Options = {"model_name": "efficientnet-b0", "pretrained": False, "in_channels": 1}
        yield from _each(name, getattr(nets, name), sides=both, **scaled)


def _autoencoders(nets: Any, pick: Pick) -> Iterator[Member]:
    both, volumes = pick(_BOTH, _LESS), pick(_VOLUMES, {3: 16})
    stack: Options = {"channels": (16, 32, 64), "strides": (2, 2, 2)}
    io: Options = {"in_channels": 1, "out_channels": 1}
    yield from _each("AutoEncoder", nets.AutoEncoder, sides=both, **io, **stack)
    inner: Options = {"num_res_units": 2, "inter_channels": [64, 64], "inter_dilations": [1, 2]}
    yield from _each("AutoEncoder, residual", nets.AutoEncoder, sides=volumes, **inner, **io, **stack)
    for dims, side in both.items():
        code: Options = {"in_shape": volume(1, side, dims)[1:], "out_channels": 1, "latent_size": 16}
        yield from _each("VarAutoEncoder", nets.VarAutoEncoder, sides={dims: side}, **code, **stack)
    quantized: Options = pick(
        {}, {"channels": (8, 8, 16), "num_res_channels": (8, 8, 16), "num_res_layers": 1, "embedding_dim": 8}
    )
    yield from _each("VQVAE", nets.VQVAE, sides=both, **io, **quantized)
    levels = pick((False, False, True, True), (False, True))
    narrow: Options = pick({}, {"channels": (8, 16), "num_res_blocks": 1, "norm_num_groups": 4})
    narrow |= {"attention_levels": levels}
    yield from _each("AutoencoderKL", nets.AutoencoderKL, sides=both, attention=True, **narrow)
    plain: Options = {
        **narrow,
        "attention_levels": (False,) * len(levels),
        "with_encoder_nonlocal_attn": False,
        "with_decoder_nonlocal_attn": False,
    }
    yield from _each("AutoencoderKL, no attention", nets.AutoencoderKL, sides=both, **plain)
    spade: Options = {"label_nc": 3, **pick({}, {"spade_intermediate_channels": 8})}
    for dims, side in both.items():
        pair = noise(volume(1, side, dims), volume(3, side, dims))
        build = partial(nets.SPADEAutoencoderKL, spatial_dims=dims, **spade, **plain)
        yield Member(f"SPADEAutoencoderKL {dims}D, no attention", build, pair)
        build = partial(_spade, nets, spatial_dims=dims, input_shape=[side] * dims, **spade, **io)
        yield Member(f"SPADENet {dims}D", build, noise(volume(3, side, dims), volume(1, side, dims)))
    side = volumes[3]
    yield Member(
        "SPADEAutoencoderKL 3D",
        partial(nets.SPADEAutoencoderKL, spatial_dims=3, **spade, **narrow),
        noise(volume(1, side, 3), volume(3, side, 3)),
        attention=True,
    )


def _spade(nets: Any, **options: Any) -> nn.Module:
    """It reverses its list of channels in place."""
    network: nn.Module = nets.SPADENet(z_dim=16, channels=[16, 32, 64], **options)
    return network


def _diffusion(nets: Any, pick: Pick) -> Iterator[Member]:
    narrow: Options = pick(
        {},
        {
            "channels": (8, 16, 16),
            "attention_levels": (False, False, True),
            "num_res_blocks": 1,
            "norm_num_groups": 8,
            "num_head_channels": 4,
        },
    )
    for dims, side in pick({3: 16, 2: 32}, {3: 8, 2: 16}).items():
        image, labels = volume(1, side, dims), volume(3, side, dims)
        io: Options = {"spatial_dims": dims, "in_channels": 1, **narrow}
        build = partial(nets.DiffusionModelUNet, out_channels=1, **io)
        yield Member(f"DiffusionModelUNet {dims}D", build, partial(_step, image), attention=True)
        prompted = partial(nets.DiffusionModelUNet, out_channels=1, with_conditioning=True, cross_attention_dim=8, **io)
        inputs = partial(_step, image, context=(1, 4, 8))
        yield Member(f"DiffusionModelUNet {dims}D, conditioned", prompted, inputs, attention=True)
        spade: Options = {"label_nc": 3, **pick({}, {"spade_intermediate_channels": 8})}
        build = partial(nets.SPADEDiffusionModelUNet, out_channels=1, **spade, **io)
        yield Member(f"SPADEDiffusionModelUNet {dims}D", build, partial(_step, image, seg=labels), attention=True)
        build = partial(nets.ControlNet, conditioning_embedding_num_channels=(16,), **io)
        inputs = partial(_step, image, controlnet_cond=image)
        yield Member(f"ControlNet {dims}D", build, inputs, attention=True)


def _step(image: tuple[int, ...], **others: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Inputs of one denoising step."""
    inputs = {name: torch.randn(shape) for name, shape in others.items()}
    return {"x": torch.randn(image), "timesteps": torch.tensor([7]), **inputs}


def _with_torchvision(nets: Any) -> Iterator[Member]:
    yield from _each("AHNet, transpose", nets.AHNet, sides={2: 128})
    yield Member("DAF3D", partial(nets.DAF3D, in_channels=1, out_channels=1), noise(volume(1, 32, 3)))
    photo = noise((1, 3, 224, 224))
    yield Member("TorchVisionFCModel, resnet18", partial(nets.TorchVisionFCModel, num_classes=2), photo)
    fully = partial(nets.TorchVisionFCModel, num_classes=2, use_conv=True)
    yield Member("TorchVisionFCModel, convolution", fully, photo)
    yield Member("NetAdapter, r3d_18", partial(_adapted, nets), noise((1, 3, 8, 64, 64)))
    for mode in ("mean", "att", "att_trans"):
        build = partial(nets.MILModel, num_classes=2, mil_mode=mode, pretrained=False)
        yield Member(f"MILModel, {mode}", build, noise((1, 4, 3, 64, 64)), attention=mode == "att_trans")


def _adapted(nets: Any) -> nn.Module:
    from torchvision.models.video import r3d_18

    network: nn.Module = nets.NetAdapter(r3d_18(weights=None), num_classes=2, dim=3, pool=None)
    return network
