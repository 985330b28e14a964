"""`ranp check`: the library call and the installed command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import ranp
from ranp.check import check, parse_budget, parse_shape
from ranp.errors import InputError, TraceError
from ranp.models import BUILT_IN

NETS = """
import torch
from torch import nn


class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        x = self.first(x)
        return self.head(self.second(x.view(x.shape[0], 8, -1).view(x.shape[0], 8, *x.shape[2:])))


def needs_arguments(width):
    return nn.Conv2d(3, width, 3)


def no_model():
    return 5
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "nets_to_check.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "nets_to_check"


@pytest.mark.parametrize(
    ("name", "shape"),
    [("unet3d", (1, 1, 16, 16, 16)), ("unet3d-23", (1, 1, 32, 32, 32)), ("mobilenetv2", (1, 3, 8, 32, 32))],
)
def test_built_in_networks(name: str, shape: tuple[int, ...]) -> None:
    found = check(name, [shape], ranp.Budget(macs=0.25))
    assert found.verified == "exact"
    assert 0 < found.macs_pruned <= 0.25 * found.macs_full
    assert not found.error
    assert set(BUILT_IN) == {"unet3d", "unet3d-23", "mobilenetv2", "i3d"}


def test_what_stays_whole_is_named(nets: str) -> None:
    found = check(f"{nets}:Fixed", [(1, 3, 9, 9)], ranp.Budget(macs=0.7))
    assert found.verified == "exact"
    shares = {entry.operator: entry.macs_share for entry in found.frozen}
    assert set(shares) == {"forward", "output"}
    full = found.macs_full
    assert shares["forward"] == pytest.approx(3 * 8 * 9 * 49 / full)
    assert shares["output"] == pytest.approx(6 * 2 * 25 / full)


@pytest.mark.parametrize(
    ("name", "shapes", "message"),
    [
        ("unet", [], "did you mean 'unet3d'"),
        ("{nets}:Fixed", [], "the shape of every input"),
        ("{nets}:needs_arguments", [(1, 3, 9, 9)], "wrap a model that needs arguments"),
        ("{nets}:missing", [(1, 3, 9, 9)], "AttributeError"),
        ("no_such_module:f", [(1, 3, 9, 9)], "No module named"),
        ("{nets}:no_model", [(1, 3, 9, 9)], "got int; expected a torch.nn.Module"),
    ],
)
def test_models_that_cannot_be_had(nets: str, name: str, shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(name.format(nets=nets), shapes, ranp.Budget(macs=0.5))


def test_a_network_with_nothing_to_prune(nets: str) -> None:
    with pytest.raises(TraceError, match="no channel that may be removed"):
        check("torch.nn:Identity", [(1, 3, 9, 9)], ranp.Budget(macs=0.5))


@pytest.mark.parametrize("text", ["", "1,a", "1,,2", "0,3", "-1,3"])
def test_shapes_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="--input"):
        parse_shape(text)


@pytest.mark.parametrize("text", ["mac=0.5", "macs", "macs=x%"])
def test_budgets_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="--budget"):
        parse_budget([text])


def test_the_command(nets: str, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("ranp")), "check"]
    arguments = [f"{nets}:Fixed", "--input", "1,3,9,9", "--budget", "macs=70%", "--json"]
    done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert {"macs_full", "macs_pruned", "verified", "frozen", "seconds"} <= found.keys()
    assert found["verified"] == "exact"
    assert {"path", "operator", "macs_share"} <= found["frozen"][0].keys()

    failed = subprocess.run([*command, "unet"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: model: got 'unet'")
    assert "Traceback" not in failed.stderr
