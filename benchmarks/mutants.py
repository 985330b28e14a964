"""Do the tests notice errors? Mutants of the core are drawn, and the tests run against each.

    python benchmarks/mutants.py --jobs 2

Three steps, each of which resumes where it was interrupted:

1. The suite runs once, noting which lines of the core each test executes and how long it takes.
2. 200 mutants are drawn with a fixed seed. Against each run the tests that execute the mutated line, those of its own
   package first and then the fastest first, until one fails.
3. For each mutant that survives, the networks of the zoo at full size, which `make test` only prunes without data:
   they are traced, allocated and applied with the mutant and without it. Where plan or pruned network differ, the full
   tests of these networks run as well (`make test-zoo`); for mutants of the surgery, those of a third of all networks.

Mutants live in copies of the repository in a temporary folder; the working tree is only read.
"""

import ast
import hashlib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import pytest
import typer

ROOT = Path(__file__).parent.parent
CORE = ("tracing", "scoring", "allocation", "surgery", "storage.py", "plan.py", "files.py")
RESULTS = ROOT / "benchmarks" / "results" / "mutants.json"
FOLDER = Path(tempfile.gettempdir(), "ranp-mutants")
MAP = "RANP_MUTANTS_MAP"
PRELOADED = ("torch", "numpy", "safetensors.torch", "torch.utils.flop_counter", "monai.networks.nets")
MEMORY = 10 << 30
Tests = dict[str, dict[str, Any]]

# -- mutants -----------------------------------------------------------------------------------------------------

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}


@dataclass(frozen=True)
class Mutant:
    """One change of one node.

    Attributes:
        file: Path from the repository's root.
        line: Where the node begins.
        node: Its place in the order of `ast.walk`.
        operator: What is changed.
        lines: Lines of the node and of the statement that holds it; none where that runs on import.
    """

    file: str
    line: int
    node: int
    operator: str
    lines: tuple[int, ...]

    @property
    def name(self) -> str:
        """Unique among mutants of the same source."""
        return f"{self.file}:{self.line}:{self.node}:{self.operator}"


def _variants(node: ast.AST) -> Iterator[tuple[str, Callable[[Any], ast.AST | None]]]:
    """Changes of a node: a function that edits it in place, or returns what replaces it."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARED:
        yield "comparison", lambda n: _set(n, "ops", [_COMPARED[type(n.ops[0])](), *n.ops[1:]])
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in _COMPUTED:
        yield "arithmetic", lambda n: _set(n, "op", _COMPUTED[type(n.op)]())
    elif isinstance(node, ast.BoolOp):
        other = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield "and/or", lambda n: _set(n, "op", other())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield "sign or not removed", lambda n: n.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "constant", lambda n: _set(n, "value", not n.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield "constant + 1", lambda n: _set(n, "value", n.value + 1)
        yield "constant - 1", lambda n: _set(n, "value", n.value - 1)
    elif isinstance(node, (ast.If, ast.IfExp)):
        yield "condition negated", lambda n: _set(n, "test", ast.UnaryOp(ast.Not(), n.test))
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield "filter removed", lambda n: _set(n, "ifs", [])
    elif isinstance(node, ast.Return) and node.value and not _is_none(node.value):
        yield "returns None", lambda n: _set(n, "value", ast.Constant(None))
    elif isinstance(node, ast.Call) and len(node.args) > 1 and not any(isinstance(a, ast.Starred) for a in node.args):
        yield "arguments swapped", lambda n: _set(n, "args", [n.args[1], n.args[0], *n.args[2:]])
    elif isinstance(node, ast.Slice):
        for bound in ("lower", "upper"):
            if getattr(node, bound):
                yield f"no {bound} bound", lambda n, bound=bound: _set(n, bound, None)  # type: ignore[misc]
    elif isinstance(node, (ast.Break, ast.Continue)):
        yield "break/continue", lambda n: ast.Continue() if isinstance(n, ast.Break) else ast.Break()
    if (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)) or isinstance(
        node, (ast.Raise, ast.AugAssign)
    ):
        yield "statement removed", lambda n: ast.Pass()
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], (ast.Attribute, ast.Subscript)):
        yield "statement removed", lambda n: ast.Pass()


def _set(node: ast.AST, name: str, value: Any) -> None:
    setattr(node, name, value)


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _skipped(tree: ast.AST) -> set[ast.AST]:
    """Annotations, decorators, f-strings, what errors say, and lists of names."""
    roots: list[ast.AST | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            roots.append(node.annotation)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            roots += [node.returns, *node.decorator_list]
        elif isinstance(node, ast.ClassDef):
            roots += [*node.decorator_list, *node.bases]
        elif isinstance(node, ast.AnnAssign):
            roots.append(node.annotation)
        elif isinstance(node, ast.Raise):
            roots.append(node.exc)
        elif isinstance(node, ast.JoinedStr):
            roots.append(node)
    return {node for root in roots if root for node in ast.walk(root)}


def candidates(root: Path) -> list[Mutant]:
    """All mutants of the core, in a fixed order."""
    paths = [path for part in CORE for path in sorted((root / "src" / "ranp" / part).rglob("*.py"))]
    paths += [root / "src" / "ranp" / part for part in CORE if part.endswith(".py")]
    found = []
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        skipped, statements = _skipped(tree), _statements(tree)
        for index, node in enumerate(ast.walk(tree)):
            if node in skipped or node not in statements:
                continue
            line = getattr(node, "lineno", max(statements[node], default=0))
            for operator, _ in _variants(node):
                file = path.relative_to(root).as_posix()
                found.append(Mutant(file, line, index, operator, statements[node]))
    return found


def _statements(tree: ast.Module) -> dict[ast.AST, tuple[int, ...]]:
    """For every node the lines that show a tracer that it is executed; none where that happens on import."""
    found: dict[ast.AST, tuple[int, ...]] = {}

    def visit(node: ast.AST, lines: tuple[int, ...], inside: bool) -> None:
        if isinstance(node, ast.stmt) and inside:
            lines = (node.lineno,)
        own = (getattr(node, "lineno", 0), *lines) if inside else ()
        found[node] = tuple(sorted({line for line in own if line}))
        for name, value in ast.iter_fields(node):
            body = name == "body" and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child, lines, inside or body)

    visit(tree, (), False)
    return found


def mutated(source: str, mutant: Mutant) -> str:
    """The source of a module with one change."""
    tree = ast.parse(source)
    target = list(ast.walk(tree))[mutant.node]
    change = dict(_variants(target))[mutant.operator]
    replacement = change(target)
    if replacement is not None:
        for parent in ast.walk(tree):
            for name, value in ast.iter_fields(parent):
                if value is target:
                    setattr(parent, name, replacement)
                elif isinstance(value, list) and any(entry is target for entry in value):
                    setattr(parent, name, [replacement if entry is target else entry for entry in value])
    return ast.unparse(ast.fix_missing_locations(tree))


# -- which test executes which line: a plugin of pytest ------------------------------------------------------------


class _Lines:
    """Notes the lines of the core that each test executes."""

    def __init__(self, root: Path) -> None:
        self.core = tuple(str(root / "src" / "ranp" / part) for part in CORE)
        self.root = len(str(root)) + 1
        self.tests: Tests = {}
        self.lines: set[tuple[str, int]] = set()

    def enter(self, frame: FrameType, event: str, value: Any) -> Any:
        return self.step if frame.f_code.co_filename.startswith(self.core) else None

    def step(self, frame: FrameType, event: str, value: Any) -> Any:
        if event == "line":
            self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self.step

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.lines = set()
        began = time.perf_counter()
        sys.settrace(self.enter)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            by_file: dict[str, list[int]] = {}
            for file, line in sorted(self.lines):
                by_file.setdefault(file[self.root :], []).append(line)
            self.tests[item.nodeid] = {"seconds": time.perf_counter() - began, "lines": by_file}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.tests.setdefault(report.nodeid, {})["failed"] = not report.skipped

    def pytest_sessionfinish(self) -> None:
        worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
        Path(os.environ[MAP], f"{worker}.json").write_text(json.dumps(self.tests))


def pytest_configure(config: pytest.Config) -> None:
    """With `-p mutants`."""
    if MAP in os.environ:
        config.pluginmanager.register(_Lines(config.rootpath))


def collect(repository: Path, folder: Path, jobs: int, selection: list[str]) -> Tests:
    """Run the suite once, in a copy, and return what each test that passes executes."""
    if not list(folder.glob("*.json")):
        partial = Path(tempfile.mkdtemp(dir=folder.parent))
        environment = _environment(repository) | {MAP: str(partial)}
        command = [sys.executable, "-m", "pytest", "-p", "mutants", "-p", "no:cacheprovider", "-q", "-n", str(jobs)]
        subprocess.run([*command, *selection], cwd=repository, env=environment, check=False)
        partial.rename(folder)
    tests: Tests = {}
    for path in sorted(folder.glob("gw*.json")):
        tests |= json.loads(path.read_text())
    return {name: entry for name, entry in tests.items() if "lines" in entry and "failed" not in entry}


def _environment(repository: Path) -> dict[str, str]:
    paths = [str(repository / part) for part in ("src", "benchmarks")]
    once = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "HYPOTHESIS_STORAGE_DIRECTORY": "/dev/null/none"}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **once}


def chosen(mutant: Mutant, tests: Tests) -> list[str]:
    """Tests that execute the mutated line: those of its own package first, then the fastest first."""
    own = _own_tests(mutant.file)
    found = []
    for name, entry in tests.items():
        lines = entry["lines"].get(mutant.file, [])
        if lines and (not mutant.lines or set(mutant.lines) & set(lines)):
            found.append((not name.startswith(own), entry["seconds"], name))
    return [name for _, _, name in sorted(found)]


def _own_tests(file: str) -> str:
    part = Path(file).relative_to("src/ranp").parts[0]
    return f"tests/test_{part}" if part.endswith(".py") else f"tests/{part}/"


# -- running -----------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What became of a mutant.

    Attributes:
        status: `killed`, `survived`, or `not executed` by any test.
        killed_by: The test that failed first, `timeout`, or how the process died.
        seconds: Wall time.
        tests: How many tests were to run.
        left_out: How many more execute the line, but would have taken longer than the cap.
        old: What the networks at full size say of a survivor; empty if not asked yet.
    """

    status: str
    killed_by: str = ""
    seconds: float = 0.0
    tests: int = 0
    left_out: int = 0
    old: str = ""
    mutant: dict[str, Any] = field(default_factory=dict)


class _FirstFailure:
    def __init__(self) -> None:
        self.name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.name:
            self.name = f"collection of {report.nodeid}"


def _run_tests(tests: list[str]) -> str:
    """Name of the first that fails; empty if all pass."""
    watch = _FirstFailure()
    arguments = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "", *tests]
    code = pytest.main(arguments, plugins=[watch])
    return watch.name or ("" if code == pytest.ExitCode.OK else f"pytest: {pytest.ExitCode(code).name}")


def _digests() -> dict[str, str]:
    """For every network of the zoo at full size what tracing, allocation and surgery make of it, without data."""
    test_zoo, ranp = (importlib.import_module(name) for name in ("tests.zoo.test_zoo", "ranp"))
    found = {}
    for parameter in test_zoo.networks(lambda family: family.members):
        member = parameter.values[0]
        if member is None:
            continue
        try:
            model, inputs = test_zoo.without_data(member)
            plan = test_zoo.random_plan(ranp.trace(model, inputs))
            small = ranp.apply(model, plan)
            shapes = [(name, tuple(tensor.shape)) for name, tensor in small.state_dict().items()]
            said = f"{plan!r} {shapes} {test_zoo.shapes(small, inputs)}"
        except Exception as error:
            said = repr(error)
        found[parameter.id] = hashlib.sha256(said.encode()).hexdigest()
    return found


def _tracked() -> list[Path]:
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
    return [ROOT / name for name in files.stdout.split("\0") if name and (ROOT / name).is_file()]


def _version() -> str:
    """Of sources and tests: what was measured of others does not count."""
    paths = [path for path in _tracked() if path.suffix == ".py"]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:12]


class Slot:
    """A copy of the repository in which one mutant at a time lives, and the process that runs its tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for path in _tracked():
            name = path.relative_to(ROOT)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)

    def start(self, mutant: Mutant | None, work: Callable[[], Any], limit: float) -> int:
        """Fork; the child writes what `work` returns to a file. What it imports of ranp is the mutant."""
        answer = self.folder / ".answer.json"
        answer.unlink(missing_ok=True)
        if mutant:
            path = self.folder / mutant.file
            path.write_text(mutated((ROOT / mutant.file).read_text(encoding="utf-8"), mutant), encoding="utf-8")
        child = os.fork()
        if child:
            return child
        try:
            signal.alarm(round(limit) + 1)
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            os.chdir(self.folder)
            os.environ.update(_environment(self.folder))
            sys.path[:0] = [str(self.folder / part) for part in ("src", "benchmarks", "tests", "")]
            log = os.open(self.folder / ".log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            answer.write_text(json.dumps(work()))
        except BaseException as error:
            answer.write_text(json.dumps(f"the process failed: {error!r}"))
        os._exit(0)

    def finish(self, mutant: Mutant | None, status: int) -> Any:
        """Restore the copy, and return what the child wrote, or how it died."""
        if mutant:
            shutil.copyfile(ROOT / mutant.file, self.folder / mutant.file)
        if os.WIFSIGNALED(status):
            return "timeout" if os.WTERMSIG(status) == signal.SIGALRM else f"signal {os.WTERMSIG(status)}"
        return json.loads((self.folder / ".answer.json").read_text())


def _in_parallel(
    slots: list[Slot],
    work: list[tuple[Mutant | None, Callable[[], Any], float]],
    done: Callable[[int, Any, float], None],
) -> None:
    """Run each piece of work in a free slot."""
    waiting, running, free = list(enumerate(work))[::-1], dict[int, tuple[int, Slot, float]](), list(slots)
    while waiting or running:
        while waiting and free:
            index, (mutant, act, limit) = waiting.pop()
            slot = free.pop()
            running[slot.start(mutant, act, limit)] = index, slot, time.perf_counter()
        child, status = os.wait()
        if child not in running:
            continue
        index, slot, began = running.pop(child)
        done(index, slot.finish(work[index][0], status), time.perf_counter() - began)
        free.append(slot)


def _capped(names: list[str], seconds: Callable[[str], float], cap: float) -> list[str]:
    found: list[str] = []
    total = 0.0
    for name in names:
        total += seconds(name)
        if found and total > cap:
            break
        found.append(name)
    return found


def main(
    count: Annotated[int, typer.Option(help="How many mutants are drawn.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    jobs: Annotated[int, typer.Option(help="Processes at a time.")] = 2,
    cap: Annotated[float, typer.Option(help="Seconds of tests per mutant.")] = 60.0,
    folder: Annotated[Path, typer.Option(help="Copies, and which test executes which line; kept.")] = FOLDER,
    results: Annotated[Path, typer.Option(help="Where the outcomes go.")] = RESULTS,
    suite: Annotated[str, typer.Option(help="new: make test; old: also the zoo at full size, on survivors.")] = "old",
    select: Annotated[list[str] | None, typer.Option(help="Tests to consider; all if not given.")] = None,
) -> None:
    """Draw mutants of the core and run the tests against them."""
    version = _version()
    folder = folder / version
    folder.mkdir(parents=True, exist_ok=True)
    slots = [Slot(folder / f"slot{number}") for number in range(jobs)]
    tests = collect(slots[0].folder, folder / "map", jobs, select or [])
    drawn = random.Random(seed).sample(candidates(ROOT), count)
    outcomes: dict[str, Outcome] = {}
    if results.exists():
        known = json.loads(results.read_text())
        names = {mutant.name for mutant in drawn if known["version"] == version}
        outcomes = {name: Outcome(**entry) for name, entry in known["outcomes"].items() if name in names}
    for name in PRELOADED:
        importlib.import_module(name)
    typer.echo(f"{len(tests)} tests, {len(drawn)} mutants, {len(outcomes)} of them known")

    def save() -> None:
        rows = {name: asdict(outcome) for name, outcome in outcomes.items()}
        results.parent.mkdir(parents=True, exist_ok=True)
        results.write_text(json.dumps({"version": version, "seed": seed, "outcomes": rows}, indent=1) + "\n")

    _against_new_suite(slots, drawn, tests, outcomes, cap, save)
    if suite == "old":
        _against_old_suite(slots, drawn, tests, outcomes, folder / "digests.json", cap, save)
    typer.echo(_summary(outcomes))


def _against_new_suite(
    slots: list[Slot],
    drawn: list[Mutant],
    tests: Tests,
    outcomes: dict[str, Outcome],
    cap: float,
    save: Callable[[], None],
) -> None:
    work, planned = [], []
    for mutant in drawn:
        if mutant.name in outcomes:
            continue
        names = chosen(mutant, tests)
        if not names:
            outcomes[mutant.name] = Outcome("not executed", mutant=asdict(mutant))
            continue
        few = _capped(names, lambda name: tests[name]["seconds"], cap)
        limit = 60 + 4 * sum(tests[name]["seconds"] for name in few)
        work.append((mutant, lambda few=few: _run_tests(few), limit))
        planned.append((mutant, few, len(names) - len(few)))

    if work:  # what fails without any mutant would seem to kill them all
        fast = sorted(tests, key=lambda name: tests[name]["seconds"])[:200]
        _in_parallel(slots[:1], [(None, lambda: _run_tests(fast), 600.0)], lambda _, answer, __: _expect_none(answer))

    def done(index: int, answer: str, seconds: float) -> None:
        mutant, few, left_out = planned[index]
        status = "killed" if answer else "survived"
        outcome = Outcome(status, answer, round(seconds, 1), len(few), left_out, mutant=asdict(mutant))
        outcomes[mutant.name] = outcome
        typer.echo(f"{status:8} {seconds:6.1f} s  {mutant.name}  {answer}")
        save()

    _in_parallel(slots, list(work), done)
    save()


def _against_old_suite(
    slots: list[Slot],
    drawn: list[Mutant],
    tests: Tests,
    outcomes: dict[str, Outcome],
    known: Path,
    cap: float,
    save: Callable[[], None],
) -> None:
    """Networks at full size: first what becomes of each without data, then the full test where that differs."""
    left = [mutant for mutant in drawn if outcomes[mutant.name].status != "killed" and not outcomes[mutant.name].old]
    reached = {mutant: any(name.startswith("tests/zoo/") for name in chosen(mutant, tests)) for mutant in left}
    for mutant in left:
        if not reached[mutant]:
            outcomes[mutant.name].old = "no network of the zoo executes it"
    left = [mutant for mutant in left if reached[mutant]]
    if left and not known.exists():
        _in_parallel(slots[:1], [(None, _digests, 900.0)], lambda _, answer, __: _write(known, answer))
    usual: dict[str, str] = json.loads(known.read_text()) if left else {}
    full = "tests/zoo/test_zoo.py::test_full_size_networks_are_pruned_proven_and_trained"
    again: list[tuple[Mutant, list[str]]] = []

    def compared(index: int, answer: Any, seconds: float) -> None:
        mutant = left[index]
        if not isinstance(answer, dict):
            outcomes[mutant.name].old = f"killed: {answer}"
        elif differing := [name for name in usual if answer.get(name) != usual[name]]:
            again.append((mutant, differing))
        elif "/surgery/" in mutant.file:
            again.append((mutant, _cheapest(list(usual), tests)))
        else:
            outcomes[mutant.name].old = f"same plan and pruned network for all {len(usual)} networks"
        typer.echo(f"compared {seconds:6.1f} s  {mutant.name}  {outcomes[mutant.name].old}")
        save()

    _in_parallel(slots, [(mutant, _digests, 900.0) for mutant in left], compared)

    def tested(index: int, answer: str, seconds: float) -> None:
        mutant, names = again[index]
        said = f"killed by {answer}" if answer else f"survives the full tests of {len(names)} networks"
        outcomes[mutant.name].old = said
        typer.echo(f"old      {seconds:6.1f} s  {mutant.name}  {said}")
        save()

    def selected(names: list[str]) -> Callable[[], str]:
        return lambda: _run_tests([f"{full}[{name}]" for name in names])

    _in_parallel(slots, [(mutant, selected(names), 1800.0) for mutant, names in again], tested)
    save()


def _cheapest(names: list[str], tests: Tests) -> list[str]:
    """A third of the networks, those that are traced fastest."""
    test = "tests/zoo/test_zoo.py::test_full_size_networks_are_pruned_without_data"
    seconds = {name: tests.get(f"{test}[{name}]", {}).get("seconds", 1e9) for name in names}
    return sorted(names, key=seconds.__getitem__)[: len(names) // 3]


def _expect_none(answer: Any) -> None:
    if answer:
        raise RuntimeError(f"tests fail without any mutant: {answer}")


def _write(path: Path, answer: Any) -> None:
    if not isinstance(answer, dict):
        raise RuntimeError(f"the zoo could not be traced: {answer}")
    path.write_text(json.dumps(answer))


def _summary(outcomes: dict[str, Outcome]) -> str:
    counts: dict[str, int] = {}
    for outcome in outcomes.values():
        counts[outcome.status] = counts.get(outcome.status, 0) + 1
    more = sum(outcome.old.startswith("killed") for outcome in outcomes.values())
    said = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    return f"new suite: {said}; old suite: kills {more} more"


if __name__ == "__main__":
    typer.run(main)
