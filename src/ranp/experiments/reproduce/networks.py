"""The networks of the published tables: inputs, sparsities, and the published values.

Source: Xu et al., RANP, 3DV 2020, Table 1. The synthetic inputs of `ranp.experiments.data.synthetic` replace the data
sets.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from torch import Generator, Tensor, nn
from torch.nn import functional as F

from ranp.experiments.data.synthetic import brain_tumor, moving_shapes, sparse_shape
from ranp.experiments.losses import Objective, dice_cross_entropy
from ranp.experiments.reproduce.counting import PublishedResources, published_resources
from ranp.models import I3D, MobileNetV2, UNet3D

Method = Literal["full", "layerwise", "random", "vanilla", "weighted", "ranp-m", "ranp-f", "snip"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class PublishedNetwork:
    """A network of the published tables.

    Attributes:
        name: Name on the command line.
        build: Builds the full network.
        input_shape: Shape that resources are counted for, `(1, C, D, H, W)`.
        draw: Draws one sample `(inputs, labels)` for scoring, which may be smaller than `input_shape`.
        loss: Loss of `(outputs, labels)`.
        sparsity: Published fraction of neurons to remove.
        snip_sparsity: Published fraction of parameters to remove for SNIP.
        resource_weight: Published lambda of RANP-m and RANP-f.
        softmax: Whether the published network ends in a softmax, whose output its table counts.
        published: Published parameters (MB), GFLOPs and memory (MB) of every method.
    """

    name: str
    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    draw: Callable[[Generator], tuple[Tensor, Tensor]]
    loss: Objective
    sparsity: float
    snip_sparsity: float
    resource_weight: float
    softmax: bool
    published: Mapping[Method, PublishedResources]

    def resources(self, model: nn.Module) -> PublishedResources:
        """Resources of this network, full or pruned, as the published tables count them."""
        counted = nn.Sequential(model, nn.Softmax(dim=1)) if self.softmax else model
        return published_resources(counted, self.input_shape)


def _table(**rows: tuple[float, float, float]) -> dict[Method, PublishedResources]:
    return {method: PublishedResources(*rows[method.replace("-", "_")]) for method in METHODS}


NETWORKS: dict[str, PublishedNetwork] = {
    "shapenet": PublishedNetwork(
        name="shapenet",
        build=partial(UNet3D, in_channels=1, out_channels=50, width=64),
        input_shape=(1, 1, 64, 64, 64),
        draw=sparse_shape,
        loss=F.cross_entropy,
        sparsity=0.7824,
        snip_sparsity=0.9898,
        resource_weight=11,
        softmax=True,
        published=_table(
            full=(62.26, 237.85, 997.00),
            layerwise=(2.99, 11.63, 296.22),
            random=(3.05, 10.36, 267.95),
            vanilla=(2.54, 55.69, 557.32),
            weighted=(2.97, 12.06, 301.56),
            ranp_m=(3.39, 6.68, 214.95),
            ranp_f=(2.94, 7.54, 262.66),
            snip=(5.31, 126.22, 833.20),
        ),
    ),
    "brats": PublishedNetwork(
        name="brats",
        build=partial(UNet3D, in_channels=4, out_channels=5, width=32),
        input_shape=(1, 4, 128, 128, 128),
        draw=partial(brain_tumor, crop=96),
        loss=dice_cross_entropy,
        sparsity=0.7817,
        snip_sparsity=0.9888,
        resource_weight=15,
        softmax=False,
        published=_table(
            full=(15.57, 478.13, 3628.00),
            layerwise=(0.75, 24.09, 836.88),
            random=(0.75, 22.59, 817.59),
            vanilla=(0.55, 104.50, 1936.44),
            weighted=(0.79, 22.40, 860.64),
            ranp_m=(0.87, 13.47, 506.97),
            ranp_f=(0.76, 16.97, 729.11),
            snip=(1.09, 233.11, 2999.64),
        ),
    ),
    "mobilenetv2": PublishedNetwork(
        name="mobilenetv2",
        build=MobileNetV2,
        input_shape=(1, 3, 16, 112, 112),
        draw=partial(moving_shapes, size=112),
        loss=F.cross_entropy,
        sparsity=0.3315,
        snip_sparsity=0.8626,
        resource_weight=80,
        softmax=False,
        published=_table(
            full=(9.47, 0.58, 157.47),
            layerwise=(4.56, 0.33, 106.92),
            random=(4.58, 0.34, 106.68),
            vanilla=(6.35, 0.55, 155.17),
            weighted=(4.82, 0.30, 100.33),
            ranp_m=(4.87, 0.27, 84.51),
            ranp_f=(4.83, 0.26, 88.01),
            snip=(3.67, 0.54, 155.35),
        ),
    ),
    "i3d": PublishedNetwork(
        name="i3d",
        build=I3D,
        input_shape=(1, 3, 16, 224, 224),
        draw=partial(moving_shapes, size=224),
        loss=F.cross_entropy,
        sparsity=0.2532,
        snip_sparsity=0.8109,
        resource_weight=80,
        softmax=False,
        published=_table(
            full=(47.27, 27.88, 201.28),
            layerwise=(26.67, 16.93, 150.95),
            random=(26.36, 16.45, 145.07),
            vanilla=(29.93, 25.76, 192.42),
            weighted=(26.57, 15.56, 142.57),
            ranp_m=(26.75, 14.08, 130.44),
            ranp_f=(26.69, 13.98, 130.22),
            snip=(30.06, 26.31, 195.62),
        ),
    ),
}
