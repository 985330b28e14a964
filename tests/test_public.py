"""The package's names are imported on first use, and otherwise like any others."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import ranp


def test_every_name_is_that_of_its_home() -> None:
    """What type checkers read and what Python runs are two lists, which must say the same."""
    tree = ast.parse(Path(ranp.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    read = {
        alias.name: str(node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert {f"ranp.{home}" for home in ranp._HOMES.values()} == set(read.values())
    assert {name: f"ranp.{home}" for name, home in ranp._HOMES.items()} == read
    assert {*read, "__version__"} == set(ranp.__all__)
    for name, home in read.items():
        assert getattr(ranp, name) is getattr(import_module(home), name)


def test_importing_the_package_imports_no_torch() -> None:
    code = (
        "import sys, ranp\n"
        "assert set(ranp.__all__) <= set(dir(ranp))\n"
        "assert 'torch' not in sys.modules\n"
        "from ranp import Budget\n"
        "assert 'torch' not in sys.modules\n"
        "from ranp import *\n"
        "assert 'torch' in sys.modules and prune is ranp.prune\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_is_none() -> None:
    with pytest.raises(AttributeError, match="module 'ranp' has no attribute 'purne'"):
        ranp.purne  # noqa: B018
