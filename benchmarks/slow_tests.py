"""Which tests are slow: run all and write the names of those that take long to `tests/slow_tests.txt`."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated
from xml.etree import ElementTree

import typer

ROOT = Path(__file__).parent.parent


def main(
    seconds: Annotated[float, typer.Option(help="Tests that take longer are slow.")] = 0.5,
    measured: Annotated[Path | None, typer.Option(help="A file that pytest --junit-xml wrote.")] = None,
) -> None:
    """Measure the tests of `make test` and list the slow ones."""
    with tempfile.TemporaryDirectory() as folder:
        path = measured or Path(folder, "tests.xml")
        if measured is None:
            subprocess.run([sys.executable, "-m", "pytest", "-n", "2", f"--junit-xml={path}"], cwd=ROOT, check=True)
        names = slow_tests(path, seconds)
    (ROOT / "tests" / "slow_tests.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    typer.echo(f"{len(names)} tests are slow")


def slow_tests(measured: Path, seconds: float) -> list[str]:
    """Names of the tests that took longer, as pytest calls them."""
    found = set()
    for case in ElementTree.parse(measured).getroot().iter("testcase"):
        if float(case.get("time", 0)) > seconds:
            found.add(_node_id(case.get("classname", ""), case.get("name", "")))
    return sorted(found)


def _node_id(module: str, name: str) -> str:
    """`tests.tracing.test_costs` and a test's name, as pytest's path to it."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        path = Path(*parts[:length]).with_suffix(".py")
        if (ROOT / path).exists():
            return "::".join([path.as_posix(), *parts[length:], name])
    return f"{'/'.join(parts)}::{name}"


if __name__ == "__main__":
    typer.run(main)
