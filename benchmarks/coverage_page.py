"""The page that the zoo benchmark writes: what can be pruned, how far and how fast, in tables."""

import statistics
from typing import Any

Row = dict[str, Any]
OURS, PEER = "ranp", "Torch-Pruning"

_INTRODUCTION = """# Coverage

Written by `benchmarks/zoo.py`; change that.

Every network is pruned at random to {budget:.0%} of its multiply-adds (MACs), or to the least that it allows, by
ranp; and by Torch-Pruning with one ratio for all layers, as its documentation advises. *Exact*: the pruned network's
outputs equal those of the original with the removed channels masked, in float64. *Structural*: that could not be had,
because a norm mixes channels or the forward insists on float32, and shapes, finiteness and gradients were checked
instead. *Refused*: an error says why. *Wrong*: outputs of other shapes or values, a network that no longer runs, or
nothing pruned at all. MACs are counted by torch itself. Seconds are the processor time of analysis and surgery on one
core, without verification. *Whole* is the share of the MACs in layers that cannot be pruned, but for those that make
the outputs. Volumes have up to 96 voxels, images and clips up to 256 pixels a side where the network takes them:
Torch-Pruning runs the network on them, ranp only works out their shapes. That is why ranp is many times faster on
volumes, and hardly faster on light networks for images, which run in a fifth of a second. A process that wants more
than 24 GB of memory dies.
"""


def page(results: list[Row]) -> str:
    """The whole page, from what was measured of each family."""
    networks = [row for result in results for row in result["networks"]]
    parts = [_INTRODUCTION.format(budget=results[0]["budget"]), _summary(results), _speed(networks)]
    for result in results:
        environment = ", ".join(f"{name} {value}" for name, value in result["environment"].items())
        count = f"{len(result['networks'])} of {result['members']} networks measured"
        parts += [f"## {result['family']}", f"{count}; {environment}", _networks(result["networks"])]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _summary(results: list[Row]) -> str:
    rows = []
    for result in results:
        mine, theirs = ([row[tool] for row in result["networks"]] for tool in (OURS, PEER))
        rows.append(
            [
                result["family"],
                str(len(mine)),
                *(str(sum(row["proof"] == proof for row in mine)) for proof in ("exact", "structural")),
                *(_count(mine, status) for status in ("refused", "wrong", "crashes")),
                *(_count(theirs, status) for status in ("works", "wrong", "crashes")),
                _times_as_fast(result["networks"]),
            ]
        )
    counts = (str(sum(int(row[column]) for row in rows)) for column in range(1, len(rows[0]) - 1))
    rows.append(["all", *counts, _times_as_fast([row for result in results for row in result["networks"]])])
    ours = ["exact", "structural", "refused", "wrong", "crashes"]
    peer = [f"{PEER}: works", "wrong", "crashes", "ranp is faster by"]
    return _table(["family", "networks", *ours, *peer], rows)


def _ratios(networks: list[Row]) -> list[float]:
    """How much longer the peer takes, on the networks that both prune."""
    both = [row for row in networks if all(row[tool]["status"] == "works" for tool in (OURS, PEER))]
    return [row[PEER]["seconds"] / row[OURS]["seconds"] for row in both]


def _times_as_fast(networks: list[Row]) -> str:
    ratios = _ratios(networks)
    return f"{statistics.median(ratios):.1f} (median of {len(ratios)})" if ratios else ""


def _count(rows: list[Row], status: str) -> str:
    return str(sum(row["status"] == status for row in rows))


def _speed(networks: list[Row]) -> str:
    working = [row for row in networks if row[OURS]["status"] == "works"]
    both = [row for row in working if row[PEER]["status"] == "works"]
    seconds = [row[OURS]["seconds"] for row in working]
    lines = [
        f"Of {len(seconds)} networks ranp takes {statistics.median(seconds):.2f} s in the median and more than 1 s on "
        f"{sum(value > 1 for value in seconds)}."
    ]
    if len(both) > 1:
        ratios = _ratios(networks)
        left = {tool: [row[tool]["macs"] for row in both] for tool in (OURS, PEER)}
        faster = f"{statistics.median(ratios):.1f} times as fast as {PEER} in the median ({_quartiles(ratios, '.1f')})"
        lines.append(
            f"On the {len(both)} networks that both prune, it is {faster}. There {_quartiles(left[OURS], '.1%')} of "
            f"the MACs are left by ranp, {_quartiles(left[PEER], '.1%')} by {PEER}."
        )
    return " ".join(lines)


def _quartiles(values: list[float], form: str) -> str:
    low, _, high = statistics.quantiles(values, n=4)
    return f"{low:{form}} to {high:{form}} between the quartiles"


def _networks(rows: list[Row]) -> str:
    table = []
    for row in rows:
        mine, theirs = row[OURS], row[PEER]
        remarkable = mine["status"] != "works" or mine["frozen"] > 0.05
        table.append(
            [
                row["name"],
                mine["proof"] or mine["status"],
                *(_percent(mine["macs"]), _seconds(mine["seconds"]), _percent(mine["frozen"])),
                mine["note"] if remarkable else "",
                theirs["status"],
                *(_percent(theirs["macs"]), _seconds(theirs["seconds"])),
            ]
        )
    ours = [OURS, "MACs left", "s", "whole", "what stays whole, or why not"]
    return _table(["network", *ours, PEER, "MACs left", "s"], table)


def _table(head: list[str], rows: list[list[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in cells)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
