"""Networks, functions and devices by name."""

import re
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import nn

from ranp.errors import InputError
from ranp.import_by_name import build_network, call, find, find_device
from ranp.models import UNet3D


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    return tmp_path


def test_a_file_is_run_once(folder: Path) -> None:
    (folder / "named_once.py").write_text("count = []\ncount.append(1)\n\ndef f():\n    return count\n")
    for _ in range(2):
        assert find(f"{folder / 'named_once.py'}:f", "here")() == [1]


def test_a_file_can_import_files_of_its_folder(folder: Path) -> None:
    (folder / "blocks_of_mine.py").write_text("width = 3\n")
    (folder / "net_of_mine.py").write_text("from blocks_of_mine import width\n\ndef f():\n    return width\n")
    assert find(f"{folder / 'net_of_mine.py'}:f", "here")() == 3


def test_a_file_does_not_replace_a_module_of_the_standard_library(folder: Path) -> None:
    import json

    (folder / "json.py").write_text("def f():\n    return 'mine'\n")
    assert find(f"{folder / 'json.py'}:f", "here")() == "mine"
    assert sys.modules["json"] is json


def test_files_with_one_name_in_two_folders_are_distinct(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "same_name.py").write_text(f"def f():\n    return {name!r}\n")
    assert [find(f"{folder / name / 'same_name.py'}:f", "here")() for name in ("one", "two", "one")] == [
        "one",
        "two",
        "one",
    ]


def test_a_file_that_failed_can_be_imported_once_fixed(folder: Path) -> None:
    file = folder / "mended.py"
    file.write_text("1 / 0\n")
    with pytest.raises(InputError, match=r"imported: ZeroDivisionError: division by zero \(.*mended.py, line 1\)"):
        find(f"{file}:f", "here")
    file.write_text("def f():\n    return 'mended'\n")
    assert find(f"{file}:f", "here")() == "mended"


def test_a_module_in_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "beside_me.py").write_text("class Inner:\n    f = 5\n")
    monkeypatch.chdir(folder)
    assert find("beside_me:Inner.f", "here") == 5


def test_dataclasses_in_a_file_work(folder: Path) -> None:
    """They look their module up."""
    lines = ("from __future__ import annotations", "from dataclasses import dataclass", "@dataclass", "class D:")
    (folder / "with_data.py").write_text("\n".join((*lines, "    x: int = 2\n")))
    assert find(f"{folder / 'with_data.py'}:D", "here")().x == 2


def test_errors_in_installed_packages_have_file_and_line() -> None:
    arguments = {"in_channels": "one", "out_channels": 2, "kernel_size": 1}
    with pytest.raises(InputError, match=r"here: failed: TypeError.*\(.*site-packages/torch/.*\.py, line \d+\)$"):
        call(nn.Conv2d, arguments, "here")


def test_weights_follow_from_the_seed() -> None:
    def weight(seed: int) -> torch.Tensor:
        return build_network("unet3d", {"width": 2}, seed=seed).head.weight

    before = torch.get_rng_state()
    assert torch.equal(weight(0), weight(0))
    assert not torch.equal(weight(0), weight(1))
    assert torch.equal(before, torch.get_rng_state())
    assert isinstance(build_network("ranp.models:UNet3D", {"width": 2}, seed=0), UNet3D)


def test_functions_without_a_signature_are_called_directly() -> None:
    assert call(dict, {"a": 1}, "here") == {"a": 1}
    with pytest.raises(InputError, match="is an object of type int, not a function or class"):
        call(5, {}, "here")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["quantum", "meta:x", "cuda:99"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="--device"):
        find_device(name)


def test_devices_have_names_of_torch() -> None:
    assert find_device("cpu") == torch.device("cpu")


def test_objects_of_packages_are_found() -> None:
    assert find("fractions:Fraction", "number")(3, 4) == Fraction(3, 4)


def test_wrong_arguments_are_refused_with_the_right_ones() -> None:
    expected = "model f: cannot be called with widht=3 (missing a required argument: 'width'); "
    expected += "expected arguments (width); give arguments as --set width=1"
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        call(lambda width: width + 1, {"widht": 3}, "model f", "give arguments as --set width=1")
