"""The layout rule: imports go in one direction, siblings never import each other, and importing does nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ranp

ROOT = Path(ranp.__file__).parent

# From the bottom up; a room may import from any room below its own line, never from its own.
FLOORS: list[set[str]] = [
    {"errors", "_version"},
    {"files", "module_utils", "environment", "optional", "progress", "costs"},
    {"graph"},
    {"budget", "tables"},
    {"plan", "scores"},
    {"scoring", "allocation", "surgery", "report"},
    {"tracing", "storage"},
    {"explorer"},
    {"pruning"},
    {"__init__"},
    {"import_by_name"},
    {"check", "profile"},
    {"integrations"},
    {"experiments"},
    {"cli"},
    {"__main__"},
]
STANDALONE = "models"


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Rooms that a module imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:  # `from .unet3d import`: within the room
                assert node.level == 1
                assert path.parent != ROOT
                continue
            names = [f"{node.module}.{alias.name}" if node.module == "ranp" else node.module for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = (name or "").split(".")
            if parts[0] == "ranp":
                inside = len(parts) > 1 and ((ROOT / parts[1]).is_dir() or (ROOT / f"{parts[1]}.py").exists())
                found.add(parts[1] if inside else "__init__")
    return found - {room(path)}


MODULES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    here = room(path)
    if here == STANDALONE:
        assert imported(path) == set()
        return
    floor = next((number for number, rooms in enumerate(FLOORS) if here in rooms), None)
    assert floor is not None, f"{here} has no place in FLOORS"
    below = set[str]().union(*FLOORS[:floor])
    if floor > FLOORS.index({"__init__"}):
        below.add(STANDALONE)
    assert imported(path) <= below, f"{here} may not import {imported(path) - below}"


def test_the_rule_sees_imports() -> None:
    """It would pass on anything if it read nothing."""
    assert imported(ROOT / "pruning.py") >= {"allocation", "budget", "graph", "plan", "scoring", "surgery"}
    assert imported(ROOT / "__init__.py") >= {"pruning", "storage"}
    assert len(MODULES) > 30


def test_importing_does_nothing_and_brings_no_extra() -> None:
    code = (
        "import sys, random, torch, numpy, rich.console\n"
        "before = torch.get_rng_state(), random.getstate(), torch.get_num_threads(), torch.is_grad_enabled()\n"
        "import ranp, ranp.cli, ranp.experiments.data, ranp.integrations, ranp.models, ranp.report, ranp.storage\n"
        "after = torch.get_rng_state(), random.getstate(), torch.get_num_threads(), torch.is_grad_enabled()\n"
        "assert torch.equal(before[0], after[0]) and before[1:] == after[1:]\n"
        "heavy = {'monai', 'matplotlib', 'nilearn', 'nibabel', 'scipy', 'pandas', 'sklearn'}\n"
        "heavy |= {'av', 'lightning', 'pydantic', 'torchmetrics', 'torchvision', 'yaml'}\n"
        "heavy &= sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_the_public_names() -> None:
    assert sorted(ranp.__all__) == [
        "Budget",
        "Plan",
        "PruneResult",
        "RanpError",
        "__version__",
        "allocate",
        "apply",
        "load",
        "prune",
        "save",
        "score",
        "trace",
        "verify",
    ]
    assert all(getattr(ranp, name) is not None for name in ranp.__all__)
