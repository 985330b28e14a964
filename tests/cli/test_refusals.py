"""Command lines that cannot be obeyed: an exit code, a line that says why, and nothing left behind."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import ranp as library

Ranp = Callable[..., Result]

SHAPE = "--input 1,1,8,8"
PRUNE = f"prune nets.py:build {SHAPE} --budget macs=60%"
RECIPE = Path(__file__).parents[2] / "recipes" / "small-decathlon.yaml"

# Command line: what its error says. Where a word comes in quotes, the shell would take it so.
REFUSED = {
    # The network.
    "check unet": "model: got 'unet'; expected a network; did you mean 'unet3d'",
    "profile unet": "model: got 'unet'; expected a network; did you mean 'unet3d'",
    f"check nets.py:nothing {SHAPE}": "model nets.py:nothing: got nothing named 'nothing'; expected a name in nets.py",
    f"check nets.py:biuld {SHAPE}": "did you mean 'build'",
    f"check nets.py: {SHAPE}": "model nets.py:: got nothing named ''",
    f"check :build {SHAPE}": "model :build: got ValueError: Empty module name; expected a module that can be imported",
    f"check other.py:build {SHAPE}": "model other.py:build: got no file other.py in",
    f"check no_module_so_named:f {SHAPE}": "got ModuleNotFoundError: No module named 'no_module_so_named'; expected",
    f"check syntax.py:build {SHAPE}": "got SyntaxError: invalid syntax (syntax.py, line 1); expected a module",
    f"check imports.py:build {SHAPE}": "No module named 'nothing_of_that_name' (imports.py, line 1); expected a module",
    f"check nets.py:number {SHAPE}": "model nets.py:number: got int; expected a torch.nn.Module",
    f"check nets.py:leaves {SHAPE}": "model nets.py:leaves: got SystemExit: 3 (nets.py, line 41); expected no error",
    f"check nets.py:fails_in_torch {SHAPE}": "got TypeError: ",
    f"check nets.py:needs {SHAPE}": "got no arguments (missing a required argument: 'in_channels'); expected "
    "arguments (in_channels, *, act='relu'); give arguments as --set in_channels=1",
    f"check nets.py:build {SHAPE} --set depth=3": "got arguments depth=3 (got an unexpected keyword argument 'depth')",
    f"check nets.py:build {SHAPE} --set width=7": "got ValueError: width must be even, not 7 (nets.py, line 13)",
    f"check nets.py:build {SHAPE} --set width": "--set: got 'width'; expected a name and a value; --set width=16",
    f"check nets.py:build {SHAPE} --set width=8 --set width=8": "--set: got width twice; expected every argument once",
    "check unet3d --set width=0": "model unet3d: got ValueError: UNet3D: width must be an integer of at least 1",
    # Its inputs.
    "check nets.py:build": "--input: got nothing; expected the shape of every input; --input 1,1,64,64,64",
    "check nets.py:build --input 1,a": "--input: got '1,a'; expected positive sizes with commas",
    "check nets.py:build --input 1,1,0,8": "--input: got '1,1,0,8'; expected positive sizes",
    "check nets.py:build --input 1,1,99999999,99999999": "expected sizes that memory can hold",
    "check nets.py:build --input 1,1,99999999999999999999": "expected sizes that memory can hold",
    "check nets.py:build --input 1,2,8,8": "forward of 0: fails on the example inputs with RuntimeError: a convolution",
    "profile nets.py:build --input 1,2,8,8": "forward of 0: fails on the example inputs with RuntimeError",
    f"profile nets.py:build {SHAPE} {SHAPE}": "takes 2 positional arguments but 3 were given",
    "profile torch.nn:LazyLinear --set out_features=3 --input 1,4": "whose parameters have no shape yet",
    "check torch.nn:Identity --input 1,4": "got no channel that may be removed",
    # The budget.
    f"check nets.py:build {SHAPE} --budget macs": "--budget: got 'macs'; expected a number; macs=0.05 or macs=5%",
    f"check nets.py:build {SHAPE} --budget mac=5%": "--budget: got 'mac=5%'; expected name=fraction; did you",
    f"check nets.py:build {SHAPE} --budget macs=0": "got macs=0.0; expected a fraction to keep in (0, 1]",
    f"check nets.py:build {SHAPE} --budget macs=nan": "got macs=nan; expected a fraction to keep in (0, 1]",
    f"check nets.py:build {SHAPE} --budget macs=5% --budget macs=6%": "--budget: got macs twice; expected every",
    f"check nets.py:build {SHAPE} --budget macs=0.01%": "got macs=0.0001; expected a feasible budget: macs >=",
    # The data.
    f"{PRUNE} --out new": "--data: got nothing; expected package.module:factory",
    f"{PRUNE} --out new --data words": "--data: got 'words'; expected package.module:factory",
    f"{PRUNE} --out new --data taken": "folders are read as recipes say: --data recipe.yaml --folder DIR",
    f"{PRUNE} --out new --data none.npz": "--data none.npz: got FileNotFoundError",
    f"{PRUNE} --out new --data damaged.npz": "--data damaged.npz: got BadZipFile",
    f"{PRUNE} --out new --data half.npz": "--data half.npz: got inputs; expected a file with tensors named inputs and",
    f"{PRUNE} --out new --data odd.npz": "--data odd.npz: got 5 inputs and 3 targets; expected",
    f"{PRUNE} --out new --data code.npz": "--data code.npz: got ValueError: Object arrays cannot be loaded",
    f"{PRUNE} --out new --data code.pt": "--data code.pt: got UnpicklingError",
    f"{PRUNE} --out new --data nets.py:number": "--data nets.py:number: got int; expected an iterable of (inputs, targ",
    f"{PRUNE} --out new --data nets.py:no_pairs": "expected a pair (inputs, targets)",
    "prune nets.py:build --budget macs=60% --out new --data nets.py:no_pairs": "expected batches: pairs (inputs, targ",
    f"{PRUNE} --out new --data nets.py:none": "batches: got none; expected at least one batch",
    "prune nets.py:build --budget macs=60% --out new --data nets.py:none": "--data nets.py:none: got no batches",
    f"{PRUNE} --out new --data nets.py:broken": "got OSError: no such disk (nets.py, line 62); expected no error",
    f"{PRUNE} --out new --data nets.py:loss": "--data nets.py:loss: got no arguments (missing a required argument: 'o",
    f"{PRUNE} --out new --data nets.py:batches --folder taken": "--folder: got --data nets.py:batches beside it; expe",
    f"{PRUNE} --out new --data nets.py:batches --batch 2": "--batch: got --data nets.py:batches, which makes batches",
    f"{PRUNE} --out new --data noise --batch 2": "--batch: got --data noise, which makes batches itself; expected a f",
    f"{PRUNE} --out new --data noise --folder taken": "--folder: got --data noise beside it; expected a recipe",
    f"{PRUNE} --out new --criterion random --folder taken": "--folder: got",
    f"{PRUNE} --out new --data {RECIPE}": "--folder: got nothing; expected the folder of the data that",
    f"{PRUNE} --out new --data {RECIPE} --folder none": "none/dataset.json: got no file",
    f"{PRUNE} --out new --data words.yaml --folder taken": "words.yaml: got str; expected a recipe",
    f"prune nets.py:TwoHeads {SHAPE} --budget macs=60% --out new --data noise": "got a network with 2 outputs; expec",
    f"prune nets.py:one_class {SHAPE} --budget macs=60% --out new --data noise": "got an output of shape (1, 1, 8, 8",
    "prune nets.py:build --budget macs=60% --out new --data noise": "--input: got nothing; expected the shape of",
    f"{PRUNE} --out new --data noise --loss nets.py:loss": "--data noise: got --loss nets.py:loss; expected --loss of",
    # The loss, and how to prune.
    f"{PRUNE} --out new --data nets.py:batches --loss cross": "--loss: got 'cross'; expected a loss; did you mean",
    f"{PRUNE} --out new --data nets.py:batches --loss nets.py:vector": "got a tensor of shape (2, 8, 8); expected",
    f"{PRUNE} --out new --data nets.py:batches --loss nets.py:failing": "batch 0: got AttributeError: 'Tensor' object",
    f"{PRUNE} --out new --data nets.py:batches --loss nets.py:nothing": "--loss nets.py:nothing: got nothing named",
    f"{PRUNE} --out new --data nets.py:batches --until 2": "until: got 2.0; expected a rank correlation in (0, 1]",
    f"{PRUNE} --out new --data nets.py:batches --device quantum": "--device: got 'quantum'; expected 'cpu', or 'cuda'",
    # Folders.
    f"{PRUNE} --out taken --data noise": "taken: got a path that exists; expected a new folder",
    f"{PRUNE} --out nets.py/new --data noise": "nets.py/new: got [Errno",
    f"apply none nets.py:build {SHAPE} --out new": "none/artifact.json: got no such file; expected a folder that ranp",
    f"apply words.json nets.py:build {SHAPE} --out new": "plan: got another kind of file; expected JSON with",
    f"apply good.npz nets.py:build {SHAPE} --out new": "good.npz: got 'utf-8' codec can't decode",
    f"apply pruned nets.py:TwoHeads {SHAPE} --out new": "apply: got a model without '0.bias'; expected the model",
    f"apply pruned nets.py:build {SHAPE} --out new --set width=6": "expected size 8 along dimension 0; the plan",
    f"apply pruned nets.py:build {SHAPE} --out taken": "taken: got a path that exists",
    "apply pruned nets.py:build --out new": "--input: got nothing",
    "demo --out taken": "taken: got a path that exists",
    "demo --out new --device quantum": "--device: got 'quantum'",
    # Recipes and runs.
    "train none.yaml --data taken --out new": "none.yaml: got [Errno 2] No such file or directory",
    "train words.yaml --data taken --out new": "words.yaml: got str; expected a recipe",
    f"train {RECIPE} --data none --out new --set training.stepps=1": "stepps: got an unknown field; expected another",
    f"train {RECIPE} --data none --out taken": "taken: got a path that exists; expected a new folder; add --resume",
    "evaluate taken --data taken": "taken/run.json: got no file; expected a file that ranp train wrote",
    "compare taken none": "taken/result.json: got no file; expected a file that ranp train wrote",
    "reproduce resources --networks shapenett": "did you mean 'shapenet'",
    "data check none.yaml --data taken": "none.yaml: got [Errno 2] No such file",
    f"data generate {RECIPE} --out taken": "taken: got a path that exists",
}

# Command line: what typer says of it.
MISUSED = {
    "chek unet3d": "No such command 'chek'",
    "check": "Missing argument",
    "check unet3d --nothing": "No such option: --nothing",
    "check unet3d --seed -1": "Invalid value for '--seed'",
    "check unet3d --seed one": "Invalid value for '--seed'",
    "prune unet3d --out new": "Missing option '--budget'",
    "prune unet3d --budget macs=5%": "Missing option '--out'",
    f"{PRUNE} --out new --criterion rapn-f": "Invalid value for '--criterion'",
    f"{PRUNE} --out new --importance neurons": "Invalid value for '--importance'",
    f"{PRUNE} --out new --weights xavier": "Invalid value for '--weights'",
    f"{PRUNE} --out new --min-width 0": "Invalid value for '--min-width'",
    "apply pruned": "Missing argument",
    "train": "Missing argument",
    f"train {RECIPE}": "Missing option '--data'",
    "evaluate taken": "Missing option '--data'",
    "compare": "Missing argument",
    "reproduce tables": "No such command 'tables'",
    "data generate none.yaml": "Missing option '--out'",
    "data generate none.yaml --out new --count 0": "Invalid value for '--count'",
}


@pytest.fixture(scope="session")
def pruned(made: Path) -> Path:
    """What `ranp prune` wrote, in the user's folder."""
    command = [sys.executable, "-m", "ranp", *shlex.split(f"{PRUNE} --criterion uniform --out pruned")]
    subprocess.run(command, cwd=made, check=True, capture_output=True)
    return made / "pruned"


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_refused_is_explained(line: str, ranp: Ranp, user: Path, pruned: Path) -> None:
    before = files(user)
    found = ranp(*shlex.split(line))
    told = [text for text in found.stderr.splitlines() if text != "nets is imported"]
    assert found.exit_code == 1
    assert (found.stdout, "Traceback" in found.stderr) == ("", False)
    assert len(told) == 1, told
    assert told[0].startswith("error: ")
    assert "; " in told[0]  # what is wrong; what is expected, or what to do about it
    assert REFUSED[line] in told[0]
    assert files(user) == before


@pytest.mark.parametrize("line", MISUSED)
def test_what_is_no_command_line_is_explained(
    line: str, ranp: Ranp, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    before = files(user)
    found = ranp(*shlex.split(line))
    assert (found.exit_code, found.stdout) == (2, "")
    assert MISUSED[line] in found.stderr
    assert "Usage: ranp" in found.stderr.replace("root", "ranp")
    assert files(user) == before


def test_a_damaged_artifact_is_refused(ranp: Ranp, user: Path, pruned: Path, tmp_path: Path) -> None:
    for path in pruned.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    found = ranp("apply", tmp_path, "nets.py:build", *SHAPE.split(), "--out", "new")
    assert found.exit_code == 1
    assert "weights.safetensors: got contents that do not match their checksum" in found.stderr


def test_interrupted_by_a_signal_nothing_is_left(user: Path) -> None:
    before = files(user)
    command = [sys.executable, "-m", "ranp", *shlex.split(f"{PRUNE} --data nets.py:interrupted --out new")]
    done = subprocess.run(command, cwd=user, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr
    assert files(user) == before


def test_debug_shows_the_stack_trace(user: Path) -> None:
    words = ["--debug", "check", "nets.py:build", *SHAPE.split(), "--set", "width=7"]
    command = [sys.executable, "-m", "ranp", *words]
    done = subprocess.run(command, cwd=user, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert 'nets.py", line 13, in build' in done.stderr
    assert "InputError: model nets.py:build: got ValueError: width must be even" in done.stderr


def test_a_fault_of_ours_ends_in_a_line_too(ranp: Ranp, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object, **__: object) -> None:
        raise IndexError("no [such]\n  thing")

    monkeypatch.setattr("ranp.profile.profile", fault)
    found = ranp("profile", "nets.py:build", *SHAPE.split())
    assert found.exit_code == 1
    line = found.stderr.splitlines()[-1]
    assert line.startswith("error: IndexError: no [such] thing; that is a fault of ranp's: please report it")
    assert "ranp --debug" in line
    assert ranp("--debug", "profile", "nets.py:build", *SHAPE.split()).exception.args == ("no [such]\n  thing",)


def test_text_in_brackets_is_told_as_it_is(ranp: Ranp) -> None:
    """Rich would take it for markup."""
    found = ranp("check", "nets.py:build", *SHAPE.split(), "--set", "kind=[bold]")
    assert "arguments kind='[bold]' (got an unexpected" in found.stderr


@pytest.mark.parametrize("as_json", ["", "--json"])
def test_a_closed_pipe_is_no_error(as_json: str, user: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ranp", *shlex.split(f"profile nets.py:build {SHAPE} {as_json}")]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        command, cwd=user, env=buffered, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "nets is imported\n")


def test_a_failed_proof_is_told_and_ends_in_1(ranp: Ranp, monkeypatch: pytest.MonkeyPatch) -> None:
    def disprove(*_: object) -> None:
        raise library.errors.VerificationError("verify", got="outputs that differ", expected="equal ones")

    monkeypatch.setattr(library, "verify", disprove)
    found = ranp("check", "nets.py:build", *SHAPE.split(), "--json")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["verified"] == "failed"
    assert json.loads(found.stdout)["error"] == "verify: got outputs that differ; expected equal ones"
    assert "failed: verify: got outputs that differ" in ranp("check", "nets.py:build", *SHAPE.split()).stdout
