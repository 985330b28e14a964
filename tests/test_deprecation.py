"""Names of ranp 0.1 work for one more release, with a warning that says what to write instead."""

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ranp
from ranp.deprecation import MODULES, RenamedAttribute, renamed_arguments, renamed_names

DOCUMENTED = {
    "ranp.data": "DATA_SETS data_set",
    "ranp.naming": "build_network",
    "ranp.recipes": "Recipe",
    "ranp.survey": "read_survey write_survey",
    "ranp.training": "peak_step_bytes step_seconds",
}
"""Names of 0.1 by module, as its documentation imports them."""

IMPORT_ALL = """
import importlib, json, sys, warnings
found = {}
for module, names in json.loads(sys.argv[1]).items():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(f"import {module}")
    found[module] = [[entry.category.__name__, str(entry.message), entry.filename] for entry in caught]
    old = sys.modules[module]
    for name in names.split():
        exec(f"from {module} import {name}")
        homes = (importlib.import_module(home) for home in sys.argv[2:] if home.startswith("ranp"))
        assert any(getattr(home, name, None) is globals()[name] for home in homes), (module, name)
    assert not names or not hasattr(old, "no_such_name"), module
print(json.dumps(found))
"""


def test_modules_are_found_by_their_old_names() -> None:
    old = {module: DOCUMENTED.get(module, "") for module in MODULES}
    homes = sorted({home for module in DOCUMENTED for home in MODULES[module].split()})
    command = [sys.executable, "-W", "ignore", "-c", IMPORT_ALL, json.dumps(old), *homes]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = {
        module: f"{module} is now {' or '.join(homes.split())}; the old name will be removed in ranp 0.3"
        for module, homes in MODULES.items()
    }
    # The warning names the line of the import, not one of the import system.
    assert json.loads(done.stdout) == {
        module: [["DeprecationWarning", message, "<string>"]] for module, message in expected.items()
    }


def test_old_names_of_arguments_work_with_a_warning() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    x, y = torch.randn(2, 2, 6, 6), torch.randn(2, 2, 4, 4)
    graph, budget = ranp.trace(model, x), ranp.Budget(macs=0.5)
    score: Any = ranp.score  # Type checkers do not know the old names.
    prune: Any = ranp.prune
    with pytest.warns(DeprecationWarning, match=r"^score\(lam=...\) is now resource_weight=; .* removed in ranp 0.3$"):
        assert score(model, graph, [(x, y)], F.mse_loss, lam=15.0).resource_weight == 15.0
    with pytest.warns(DeprecationWarning, match=r"^score\(until=...\) is now stop_at_correlation="):
        assert score(model, graph, [(x, y)] * 9, F.mse_loss, until=1e-9).batches == 2
    with pytest.warns(DeprecationWarning, match=r"^prune\(lam=...\) is now resource_weight="):
        assert prune(model, x, [(x, y)], F.mse_loss, budget=budget, lam=15.0).plan.resource_weight == 15.0
    with pytest.warns(DeprecationWarning, match=r"^prune\(until=...\) is now stop_at_correlation="):
        assert prune(model, x, [(x, y)] * 9, F.mse_loss, budget=budget, until=1e-9).scores.batches == 2
    with pytest.raises(TypeError, match="lam is the old name of resource_weight; give only resource_weight"):
        score(model, graph, [(x, y)], F.mse_loss, lam=15.0, resource_weight=11.0)


def test_a_renamed_function_keeps_its_signature() -> None:
    @renamed_arguments(times="count")
    def repeat(text: str, count: int = 2) -> str:
        """Repeat a text."""
        return text * count

    assert (repeat.__name__, repeat.__doc__) == ("repeat", "Repeat a text.")
    assert (repeat("a"), repeat("a", count=3)) == ("aa", "aaa")
    with pytest.warns(DeprecationWarning, match=r"^repeat\(times=...\) is now count=") as caught:
        assert repeat("a", times=3) == "aaa"  # type: ignore[call-arg]
    assert caught[0].filename == __file__


def test_renamed_functions_of_a_module_are_found_there_and_elsewhere() -> None:
    find = renamed_names("math", {"square_root": "sqrt", "plus": "operator.add"})
    with pytest.warns(DeprecationWarning, match=r"^math.square_root is now math.sqrt; .* removed in ranp 0.3$"):
        assert find("square_root")(9.0) == 3
    with pytest.warns(DeprecationWarning, match=r"^math.plus is now operator.add; "):
        assert find("plus")(1, 2) == 3
    with pytest.raises(AttributeError, match=r"^module 'math' has no attribute 'cube_root'$"):
        find("cube_root")


def test_a_renamed_attribute_is_found_by_its_old_name() -> None:
    class Graph:
        unprunable = ("head",)
        frozen = RenamedAttribute("unprunable")

    with pytest.warns(DeprecationWarning, match=r"^Graph.frozen is now Graph.unprunable; ") as caught:
        assert Graph().frozen == ("head",)
    assert caught[0].filename == __file__
    assert isinstance(Graph.frozen, RenamedAttribute)
