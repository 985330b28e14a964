"""Damaged artifacts: plans, weights, folders, surveys and state dicts are changed at random and read.

    python benchmarks/fuzz_artifacts.py              # 10,000 changes, which takes some minutes
    python benchmarks/fuzz_artifacts.py --only 4711  # one of them, with what it is and how it ends

Each change is drawn from the seed and its number alone. Reading must end in a `RanpError` of one line, or in a result
that can be used: a plan that comes back from its own text, and prunes, verifies or is refused; a survey that makes a
report. Nothing else may be raised, the caller's model may not change, and it may not take long. Results are written to
`benchmarks/results/fuzz_artifacts.json`.
"""

import json
import random
import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import track
from torch import nn

import ranp
from fuzz_mutations import mutated_json, mutated_state, mutated_weights
from ranp.errors import RanpError
from ranp.explorer import read_survey, write_report, write_survey
from ranp.integrations import attach_plan, attached_plan, resize_to_state_dict

RESULTS = Path(__file__).parent / "results" / "fuzz_artifacts.json"
LONGEST_SECONDS = 10.0
LONGEST_MESSAGE = 500
INPUTS = torch.zeros(2, 3, 8, 8)


def build() -> nn.Module:
    """A network with every kind of entry that a plan has: grouped and shared tensors, and sizes in tuples."""
    body = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.PReLU(8), nn.Conv2d(8, 12, 1), nn.GroupNorm(12, 12))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(12), nn.Linear(12, 2))
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), *body, *head)


def make_artifact(folder: Path) -> Path:
    """A valid folder with a plan, weights and a survey."""
    torch.manual_seed(0)
    result = ranp.prune(build(), INPUTS, [], budget=ranp.Budget(macs=0.6, params="80%"), criterion="random")
    path = ranp.save(result.model, result.plan, folder)
    write_survey(path, result.survey())
    write_report(path)
    ranp.load(path, build())
    return path


@dataclass(frozen=True)
class Outcome:
    """How one change ended.

    Attributes:
        target: What was changed.
        status: `refused`, `accepted` or `failed`.
        message: The error.
        seconds: How long reading took.
    """

    target: str
    status: str
    message: str
    seconds: float


class Fuzzer:
    """Changes copies of one artifact.

    Args:
        folder: Where to work; the artifact is made there.
        seed: Seed of all changes.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.seed = seed
        self.valid, self.copy = make_artifact(folder / "valid"), folder / "changed"
        self.model = build()
        self.before = _state(self.model)
        self.targets: dict[str, Callable[[random.Random], Any]] = {
            "plan": self.plan,
            "weights": self.weights,
            "folder": self.folder,
            "survey": self.survey,
            "state dict": self.state_dict,
        }

    def run(self, number: int) -> Outcome:
        """Make one change, and read what it gives."""
        rng = random.Random(f"{self.seed}/{number}")
        target = rng.choices(list(self.targets), weights=(9, 4, 2, 3, 2))[0]
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.valid, self.copy)
        begin = time.process_time()
        try:
            self.targets[target](rng)
            status, message = "accepted", ""
        except RanpError as error:
            status, message = "refused", str(error)
            if "\n" in message or len(message) > LONGEST_MESSAGE:
                status = "failed"
        except Exception as error:
            status, message = "failed", f"{type(error).__name__}: {error}"
        seconds = time.process_time() - begin
        if seconds > LONGEST_SECONDS:
            status, message = "failed", f"it took {seconds:.1f} seconds; {message}"
        if _state(self.model) != self.before:
            status, message = "failed", f"the caller's model has changed; {message}"
            self.model = build()
            self.before = _state(self.model)
        return Outcome(target, status, message, seconds)

    def plan(self, rng: random.Random) -> None:
        """A changed plan in a folder whose checksums are right."""
        (self.copy / "plan.json").write_bytes(mutated_json(rng, (self.valid / "plan.json").read_text()))
        self._seal()
        plan = ranp.Plan.from_json((self.copy / "plan.json").read_bytes().decode(errors="surrogateescape"))
        _use(plan)
        ranp.apply(self.model, plan)
        ranp.verify(self.model, plan, INPUTS)
        ranp.load(self.copy, self.model)

    def weights(self, rng: random.Random) -> None:
        """Changed weights in a folder whose checksums are right."""
        path = self.copy / "weights.safetensors"
        path.write_bytes(mutated_weights(rng, path.read_bytes()))
        self._seal()
        found = ranp.load(self.copy, self.model)
        if any(parameter.isnan().any() for parameter in found.parameters()):
            raise AssertionError("loaded weights contain NaN")

    def folder(self, rng: random.Random) -> None:
        """A folder whose files are missing, exchanged, or do not match their checksums."""
        files = sorted(self.copy.iterdir())
        path, other = rng.sample(files, 2)
        change = rng.randrange(5)
        if change == 0:
            path.unlink()
        elif change == 1:
            path.unlink()
            path.mkdir()
        elif change == 2:
            shutil.copy(other, path)
        elif change == 3:
            path.write_bytes(mutated_json(rng, (self.valid / "artifact.json").read_text()))
        else:
            path.unlink()
            path.symlink_to(rng.choice([other.name, "/dev/zero", "nowhere", path.name]))
        ranp.load(self.copy, self.model)
        write_report(self.copy)

    def survey(self, rng: random.Random) -> None:
        """A changed survey, and the report of its folder."""
        path = self.copy / "survey.json"
        path.write_bytes(mutated_json(rng, path.read_text()))
        write_survey(self.copy, read_survey(path))
        write_report(self.copy)

    def state_dict(self, rng: random.Random) -> None:
        """A state dict with a changed plan."""
        network = attach_plan(build())
        before = _state(network)
        try:
            resize_to_state_dict(network, mutated_state(rng, (self.valid / "plan.json").read_text()))
        except RanpError:
            if _state(network) != before:
                raise AssertionError("the network has changed") from None
            raise
        if plan := attached_plan(network):
            _use(plan)

    def _seal(self) -> None:
        manifest = json.loads((self.valid / "artifact.json").read_text())
        manifest["sha256"] = {name: sha256((self.copy / name).read_bytes()).hexdigest() for name in manifest["sha256"]}
        (self.copy / "artifact.json").write_text(json.dumps(manifest))


def _use(plan: ranp.Plan) -> None:
    """What can be done with any plan."""
    if ranp.Plan.from_json(plan.to_json()) != plan:
        raise AssertionError("the plan does not come back")
    (plan._repr_html_() + repr(plan)).encode()


def _state(model: nn.Module) -> tuple[str, bytes]:
    """Sizes and values of a model."""
    values = (tensor.detach().numpy().tobytes() for tensor in (*model.parameters(), *model.buffers()))
    return repr(model), b"".join(values)


def main(
    mutations: Annotated[int, typer.Option(help="How many changes to make.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of all changes.")] = 0,
    only: Annotated[int | None, typer.Option(help="Number of the only change to make; nothing is written.")] = None,
) -> None:
    """Change artifacts at random and read them."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder), seed)
        if only is not None:
            typer.echo(fuzzer.run(only))
            return
        outcomes = [fuzzer.run(number) for number in track(range(mutations), transient=True)]
    counts = Counter(f"{outcome.target}: {outcome.status}" for outcome in outcomes)
    failures = {n: f"{found.target}: {found.message}" for n, found in enumerate(outcomes) if found.status == "failed"}
    results = {
        "versions": {name: version(name) for name in ("ranp", "torch", "safetensors")},
        "seed": seed,
        "mutations": mutations,
        "outcomes": dict(sorted(counts.items())),
        "failures": failures,
        "longest_seconds": round(max(outcome.seconds for outcome in outcomes), 2),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    typer.echo(json.dumps(results, indent=1))
    raise typer.Exit(bool(failures))


if __name__ == "__main__":
    typer.run(main)
