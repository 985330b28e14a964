"""Tables of step times as files."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ranp.costs.sizes import Size
from ranp.costs.time import Key, StepSample, TimedOperator, TimeTable
from ranp.errors import ArtifactError
from ranp.files import read_json, write_json

FORMAT, FORMAT_VERSION = "ranp-step-times", 1


def write_times(table: TimeTable, path: Path) -> None:
    """Write a table as JSON."""
    families = list(dict.fromkeys(name for each in table.operators for _, name in each.families))
    numbers = {name: number for number, name in enumerate(families)}
    operators = [
        {
            "positions": each.positions,
            "families": [(start, numbers[name]) for start, name in each.families],
            "volume": [_numbers(term) for term in each.volume],
            "inputs": _numbers(each.inputs),
            "outputs": _numbers(each.outputs),
        }
        for each in table.operators
    ]
    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "key": dict(table.key),
        "network": table.network,
        "groups": table.axes.shape[1] - 1,
        "axes": [{str(column): int(row[column]) for column in np.flatnonzero(row)} for row in table.axes],
        "operator_count": table.operator_count,
        "families": families,
        "operators": operators,
        "samples": [asdict(sample) for sample in table.samples],
    }
    write_json(path, content)


def read_times(path: Path) -> TimeTable:
    """Read a table that `write_times` wrote. No code is executed.

    Raises:
        ArtifactError: The file is missing, damaged or not such a table.
    """
    data = read_json(path, format=FORMAT, version=FORMAT_VERSION)
    try:
        return _table(data)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        problem = f"does not match the format {FORMAT} ({type(error).__name__}: {error})"
        raise ArtifactError(str(path), problem, hint="measure the step times again") from error


def check_times(table: TimeTable, key: Key, network: str, place: str) -> None:
    """Refuse a table that was measured under other circumstances.

    Raises:
        ArtifactError: It is of another device, version of torch, way of training or network; the message says which.
    """
    hint = "measure the step times again, into another file"
    for name in sorted(key.keys() | table.key.keys()):
        if table.key.get(name) != key.get(name):
            problem = f"the step times are those of {name} {table.key.get(name)!r}, not {key.get(name)!r}"
            raise ArtifactError(place, problem, hint=hint)
    if table.network != network:
        raise ArtifactError(place, "the step times are those of another network or input size", hint=hint)


def _numbers(size: Size) -> tuple[int, ...]:
    return size.factor, *size.axes


def _table(data: Mapping[str, Any]) -> TimeTable:
    axes = np.zeros((len(data["axes"]), data["groups"] + 1), dtype=np.int64)
    for row, entries in zip(axes, data["axes"], strict=True):
        for column, count in entries.items():
            row[int(column)] = count
    operators = tuple(_operator(each, data["families"], len(axes)) for each in data["operators"])
    samples = tuple(_sample(each, data["groups"], len(operators)) for each in data["samples"])
    if not operators or not any(sample.seconds for sample in samples):
        raise ValueError("it has no operators or no measured steps")
    return TimeTable(data["key"], data["network"], axes, data["operator_count"], operators, samples)


def _operator(entry: Mapping[str, Any], families: Sequence[str], axes: int) -> TimedOperator:
    named = tuple((int(start), str(families[number])) for start, number in entry["families"])
    if not named or named[0][0] != 0:
        raise ValueError("an operator is of no family")
    volume = tuple(_size(term, axes) for term in entry["volume"])
    inputs, outputs = _size(entry["inputs"], axes), _size(entry["outputs"], axes)
    return TimedOperator(tuple(map(int, entry["positions"])), named, volume, inputs, outputs)


def _size(numbers: Sequence[int], axes: int) -> Size:
    factor, *rows = map(int, numbers)
    if not all(0 <= row < axes for row in rows):
        raise ValueError("a size refers to an axis that does not exist")
    return Size(factor, tuple(rows))


def _sample(entry: Mapping[str, Any], groups: int, operators: int) -> StepSample:
    sample = StepSample(**{**entry, "widths": tuple(entry["widths"]), "operators": tuple(entry["operators"])})
    numbers = (*sample.widths, *sample.operators, sample.launch_seconds, sample.spread)
    if len(sample.widths) != groups or len(sample.operators) not in (0, operators) or min(numbers) < 0:
        raise ValueError("a sample has the wrong number of widths or times, or negative ones")
    if min(sample.widths) < 1 or (sample.seconds is not None and sample.seconds <= 0):
        raise ValueError("a sample has no width or takes no time")
    return sample
