"""`ranp check` as a library call; the command is tested with the others, in tests/cli."""

import pytest
import torch
from torch import nn

import ranp
from ranp.check import check
from ranp.errors import TraceError
from ranp.models import BUILT_IN, UNet3D


class Fixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.head(self.second(x.view(x.shape[0], 8, -1).view(x.shape[0], 8, *x.shape[2:])))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("unet2d", (1, 1, 16, 16)),
        ("unet3d", (1, 1, 16, 16, 16)),
        pytest.param("unet3d-23", (1, 1, 32, 32, 32), marks=pytest.mark.zoo),  # test_a_deep_network, at full width
        ("mobilenetv2", (1, 3, 8, 32, 32)),
    ],
)
def test_built_in_networks(name: str, shape: tuple[int, ...]) -> None:
    found = check(BUILT_IN[name].build(), torch.zeros(shape), ranp.Budget(macs=0.25))
    assert found.verified == "exact"
    assert 0 < found.plan.cost.macs <= 0.25 * found.plan.full_cost.macs
    assert not found.error
    assert set(BUILT_IN) == {"unet2d", "unet3d", "unet3d-23", "mobilenetv2", "i3d"}


def test_what_cannot_be_pruned_is_named() -> None:
    found = check(Fixed(), torch.zeros(1, 3, 9, 9), ranp.Budget(macs=0.7))
    assert found.verified == "exact"
    shares = {entry.operator: entry.macs_share for entry in found.report.unprunable}
    assert set(shares) == {"view", "output"}
    full = found.plan.full_cost.macs
    assert shares["view"] == pytest.approx(3 * 8 * 9 * 49 / full)
    assert shares["output"] == pytest.approx(6 * 2 * 25 / full)


def test_a_network_with_nothing_to_prune() -> None:
    with pytest.raises(TraceError, match="it has no channel that can be removed"):
        check(nn.Identity(), torch.zeros(1, 3, 9, 9), ranp.Budget(macs=0.5))


def test_a_deep_network() -> None:
    found = check(UNet3D(1, 3, width=4, levels=6), torch.zeros(1, 1, 32, 32, 32), ranp.Budget(macs=0.25))
    assert found.verified == "exact"
    assert 0 < found.plan.cost.macs <= 0.25 * found.plan.full_cost.macs
