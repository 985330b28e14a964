"""The report: one plain dictionary, from which every file and table is made."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ranp.costs import Cost
from ranp.environment import hardware, versions
from ranp.experiments.data.mni152 import TISSUES
from ranp.experiments.demo._race import Runner
from ranp.experiments.demo._settings import Settings
from ranp.plan import Plan

FORMAT_VERSION = 1
# That the numbers depend on.
PACKAGES = ("ranp", "torch", "monai", "nilearn", "numpy", "matplotlib")

Row = tuple[str, str, str, str]


@dataclass(frozen=True)
class Measured:
    """What one training step of a network takes."""

    step_seconds: float
    peak_bytes: int


def make_report(
    settings: Settings,
    seed: int,
    device: torch.device,
    plan: Plan,
    runners: Sequence[Runner],
    measured: Mapping[str, Measured],
    elapsed: Mapping[str, float],
) -> dict[str, Any]:
    """Put together everything worth keeping, as data that JSON can hold.

    Args:
        settings: What the demo ran with.
        seed: The seed.
        device: The device.
        plan: What was pruned.
        runners: The full and the pruned network, trained.
        measured: Time and memory of a step, by network.
        elapsed: Seconds since the demo began, by what had been done then.

    Returns:
        A dictionary with an entry for each network (`full`, `pruned`) and for the circumstances.
    """
    costs = {"full": plan.full_cost, "pruned": plan.cost}
    return {
        "format": "ranp-demo",
        "version": FORMAT_VERSION,
        "seed": seed,
        "device": str(device),
        "hardware": hardware(device),
        "versions": versions(PACKAGES),
        "settings": asdict(settings),
        "elapsed_seconds": dict(elapsed),
        **{runner.name: _entry(runner, costs[runner.name], measured[runner.name]) for runner in runners},
    }


def _entry(runner: Runner, cost: Cost, measured: Measured) -> dict[str, Any]:
    return {
        "params": cost.params,
        "macs": cost.macs,
        "activation_bytes": cost.activation_bytes,
        "step_seconds": measured.step_seconds,
        "peak_bytes": measured.peak_bytes,
        "dice": runner.curve[-1]["dice"],
        "steps": runner.last.index,
        "training_seconds": runner.last.seconds,
        "curve": runner.curve,
    }


def rows(report: Mapping[str, Any]) -> list[Row]:
    """The table: what is compared, full, pruned, and the change.

    Args:
        report: As `make_report` gives it.
    """
    full, pruned = report["full"], report["pruned"]
    resources = [
        ("parameters", "params", 1, ",.0f"),
        ("MACs of a patch (M)", "macs", 1e6, ",.1f"),
        ("activation memory of a patch (MB)", "activation_bytes", 1e6, ",.1f"),
        ("training step, measured (ms)", "step_seconds", 1e-3, ",.0f"),
        ("peak memory of training, measured (MB)", "peak_bytes", 1e6, ",.0f"),
    ]
    found: list[Row] = []
    for label, key, unit, style in resources:
        ratio = full[key] / max(pruned[key], 1e-12)
        found.append((label, f"{full[key] / unit:{style}}", f"{pruned[key] / unit:{style}}", f"{ratio:.1f}x less"))
    ratio = pruned["steps"] / max(full["steps"], 1)
    found.append(("training steps in the same time", str(full["steps"]), str(pruned["steps"]), f"{ratio:.1f}x more"))
    for key in (*TISSUES, "mean"):
        before, after = full["dice"][key], pruned["dice"][key]
        label = "mean Dice of grey, white and other" if key == "mean" else f"Dice, {key}"
        found.append((label, f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}"))
    return found


def markdown(report: Mapping[str, Any]) -> str:
    """The report as a page: table, pictures, circumstances and limits."""
    settings, full, elapsed = report["settings"], report["full"], report["elapsed_seconds"]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows(report))
    packages = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    return f"""# A 3D U-Net, pruned before training

The pruned network keeps {settings["macs"]:.0%} of the multiply-adds of the full one, chosen by RANP-f (Xu et al.,
RANP, 3DV 2020) on {settings["scoring_batches"]} batches. Both then trained for the same wall time,
{full["training_seconds"]:.0f} seconds each, on the same stream of patches.

| | full | pruned | change |
|---|---:|---:|---:|
{table}

![Dice against time and against steps](dice.png)

![A slice of the validation region, its truth and both segmentations](segmentation.png)

![Importance of every layer's neurons](importance.png)

![Channels kept per layer](channels.png)

## Circumstances

- Task: grey matter, white matter, other and background on the T1 image of the MNI152 template, 1 mm voxels.
  Training sees the left hemisphere behind the plane y = 0 mm, validation the right one in front of it.
- Network: 15-layer 3D U-Net of base width {settings["width"]}, patches of {settings["patch"]} voxels a side,
  {settings["batch"]} to a batch. AdamW, peak learning rate {settings["rate_full"]:g} (full) and
  {settings["rate_pruned"]:g} (pruned), Dice plus cross-entropy.
- Start: the full network has PyTorch's own initial weights; the pruned one keeps those of its neurons.
- Seed {report["seed"]}; {report["device"]}: {report["hardware"]}.
- Duration: {_durations(elapsed)}.
- Versions: {packages}.

## Limits

{LIMITS}
"""


def _durations(elapsed: Mapping[str, float]) -> str:
    return ", ".join(f"{what} after {seconds:.0f} s" for what, seconds in elapsed.items())


LIMITS = """\
- One image, the average of 152 brains, exactly symmetric: hence the double split. The Dice here says which network
  learns faster on this task, not how well either would segment a patient.
- The tissue maps that serve as truth were themselves made from the image.
- Minutes of training: neither network has converged, and longer training narrows the gap or turns it round.
- One seed. Training stops by the clock, so steps and Dice change from run to run and from machine to machine;
  from one evaluation to the next the Dice moves by several hundredths. A smaller difference means nothing.
- Learning rates were chosen on the same validation patches, in a few short trials of each network.
- On a CPU the peak memory is that of the process, and contains working memory of the libraries besides the
  activations; the activation memory is that of one forward pass of one patch."""
