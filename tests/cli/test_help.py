"""Help, completion and terminals."""

import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from helpers.command_lines import parse
from ranp import __version__
from ranp.cli import app
from ranp.experiments.reproduce.networks import NETWORKS
from ranp.experiments.studies import STUDIES

ROOT = Path(__file__).parents[2]


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands and groups, with the words of their command lines."""
    yield path, command
    for name in command.list_commands(None) if hasattr(command, "list_commands") else ():
        yield from commands(command.get_command(None, name), (*path, name))


ALL = dict(commands(get_command(app)))
EXAMPLES = {path: command.epilog.partition("Example: ranp ")[2] for path, command in ALL.items()}


def ranp(words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "ranp", *shlex.split(words)]
    variables = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from ranp.cli import main\n"
        "sys.argv = ['ranp', *sys.argv[1:]]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    pass\n"
        "print('IMPORTED', *{name.partition('.')[0] for name in sys.modules}, *sys.modules)\n"
    )
    heavy = {"torch", "safetensors", "yaml", "monai", "lightning", "matplotlib"}
    lines = (
        "--help",
        "--version",
        "check --help",
        "train --help",
        "prune --nothing",
        "reproduce --help",
        "prune --help",
    )
    for line in lines:
        done = subprocess.run([sys.executable, "-c", code, *line.split()], capture_output=True, text=True, check=False)
        imported = set(done.stdout.partition("IMPORTED")[2].split())
        assert "typer" in imported
        # The help of prune lists the criteria, which need numpy.
        assert not imported & (heavy if line == "prune --help" else heavy | {"numpy"}), line
        assert ("ranp.experiments" in done.stdout) == (line == "reproduce --help"), line


def test_all_commands_are_there() -> None:
    expected = {
        "demo",
        "check",
        "profile",
        "prune",
        "fit",
        "apply",
        "bench",
        "train",
        "evaluate",
        "compare",
        "report",
        "reproduce",
        "data",
        "nnunet",
    }
    assert {path[0] for path in ALL if path} == expected
    assert {path for path in ALL if len(path) > 1} == {
        ("reproduce", "resources"),
        *(("reproduce", name) for name in STUDIES),
        ("data", "check"),
        ("data", "generate"),
        ("nnunet", "install"),
        ("nnunet", "path"),
        ("nnunet", "fit"),
    }


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_ends_with_an_example_of_the_command(path: tuple[str, ...]) -> None:
    example = EXAMPLES[path]
    found = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"})
    assert found.exit_code == 0
    assert found.output.rstrip().endswith(f"Example: ranp {example}")
    assert shlex.split(example)[: len(path)] == list(path)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_examples_are_command_lines(path: tuple[str, ...]) -> None:
    """What cannot be run in small is parsed, at least."""
    parse(EXAMPLES[path])


def test_the_examples_run_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the documentation; the training is cut short, and the full network is trained, too."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    train = f"{EXAMPLES['train',]} --set training.steps=2"
    lines = [
        EXAMPLES[()],
        EXAMPLES["profile",],
        EXAMPLES["prune",].replace("32,32,32", "16,16,16"),
        EXAMPLES["apply",].replace("32,32,32", "16,16,16"),
        EXAMPLES["bench",].replace("32,32,32", "16,16,16") + " --seconds 0",
        EXAMPLES["data", "generate"],
        EXAMPLES["data", "check"],
        train,
        train.replace("runs/pruned", "runs/full") + " --set pruning.method=none",
        EXAMPLES["evaluate",],
        EXAMPLES["compare",],
    ]
    for line in lines:
        found = CliRunner().invoke(app, shlex.split(line))
        assert found.exit_code == 0, f"{line}\n{found.output}"
    assert (tmp_path / "pruned" / "plan.json").read_bytes() == (tmp_path / "other" / "plan.json").read_bytes()


def test_exit_codes_are_documented() -> None:
    shown = " ".join(CliRunner().invoke(app, ["--help"]).output.split())
    page = (ROOT / "docs" / "command-line.md").read_text()
    for code, meaning in (
        (0, "success"),
        (1, "refused or failed"),
        (2, "invalid command line"),
        (130, "interrupted"),
    ):
        assert f"{code} {meaning}" in shown
        assert f"| {code} | {meaning}" in page


def test_old_options_work_with_a_warning(tmp_path: Path) -> None:
    line = (
        f"prune unet3d --set width=4 --set levels=2 --input 1,1,8,8,8 --budget macs=50% --data noise --json "
        f"--out {tmp_path / 'out'}"
    )
    new = CliRunner().invoke(app, shlex.split(f"{line} --resource-weight 7 --stop-at-correlation 0.1"))
    (tmp_path / "out").rename(tmp_path / "new")
    old = CliRunner().invoke(app, shlex.split(f"{line} --lam=7 --until 0.1"))
    assert (old.exit_code, new.exit_code, new.stderr) == (0, 0, "")
    assert old.stderr.splitlines() == [
        "warning: --lam is deprecated; use --resource-weight",
        "warning: --until is deprecated; use --stop-at-correlation",
    ]
    assert (tmp_path / "out" / "plan.json").read_bytes() == (tmp_path / "new" / "plan.json").read_bytes()
    assert "--lam" not in CliRunner().invoke(app, ["prune", "--help"]).output
    assert CliRunner().invoke(app, ["compare", "run", "--lam", "7"]).exit_code == 2  # It never had that option.


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ranp pr", {"profile", "prune"}),
        ("ranp check unet3", {"unet3d", "unet3d-23"}),
        ("ranp profile src/ranp/models/u", {"src/ranp/models/unet3d.py:"}),
        ("ranp prune unet3d --criterion ranp", {"ranp-f", "ranp-m", "ranp-t"}),
        ("ranp prune unet3d --loss c", {"cross-entropy"}),
        ("ranp reproduce hippo", {"hippocampus"}),
        ("ranp reproduce resources --networks s", {name for name in NETWORKS if name.startswith("s")}),
        ("ranp apply plan unet3d --weights g", {"glorot"}),
        ("ranp check unet3d --budget m", {"macs="}),
        (
            "ranp train recipes/small-",
            {path.relative_to(ROOT).as_posix() for path in ROOT.glob("recipes/small-*.yaml")},
        ),
        ("ranp data check rec", {"recipes/"}),
    ],
)
def test_completion(line: str, expected: set[str]) -> None:
    place = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    done = ranp("", _RANP_COMPLETE="complete_bash", **place)
    assert set(done.stdout.split()) == expected


def test_recipes_are_completed_from_nothing() -> None:
    done = ranp("", _RANP_COMPLETE="complete_bash", COMP_WORDS="ranp train ", COMP_CWORD="2")
    assert {"recipes/", "recipes/small-decathlon.yaml"} <= set(done.stdout.split())


def test_version() -> None:
    assert ranp("--version").stdout == f"{__version__}\n"


def test_the_installed_command() -> None:
    script = Path(sys.executable).with_name("ranp")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{__version__}\n"


def in_terminal(words: str, **environment: str) -> str:
    """The output of a command whose stdout and stderr are a terminal."""
    main, other = pty.openpty()
    command = [sys.executable, "-m", "ranp", *shlex.split(words)]
    variables = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", **environment}
    with subprocess.Popen(command, stdout=other, stderr=other, env=variables, cwd=ROOT) as process:
        os.close(other)
        found = b""
        try:
            while part := os.read(main, 4096):
                found += part
        except OSError:  # On Linux, reading from a terminal without writers fails.
            pass
        process.wait()
    os.close(main)
    return found.decode()


COLOR = re.compile(r"\x1b\[[0-9;]*3[0-9]")


def test_bars_and_colors_are_for_terminals() -> None:
    line = "profile unet3d --input 1,1,16,16,16"
    assert "█" in in_terminal(line)
    piped = ranp(line, COLUMNS="20")
    assert "█" not in piped.stdout
    assert "\x1b" not in piped.stdout
    assert piped.stderr == ""
    # Without a terminal, the table is not cut to its width.
    assert "encoder.0.conv1" in piped.stdout


def test_errors_have_colors_on_terminals_except_with_no_color() -> None:
    assert COLOR.search(in_terminal("check unet"))
    assert not COLOR.search(in_terminal("check unet", NO_COLOR="1"))
