"""`ranp nnunet` makes the trainer available to nnU-Net, here a package that has nothing but its folders."""

import runpy
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ranp import RanpError
from ranp.cli import app
from ranp.cli._nnunet import MODULE, TRAINERS


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

    for name in [name for name in sys.modules if name.partition(".")[0] == "nnunetv2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nnunetv2", None)
    found = CliRunner().invoke(app, ["nnunet", "install"])
    assert "pip install 'ranp[nnunet]'" in f"{found.output}{found.exception}"
