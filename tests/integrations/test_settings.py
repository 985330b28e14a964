"""What can be said of nnU-Net's trainer without nnU-Net: its settings, and how nnU-Net is told where it is."""

import importlib
import runpy
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ranp import Budget, RanpError, integrations
from ranp.cli import app
from ranp.integrations.settings import NnUNetPruning

TRAINERS = Path(integrations.__file__).parent / "nnunet_trainers"
MODULE = TRAINERS / "nnUNetTrainerRanp.py"


def test_the_environment_changes_what_it_names() -> None:
    mine = NnUNetPruning(Budget(macs=0.3, params=0.5), criterion="snip", batches=7)
    assert mine.changed_by({"HOME": "/", "nnUNet_raw": "/raw"}) == mine
    assert mine.changed_by({"nnUNet_ranp_activations": "0.25"}).budget == Budget(activations=0.25)
    found = mine.changed_by({"nnUNet_ranp_importance": "neuron", "nnUNet_ranp_round_to": "8"})
    assert (found.importance, found.round_to, found.criterion, found.batches) == ("neuron", 8, "snip", 7)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("budget", "0.1", "nnUNet_ranp_budget"),
        ("batchs", "3", "did you mean 'batches'"),
        ("macs", "5%", "'5%'"),
        ("macs", "2", "a fraction"),
        ("batches", "0", "at least 1"),
        ("batches", "1.5", "an integer"),
        ("resource_weight", "much", "a number"),
        ("seed", "-1", "at least 0"),
    ],
)
def test_what_the_environment_says_wrongly_is_refused(name: str, text: str, said: str) -> None:
    with pytest.raises(RanpError, match=said):
        NnUNetPruning().changed_by({f"nnUNet_ranp_{name}": text})


@pytest.fixture
def trainers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of trainers of an nnU-Net that has nothing else."""
    folder = tmp_path / "nnunetv2" / "training" / "nnUNetTrainer"
    folder.mkdir(parents=True)
    for parent in (folder, *folder.parents[:2]):
        (parent / "__init__.py").touch()
    for name in [name for name in sys.modules if name.partition(".")[0] == "nnunetv2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_install_and_path(trainers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        found = CliRunner().invoke(app, ["nnunet", "install"])
        assert found.exit_code == 0, found.output
        assert [path.name for path in trainers.glob("nnUNet*")] == ["nnUNetTrainerRanp.py"]
    assert CliRunner().invoke(app, ["nnunet", "path"]).output.strip() == str(TRAINERS)
    assert (TRAINERS / MODULE.name).read_text() == (trainers / MODULE.name).read_text()
    assert [path.name for path in TRAINERS.glob("*.py")] == [MODULE.name]  # nnU-Net imports all there is.

    for name in [name for name in sys.modules if name.partition(".")[0] == "nnunetv2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ranp", None)  # as if it were uninstalled
    assert "nnUNetTrainerRanp" not in runpy.run_path(str(trainers / MODULE.name))


def test_install_says_what_is_missing(trainers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("ranp.cli._nnunet.write_bytes", refuse)
    found = CliRunner().invoke(app, ["nnunet", "install"])
    assert isinstance(found.exception, RanpError) or found.exit_code == 1
    told = f"{found.output}{found.exception}"
    assert "read-only" in told
    assert "ranp nnunet path" in told

    monkeypatch.setattr("ranp.cli._nnunet.find_spec", lambda name: None)
    found = CliRunner().invoke(app, ["nnunet", "install"])
    assert "pip install 'ranp[nnunet]'" in f"{found.output}{found.exception}"


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nnunetv2", None)
    monkeypatch.delitem(sys.modules, "ranp.integrations.nnunet", raising=False)
    with pytest.raises(RanpError, match=r"the package nnunetv2 is not installed .* pip install 'ranp\[nnunet\]'"):
        importlib.import_module("ranp.integrations.nnunet")
