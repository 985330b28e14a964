"""Command lines that fail: the exit code, one line that says why, and nothing left behind."""

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

# Command line -> part of its error.
REFUSED = {
    # The network.
    "check unet": "model: no built-in network is named 'unet'; did you mean 'unet3d'",
    "profile unet": "model: no built-in network is named 'unet'; did you mean 'unet3d'",
    f"check nets.py:nothing {SHAPE}": "model nets.py:nothing: nets.py has nothing named 'nothing'",
    f"check nets.py:biuld {SHAPE}": "did you mean 'build'",
    f"check nets.py: {SHAPE}": "model nets.py:: nets.py has nothing named ''",
    f"check :build {SHAPE}": "model :build: cannot be imported: ValueError: Empty module name",
    f"check other.py:build {SHAPE}": "model other.py:build: there is no file other.py in",
    f"check no_module_so_named:f {SHAPE}": "cannot be imported: ModuleNotFoundError: No module named 'no_module_so_nam",
    f"check syntax.py:build {SHAPE}": "cannot be imported: SyntaxError: invalid syntax (syntax.py, line 1); names have",
    f"check imports.py:build {SHAPE}": "No module named 'nothing_of_that_name' (imports.py, line 1); names have the fo",
    f"check nets.py:number {SHAPE}": "nets.py:number: returned an object of type int, not a torch.nn.Module",
    f"check nets.py:leaves {SHAPE}": "model nets.py:leaves: failed: SystemExit: 3 (nets.py, line 41)",
    f"check nets.py:fails_in_torch {SHAPE}": "failed: TypeError: ",
    f"check nets.py:needs {SHAPE}": "called with no arguments (missing a required argument: 'in_channels'); expected "
    "arguments (in_channels, *, act='relu'); give arguments as --set in_channels=1",
    f"check nets.py:build {SHAPE} --set depth=3": "cannot be called with depth=3 (got an unexpected keyword argument '",
    f"check nets.py:build {SHAPE} --set width=7": "failed: ValueError: width must be even, not 7 (nets.py, line 13)",
    f"check nets.py:build {SHAPE} --set width": "--set: 'width' is not of the form name=value; for example --set width",
    f"check nets.py:build {SHAPE} --set width=8 --set width=8": "--set: width is given twice",
    "check unet3d --set width=0": "model unet3d: failed: ValueError: UNet3D: width must be an integer of at least 1",
    # Its inputs.
    "check nets.py:build": "--input: the shape of every input is needed; for example --input 1,1,64,64,64",
    "check nets.py:build --input 1,a": "--input: '1,a' is not a shape; give positive sizes separated by commas",
    "check nets.py:build --input 1,1,0,8": "--input: '1,1,0,8' is not a shape; give positive sizes",
    "check nets.py:build --input 1,1,99999999,99999999": "are too large for the memory",
    "check nets.py:build --input 1,1,99999999999999999999": "are too large for the memory",
    "check nets.py:build --input 1,2,8,8": "forward of 0: fails on the example inputs with RuntimeError: a convol",
    "profile nets.py:build --input 1,2,8,8": "forward of 0: fails on the example inputs with RuntimeErr",
    f"profile nets.py:build {SHAPE} {SHAPE}": "takes 2 positional arguments but 3 were given",
    "profile torch.nn:LazyLinear --set out_features=3 --input 1,4": "whose parameters have no shape yet",
    "check torch.nn:Identity --input 1,4": "it has no channel that can be removed",
    # The budget.
    f"check nets.py:build {SHAPE} --budget macs": "got macs=''; expected a fraction to keep in (0, 1], for example",
    f"check nets.py:build {SHAPE} --budget mac=5%": "--budget: 'mac=5%' does not limit a known resource; did you mean",
    f"check nets.py:build {SHAPE} --budget macs=0": "got macs='0'; expected a fraction to keep in (0, 1]",
    f"check nets.py:build {SHAPE} --budget macs=nan": "got macs='nan'; expected a fraction to keep in (0, 1]",
    f"check nets.py:build {SHAPE} --budget macs=5% --budget macs=6%": "--budget: macs is given twice",
    f"check nets.py:build {SHAPE} --budget macs=0.01%": "got macs=0.0001; expected a feasible budget: macs >=",
    # What fits.
    f"fit nets.py:build {SHAPE} --memory 11GHz": "memory: got '11GHz'; expected an amount in B, KiB, MiB, GiB",
    f"fit nets.py:build {SHAPE} --memory 99B": "fit: got memory of 0.000 MiB; expected at least 0.0",
    f"fit nets.py:build {SHAPE} --device quantum --memory 1GB": "device: 'quantum' is not a device of torch; for exam",
    f"fit nets.py:build {SHAPE} --loss cross": "--loss: no loss is named 'cross'; did you mean",
    f"fit nets.py:build {SHAPE} --macs 0": "got macs='0'; expected a fraction to keep in (0, 1]",
    "fit nets.py:build": "--input: the shape of every input is needed; for example --input 1,1,64,64,64",
    "nnunet fit words.yaml": "words.yaml: cannot be read (",
    "nnunet fit words.json --dataset words.json": "has not the fields of nnU-Net 2.5 or newer (KeyError: 'configurati",
    # The data.
    f"{PRUNE} --out new": "--data: the criterion ranp-f needs batches; expected package.module:factory",
    f"{PRUNE} --out new --data words": "--data: got 'words'; expected package.module:factory",
    f"{PRUNE} --out new --data taken": "for a folder, give a recipe that reads it: --data recipe.yaml --folder DIR",
    f"{PRUNE} --out new --data none.npz": "--data none.npz: cannot be read: FileNotFoundError",
    f"{PRUNE} --out new --data damaged.npz": "--data damaged.npz: cannot be read: BadZipFile",
    f"{PRUNE} --out new --data half.npz": "--data half.npz: got inputs; expected tensors named inputs and targets",
    f"{PRUNE} --out new --data odd.npz": "--data odd.npz: got 5 inputs and 3 targets; expected",
    f"{PRUNE} --out new --data code.npz": "--data code.npz: cannot be read: ValueError: Object arrays cannot be loaded",
    f"{PRUNE} --out new --data code.pt": "--data code.pt: cannot be read: UnpicklingError",
    f"{PRUNE} --out new --data nets.py:number": "--data nets.py:number: returned an object of type int, not an iterabl",
    f"{PRUNE} --out new --data nets.py:no_pairs": "expected a pair (inputs, targets)",
    "prune nets.py:build --budget macs=60% --out new --data nets.py:no_pairs": "got a batch of type Tensor; expected p",
    f"{PRUNE} --out new --data nets.py:none": "batches: got none; expected at least one batch",
    "prune nets.py:build --budget macs=60% --out new --data nets.py:none": "--data nets.py:none: got no batches",
    f"{PRUNE} --out new --data nets.py:broken": "failed: OSError: no such disk (nets.py, line 62)",
    f"{PRUNE} --out new --data nets.py:loss": "nets.py:loss: cannot be called with no arguments (missing a required ar",
    f"{PRUNE} --out new --data nets.py:batches --folder taken": "--folder: applies only if --data is a recipe",
    f"{PRUNE} --out new --data nets.py:batches --batch 2": "--batch: applies only if --data is a file or a recipe, not",
    f"{PRUNE} --out new --data noise --batch 2": "--batch: applies only if --data is a file or a recipe, not to --data",
    f"{PRUNE} --out new --data noise --folder taken": "--folder: applies only if --data is a recipe",
    f"{PRUNE} --out new --criterion random --folder taken": "--folder: applies only if",
    f"{PRUNE} --out new --data {RECIPE}": "needs the folder of its data set",
    f"{PRUNE} --out new --data {RECIPE} --folder none": "none/dataset.json: the file is missing",
    f"{PRUNE} --out new --data words.yaml --folder taken": "words.yaml: got str; expected a recipe",
    f"prune nets.py:TwoHeads {SHAPE} --budget macs=60% --out new --data noise": "works for networks with one output, a",
    f"prune nets.py:one_class {SHAPE} --budget macs=60% --out new --data noise": "got an output of shape (1, 1, 8, 8",
    "prune nets.py:build --budget macs=60% --out new --data noise": "--input: the shape of every input is needed",
    f"{PRUNE} --out new --data noise --loss nets.py:loss": "--data noise: the targets of --loss nets.py:loss are unkno",
    # The loss, and how to prune.
    f"{PRUNE} --out new --data nets.py:batches --loss cross": "--loss: no loss is named 'cross'; did you mean",
    f"{PRUNE} --out new --data nets.py:batches --loss nets.py:vector": "got a tensor of shape (2, 8, 8); expected",
    f"{PRUNE} --out new --data nets.py:batches --loss nets.py:failing": "the model or the loss raised AttributeError",
    f"{PRUNE} --out new --data nets.py:batches --loss nets.py:nothing": "--loss nets.py:nothing: nets.py has nothing n",
    f"{PRUNE} --out new --data nets.py:batches --stop-at-correlation 2": "expected a rank correlation in (0, 1]",
    f"{PRUNE} --out new --data nets.py:batches --device quantum": "--device: there is no device 'quantum'; use cpu, or",
    # Folders.
    f"{PRUNE} --out taken --data noise": "taken: exists already; choose another name",
    f"{PRUNE} --out nets.py/new --data noise": "nets.py/new: cannot be written ([",
    f"apply none nets.py:build {SHAPE} --out new": "none/artifact.json: there is no such file; expected a folder with",
    f"apply words.json nets.py:build {SHAPE} --out new": "words.json: is not a ranp-plan file; expected a JSON object",
    f"apply good.npz nets.py:build {SHAPE} --out new": "good.npz: is not valid JSON ('utf-8' codec can't decode",
    f"apply pruned nets.py:TwoHeads {SHAPE} --out new": "apply: got a model without '0.bias'; expected the model",
    f"apply pruned nets.py:build {SHAPE} --out new --set width=6": "expected size 8 along dimension 0; the plan",
    f"apply pruned nets.py:build {SHAPE} --out taken": "taken: exists already; choose another name",
    "apply pruned nets.py:build --out new": "--input: the shape of every input is needed",
    "demo --out taken": "taken: exists already; choose another name",
    "demo --out new --device quantum": "--device: there is no device 'quantum'",
    # Recipes and runs.
    "train none.yaml --data taken --out new": "none.yaml: cannot be read ([Errno 2] No such file",
    "train words.yaml --data taken --out new": "words.yaml: got str; expected a recipe",
    f"train {RECIPE} --data none --out new --set training.stepps=1": "stepps: unknown field; did you mean 'steps'",
    f"train {RECIPE} --data none --out taken": "taken: the path exists already; add --resume",
    "evaluate taken --data taken": "taken/run.json: there is no such file",
    "compare taken none": "taken/result.json: there is no such file",
    "reproduce resources --networks shapenett": "did you mean 'shapenet'",
    "data check none.yaml --data taken": "none.yaml: cannot be read ([Errno 2] No such file",
    f"data generate {RECIPE} --out taken": "taken: exists already; choose another name",
}

# Command line -> part of the error of typer.
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
    """A network pruned by `ranp prune`, in the user's folder."""
    command = [sys.executable, "-m", "ranp", *shlex.split(f"{PRUNE} --criterion uniform --out pruned")]
    subprocess.run(command, cwd=made, check=True, capture_output=True)
    return made / "pruned"


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.mark.parametrize("line", REFUSED)
def test_refusals_are_explained(line: str, ranp: Ranp, user: Path, pruned: Path) -> None:
    before = files(user)
    found = ranp(*shlex.split(line))
    errors = [text for text in found.stderr.splitlines() if text != "nets is imported"]
    assert found.exit_code == 1
    assert (found.stdout, "Traceback" in found.stderr) == ("", False)
    assert len(errors) == 1, errors
    assert errors[0].startswith("error: ")
    place, _, sentence = errors[0].removeprefix("error: ").partition(": ")
    assert place
    assert ";" not in place
    assert all(clause.strip() for clause in sentence.split(";"))
    assert len(sentence.split()) > 2
    assert REFUSED[line] in errors[0]
    assert "bug in ranp" not in errors[0]
    assert files(user) == before


@pytest.mark.parametrize("line", MISUSED)
def test_invalid_command_lines_are_explained(
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
    assert "weights.safetensors: its content does not match its checksum" in found.stderr


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
    assert "InputError: model nets.py:build: failed: ValueError: width must be even" in done.stderr


def test_bugs_of_ranp_are_one_line_of_error(ranp: Ranp, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object, **__: object) -> None:
        raise IndexError("no [such]\n  thing")

    monkeypatch.setattr("ranp.profile.profile", fault)
    found = ranp("profile", "nets.py:build", *SHAPE.split())
    assert found.exit_code == 1
    line = found.stderr.splitlines()[-1]
    assert line.startswith("error: IndexError: no [such] thing; this is a bug in ranp: please report it")
    assert "ranp --debug" in line
    assert ranp("--debug", "profile", "nets.py:build", *SHAPE.split()).exception.args == ("no [such]\n  thing",)


def test_text_in_brackets_is_printed_literally(ranp: Ranp) -> None:
    """rich interprets it as markup."""
    found = ranp("check", "nets.py:build", *SHAPE.split(), "--set", "kind=[bold]")
    assert "cannot be called with kind='[bold]' (got an unexpected" in found.stderr


@pytest.mark.parametrize("as_json", ["", "--json"])
def test_a_closed_pipe_is_not_an_error(as_json: str, user: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ranp", *shlex.split(f"profile nets.py:build {SHAPE} {as_json}")]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        command, cwd=user, env=buffered, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "nets is imported\n")


def test_a_failed_verification_is_shown_and_exits_with_1(ranp: Ranp, monkeypatch: pytest.MonkeyPatch) -> None:
    def disprove(*_: object) -> None:
        raise library.errors.VerificationError("verify", got="outputs that differ", expected="equal ones")

    monkeypatch.setattr(library, "verify", disprove)
    found = ranp("check", "nets.py:build", *SHAPE.split(), "--json")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["verified"] == "failed"
    assert json.loads(found.stdout)["error"] == "verify: got outputs that differ; expected equal ones"
    assert "failed: verify: got outputs that differ" in ranp("check", "nets.py:build", *SHAPE.split()).stdout
