"""The networks of the published tables: inputs, sparsities, and the published values.

Source: Xu et al., RANP, 3DV 2020, Table 1. The synthetic inputs of `ranp.experiments.data.synthetic` replace the data
sets.
"""

from collections.abc import Callable, Mapping, Sequence
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
        published: Published parameters (MB), GFLOPs and memory (MB) of every method.
        softmax: Whether the published network ends in a softmax, whose output its table counts.
    """

    name: str
    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    draw: Callable[[Generator], tuple[Tensor, Tensor]]
    loss: Objective
    sparsity: float
    snip_sparsity: float
    resource_weight: float
    published: Mapping[Method, PublishedResources]
    softmax: bool = False

    def resources(self, model: nn.Module) -> PublishedResources:
        """Resources of this network, full or pruned, as the published tables count them."""
        counted = nn.Sequential(model, nn.Softmax(dim=1)) if self.softmax else model
        return published_resources(counted, self.input_shape)


def _table(
    params_mb: Sequence[float], gflops: Sequence[float], memory_mb: Sequence[float]
) -> dict[Method, PublishedResources]:
    """Published resources from the values of all methods, in the order of `METHODS`."""
    rows = zip(METHODS, params_mb, gflops, memory_mb, strict=True)
    return {method: PublishedResources(*row) for method, *row in rows}


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
            params_mb=(62.26, 2.99, 3.05, 2.54, 2.97, 3.39, 2.94, 5.31),
            gflops=(237.85, 11.63, 10.36, 55.69, 12.06, 6.68, 7.54, 126.22),
            memory_mb=(997.00, 296.22, 267.95, 557.32, 301.56, 214.95, 262.66, 833.20),
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
        published=_table(
            params_mb=(15.57, 0.75, 0.75, 0.55, 0.79, 0.87, 0.76, 1.09),
            gflops=(478.13, 24.09, 22.59, 104.50, 22.40, 13.47, 16.97, 233.11),
            memory_mb=(3628.00, 836.88, 817.59, 1936.44, 860.64, 506.97, 729.11, 2999.64),
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
        published=_table(
            params_mb=(9.47, 4.56, 4.58, 6.35, 4.82, 4.87, 4.83, 3.67),
            gflops=(0.58, 0.33, 0.34, 0.55, 0.30, 0.27, 0.26, 0.54),
            memory_mb=(157.47, 106.92, 106.68, 155.17, 100.33, 84.51, 88.01, 155.35),
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
        published=_table(
            params_mb=(47.27, 26.67, 26.36, 29.93, 26.57, 26.75, 26.69, 30.06),
            gflops=(27.88, 16.93, 16.45, 25.76, 15.56, 14.08, 13.98, 26.31),
            memory_mb=(201.28, 150.95, 145.07, 192.42, 142.57, 130.44, 130.22, 195.62),
        ),
    ),
}
