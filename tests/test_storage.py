"""Artifacts: what is saved comes back bit for bit, or is refused; nothing is half-written and nothing is executed."""

import json
import os
import pickle
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import ranp
from helpers.networks import CASES
from helpers.oracles import random_plan, run
from ranp import storage
from ranp.errors import ArtifactError, PlanError, RanpError
from ranp.files import new_folder
from ranp.plan import Plan

FILES = ("artifact.json", "plan.json", "weights.safetensors")


def pruned(name: str = "plain") -> tuple[nn.Module, Plan, nn.Module]:
    """A full model, a plan, and the pruned model after something like training."""
    case = CASES[name]
    model = case.build()
    plan = random_plan(ranp.trace(model, case.inputs()), 1, 0.4)
    small = ranp.apply(model, plan)
    with torch.no_grad():
        for tensor in (*small.parameters(), *small.buffers()):
            tensor.add_(torch.rand(tensor.shape).to(tensor.dtype) + 1)
    return model, plan, small


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    _, plan, small = pruned()
    return ranp.save(small, plan, tmp_path_factory.mktemp("artifact") / "it")


@pytest.fixture
def copied(artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(artifact, tmp_path / "copy"))


def refused(folder: Path, kind: type[Exception] = ArtifactError) -> str:
    """The message with which loading a folder is refused; the model stays as it was."""
    model = CASES["plain"].build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(kind) as caught:
        ranp.load(folder, model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    message = str(caught.value)
    # The file and what is wrong with it; or what of the plan does not fit the model.
    assert re.match(rf"({re.escape(str(folder))}.*: \w+ .{{15}}|apply: .*; expected )", message), message
    return message


# -- there and back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        *("plain", "instance_norm_with_statistics", "module_under_two_names", "shared_layer", "transposed"),
        "positions_in_an_attribute",
    ],
)
def test_outputs_come_back_bit_for_bit(name: str, training: bool, tmp_path: Path) -> None:
    _, plan, small = pruned(name)
    folder = ranp.save(small, plan, tmp_path / "new" / "it")
    assert folder == tmp_path / "new" / "it"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    again = ranp.load(folder, CASES[name].build().train(training))
    assert all(module.training is training for module in again.modules())
    found, expected = again.state_dict(), small.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    inputs = CASES[name].inputs()
    for a, b in zip(run(again.eval(), inputs), run(small.eval(), inputs), strict=True):
        assert torch.equal(a, b)
    assert storage.load_plan(folder) == plan


def test_aliases_are_kept(tmp_path: Path) -> None:
    _, plan, small = pruned("module_under_two_names")
    assert small.blocks[0] is small.again
    ranp.save(small, plan, tmp_path / "it")
    again = ranp.load(tmp_path / "it", CASES["module_under_two_names"].build())
    assert again.blocks[0] is again.again
    stored = safetensors.torch.load_file(tmp_path / "it" / "weights.safetensors")
    assert set(stored) == {name for name, _ in (*small.named_parameters(), *small.named_buffers())}


def test_half_precision_and_integers_come_back(tmp_path: Path) -> None:
    model, plan, _ = pruned()
    small = ranp.apply(model, plan).half()
    ranp.save(small, plan, tmp_path / "it")
    again = ranp.load(tmp_path / "it", CASES["plain"].build().half())
    assert {name: tensor.dtype for name, tensor in again.state_dict().items()} == {
        name: tensor.dtype for name, tensor in small.state_dict().items()
    }
    assert again.norm.num_batches_tracked.dtype == torch.int64
    with pytest.raises(ArtifactError, match=r"got torch.float16.*expected torch.float32.*build the model as"):
        ranp.load(tmp_path / "it", CASES["plain"].build())


def test_loading_draws_no_random_numbers_and_leaves_the_model(artifact: Path) -> None:
    model = CASES["plain"].build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    ranp.load(artifact, model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# -- writing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", ["folder", "file", "link", "dangling link"])
def test_what_exists_is_never_overwritten(there: str, tmp_path: Path) -> None:
    _, plan, small = pruned()
    target = tmp_path / "it"
    if there == "folder":
        target.mkdir()
    elif there == "file":
        target.write_text("precious")
    else:
        target.symlink_to(tmp_path if there == "link" else tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match=r"it: exists already; choose another name"):
        ranp.save(small, plan, target)
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError("disk full"), safetensors.SafetensorError("disk full"), KeyboardInterrupt()])
def test_a_failure_while_writing_leaves_nothing(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plan, small = pruned()

    def fail(tensors: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(storage, "save_file", fail)
    expected = ArtifactError if isinstance(error, Exception) else type(error)
    with pytest.raises(expected):
        ranp.save(small, plan, tmp_path / "it")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    _, plan, small = pruned()
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"it: cannot be written \("):
        ranp.save(small, plan, tmp_path / "file" / "it")


def test_a_model_that_is_not_the_plans_is_refused(tmp_path: Path) -> None:
    model, plan, _ = pruned()
    with pytest.raises(PlanError):
        ranp.save(model, plan, tmp_path / "it")
    assert list(tmp_path.iterdir()) == []


# -- damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_missing_files(name: str, copied: Path) -> None:
    (copied / name).unlink()
    assert name in refused(copied)
    refused(copied / "nothing")


@pytest.mark.parametrize("name", FILES)
def test_truncated_files(name: str, copied: Path) -> None:
    whole = (copied / name).read_bytes()
    for length in (0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 2):
        (copied / name).write_bytes(whole[:length])
        refused(copied)
    (copied / name).write_bytes(whole + b"x")
    refused(copied)


@pytest.mark.parametrize("name", ["plan.json", "weights.safetensors"])
def test_flipped_bits(name: str, copied: Path) -> None:
    whole = (copied / name).read_bytes()
    random = np.random.default_rng(0)
    for place in random.integers(0, len(whole), 40).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(random.integers(8))
        (copied / name).write_bytes(damaged)
        assert "checksum" in refused(copied)


def test_flipped_bits_of_the_manifest(copied: Path) -> None:
    whole = (copied / "artifact.json").read_bytes()
    # Blanks between the entries mean nothing.
    for place in [index for index, byte in enumerate(whole) if byte not in b" \n"][::5]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        (copied / "artifact.json").write_bytes(damaged)
        refused(copied)


@pytest.mark.parametrize(
    "manifest",
    [
        "[]",
        "null",
        "{}",
        '{"sha256": 3, "format": "ranp-artifact", "version": 1}',
        '{"sha256": {"plan.json": null}, "format": "ranp-artifact", "version": 1}',
        "[" * 100_000,
        "1" * 5000,
    ],
    ids=range(7),
)
def test_manifests_that_are_none(manifest: str, copied: Path) -> None:
    (copied / "artifact.json").write_text(manifest)
    refused(copied)


@pytest.mark.parametrize(("field", "value"), [("format", "other"), ("version", 2), ("version", "1")])
def test_other_formats(field: str, value: Any, copied: Path) -> None:
    manifest = json.loads((copied / "artifact.json").read_text())
    (copied / "artifact.json").write_text(json.dumps({**manifest, field: value}))
    problem = {"format": "is not a ranp-artifact file", "version": "format version"}[field]
    assert problem in refused(copied)


# -- hostile artifacts, whose checksums are right ----------------------------------------------------------------


def seal(folder: Path) -> Path:
    """Make the checksums right, as anyone can."""
    manifest = json.loads((folder / "artifact.json").read_text())
    manifest["sha256"] = {name: storage._digest(folder / name) for name in manifest["sha256"]}
    (folder / "artifact.json").write_text(json.dumps(manifest))
    return folder


class Trap:
    """Unpickling this leaves a mark."""

    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["RANP_TRAP"],)


@pytest.mark.parametrize(
    "save", [lambda value, path: torch.save(value, path), lambda value, path: _pickle(value, path)]
)
def test_a_pickle_is_refused_and_not_run(
    save: Callable[..., None], copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANP_TRAP", str(tmp_path / "sprung"))
    save({"first.weight": Trap()}, copied / "weights.safetensors")
    assert "safetensors" in refused(seal(copied))
    assert not (tmp_path / "sprung").exists()


def _pickle(value: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(value))


def change_weights(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    tensors = safetensors.torch.load_file(folder / "weights.safetensors")
    change(tensors)
    safetensors.torch.save_file(tensors, folder / "weights.safetensors")
    return seal(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("norm.weight"), "it has no tensor 'norm.weight'"),
        (lambda t: t.update({"../evil": torch.zeros(1)}), "it has an unknown tensor '../evil'"),
        (lambda t: t.update({"head.bias": torch.zeros(3)}), r"expected torch.float32 \(2,\)"),
        (lambda t: t.update({"head.bias": torch.zeros(2).double()}), "got torch.float64"),
        (lambda t: t["head.bias"].fill_(torch.nan), r"weights.safetensors: head.bias: contains NaN; use weights from"),
    ],
)
def test_weights_that_do_not_fit(change: Callable[[Any], Any], message: str, copied: Path) -> None:
    with pytest.raises(ArtifactError, match=message):
        ranp.load(change_weights(copied, change), CASES["plain"].build())


def test_weights_that_contain_nan_are_not_saved(tmp_path: Path) -> None:
    _, plan, small = pruned()
    small.head.bias.data[0] = torch.nan
    with pytest.raises(ArtifactError, match=r"^save: head.bias: contains NaN"):
        ranp.save(small, plan, tmp_path / "it")
    assert not list(tmp_path.iterdir())


def test_infinite_weights_and_buffers_of_nan_come_back(tmp_path: Path) -> None:
    """Masks are often infinite, and a buffer may be NaN until it is first used."""
    model, plan, small = pruned()
    small.norm.running_mean.fill_(torch.nan)
    small.head.bias.data[0] = -torch.inf
    again = ranp.load(ranp.save(small, plan, tmp_path / "it"), model)
    assert again.norm.running_mean.isnan().all()
    assert again.head.bias[0] == -torch.inf


def test_a_hostile_safetensors_header(copied: Path) -> None:
    for header in (b"\xff" * 8, (1 << 40).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]"):
        (copied / "weights.safetensors").write_bytes(header)
        refused(seal(copied))


def test_a_hostile_plan(copied: Path) -> None:
    data = json.loads((copied / "plan.json").read_text())
    for change in (
        {"slices": [{**data["slices"][0], "dim": -1}]},
        {"settings": [{"module": "", "name": "run", "value": 1}]},
    ):
        (copied / "plan.json").write_text(json.dumps({**data, **change}))
        refused(seal(copied), PlanError)
    (copied / "plan.json").write_bytes(b"\xff\xfe\x00")
    refused(seal(copied), RanpError)


@pytest.mark.parametrize("name", FILES)
def test_links_and_pipes(name: str, copied: Path, tmp_path: Path) -> None:
    """A link to a regular file is one; what has no end is not read."""
    (copied / name).rename(tmp_path / name)
    (copied / name).symlink_to(tmp_path / name)
    ranp.load(copied, CASES["plain"].build())
    for make in (
        lambda path: path.symlink_to(path),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.mkdir(),
        os.mkfifo,
    ):
        path = copied / name
        path.rmdir() if path.is_dir() else path.unlink()
        make(path)
        with at_most(seconds=5):
            refused(copied)


class Stuck(BaseException):
    """Reading goes on without end."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise Stuck

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# -- other models ------------------------------------------------------------------------------------------------


def test_an_artifact_of_another_model(artifact: Path) -> None:
    for name in ("residual", "one_dimension"):
        with pytest.raises(PlanError, match=r"got a model with.*build the model as it was built"):
            ranp.load(artifact, CASES[name].build())


def test_an_artifact_can_be_read_by_others(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "file").touch(mode=0o600)
    assert (tmp_path / "out" / "inner" / "file").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755
