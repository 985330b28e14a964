"""The layering rules: imports go in one direction, underscores mean what they say, and importing does nothing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ranp

SOURCE = Path(ranp.__file__).parent
ROOT = SOURCE.parents[1]

# From the bottom up; a package may import from any layer below its own, never from its own.
LAYERS: list[set[str]] = [
    {"errors", "deprecation", "progress"},
    {"optional", "arguments"},
    {"files", "module_utils", "training_mode", "environment"},
    {"costs"},
    {"graph", "budget", "tables"},
    {"plan", "scores"},
    {"criteria", "allocation", "surgery", "report"},
    {"scoring", "tracing", "storage"},
    {"explorer", "memory", "timing"},
    {"training_costs"},
    {"pruning", "benchmark", "fitting"},
    {"__init__"},
    {"import_by_name"},
    {"check", "profile"},
    {"integrations"},
    {"experiments"},
    {"cli"},
    {"__main__"},
]
EXPERIMENT_LAYERS: list[set[str]] = [
    {"losses", "plots"},
    {"data"},
    {"recipes"},
    {"runs"},
    {"studies", "reproduce"},
    {"demo"},
]
# Plain torch, and importable from everywhere above the layer of `ranp/__init__.py`.
STANDALONE = "models"


def modules_imported(path: Path, *, lazily: bool = True) -> Iterator[str]:
    """Full names of the modules of ranp that a file imports, by default those inside functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if lazily else _run_on_import(tree)
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if _is_module(name) else node.module
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1, path
            assert path.is_relative_to(SOURCE), path
            yield f"ranp.{path.relative_to(SOURCE).parts[0]}"
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _run_on_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported: not in functions, and not for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield node
            yield from _run_on_import(node)


def _is_module(name: str) -> bool:
    place = SOURCE.parent.joinpath(*name.split("."))
    return place.is_dir() or place.with_suffix(".py").exists()


def of_ranp(path: Path, *, lazily: bool = True) -> set[str]:
    return {name for name in modules_imported(path, lazily=lazily) if name.split(".")[0] == "ranp"}


def package(name: str) -> str:
    """The first part after `ranp`: a package or a module of the top level."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def module_name(path: Path) -> str:
    return "ranp." + ".".join(path.relative_to(SOURCE).with_suffix("").parts)


MODULES = sorted(SOURCE.rglob("*.py"))
EXPERIMENTS = [path for path in MODULES if path.is_relative_to(SOURCE / "experiments")]


def in_source(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@pytest.mark.parametrize("path", MODULES, ids=in_source)
def test_imports_go_down(path: Path) -> None:
    here = package(module_name(path))
    others = {package(name) for name in of_ranp(path)} - {here}
    if here == STANDALONE:
        assert others == set()
        return
    layer = next((number for number, names in enumerate(LAYERS) if here in names), None)
    assert layer is not None, f"{here} has no place in LAYERS"
    below = set[str]().union(*LAYERS[:layer])
    if layer > LAYERS.index({"__init__"}) or here == "__init__":
        below.add(STANDALONE)
    assert others <= below, f"{here} may not import {others - below}"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=in_source)
def test_imports_of_experiments_go_down(path: Path) -> None:
    def part(name: str) -> str:
        return [*name.split("."), "__init__"][2]

    here = part(module_name(path))
    if here == "__init__":
        assert of_ranp(path) == set()
        return
    others = {part(name) for name in of_ranp(path) if package(name) == "experiments"} - {here}
    layer = next((number for number, names in enumerate(EXPERIMENT_LAYERS) if here in names), None)
    assert layer is not None, f"{here} has no place in EXPERIMENT_LAYERS"
    assert others <= set[str]().union(*EXPERIMENT_LAYERS[:layer])


@pytest.mark.parametrize("path", [*MODULES, *ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("docs/*.py")], ids=str)
def test_underscore_modules_are_imported_by_their_own_package_alone(path: Path) -> None:
    for name in of_ranp(path):
        assert _may_import(path, name), f"{path} imports {name}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("tests/**/*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_underscore_modules_are_imported_by_their_own_unit_test_alone(path: Path) -> None:
    for name in of_ranp(path):
        assert _may_import(path, name), f"{path} imports {name}"


def _may_import(path: Path, name: str) -> bool:
    """Whether an underscore module belongs to the file's package, or the file is its unit test."""
    parts = name.split(".")
    private = next((number for number, part in enumerate(parts) if part.startswith("_")), None)
    if private is None:
        return True
    folder = SOURCE.joinpath(*parts[1:private])
    if path.is_relative_to(SOURCE):
        return path.parent == folder or folder in path.parents
    mirrored = ROOT / "tests" / Path(*parts[1:private])
    return path.parent == mirrored and path.stem.startswith(f"test{parts[private]}")


def test_the_command_line_imports_experiments_inside_functions_alone() -> None:
    for path in SOURCE.glob("cli/**/*.py"):
        found = {name for name in of_ranp(path, lazily=False) if package(name) == "experiments"}
        assert not found, f"{path.name} imports {found} when it is imported"


def test_modules_of_a_package_do_not_import_each_other_in_circles() -> None:
    graph = {module_name(path).removesuffix(".__init__"): of_ranp(path, lazily=False) for path in MODULES}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name in graph and name not in done:
            for other in graph[name]:
                # A package's own `__init__` collects what its modules offer.
                if other != name and not name.startswith(f"{other}."):
                    visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_the_rules_see_imports() -> None:
    """They would pass on anything if they read nothing."""
    assert {package(name) for name in of_ranp(SOURCE / "pruning.py")} >= {"allocation", "budget", "plan", "scoring"}
    assert {package(name) for name in of_ranp(SOURCE / "__init__.py")} >= {"pruning", "storage"}
    assert package("ranp") == "__init__"
    assert not _may_import(SOURCE / "cli" / "prune.py", "ranp.tracing._labels")
    assert not _may_import(ROOT / "tests" / "surgery" / "test_labels.py", "ranp.tracing._labels")
    assert _may_import(ROOT / "tests" / "tracing" / "test_labels_of_views.py", "ranp.tracing._labels")
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
        "TrainingSetup",
        "__version__",
        "allocate",
        "apply",
        "bench",
        "fit",
        "load",
        "measure_times",
        "prune",
        "save",
        "score",
        "trace",
        "verify",
    ]
    assert all(getattr(ranp, name) is not None for name in ranp.__all__)
