"""The operators of a training step as functions of the widths, from records of the step at several widths."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ranp.costs.sizes import SizeFinder, total
from ranp.costs.time import TimedOperator
from ranp.errors import InputError
from ranp.graph import Floats, Ints
from ranp.timing._recording import ConvolutionArguments, Recorded

CHEAP = 0.005
"""Share of a step's time below which operators of the same family count as one."""


@dataclass(frozen=True)
class StepRecord:
    """The operators of a step, and the seconds of each."""

    operators: list[Recorded]
    seconds: list[float]


def step_operators(
    records: Sequence[StepRecord], sizes: Ints, device: torch.device
) -> tuple[list[TimedOperator], Floats]:
    """The operators of a step whose size depends on the widths, and their seconds at each of some widths.

    An operator whose sizes are not products of at most two axes is left out; it belongs to the rest of the step.

    Args:
        records: What was recorded at each of the widths.
        sizes: Size of every axis at each of the widths, of shape (widths, axes).
        device: Where the step runs.

    Returns:
        The operators, and an array of shape (operators, widths).

    Raises:
        InputError: There are none.
    """
    finder = SizeFinder(sizes)
    operators, seconds = [], []
    for places in _aligned([record.operators for record in records]):
        same = [record.operators[place] for record, place in zip(records, places, strict=True)]
        found = [finder.find(values) for values in zip(*(each.numbers for each in same), strict=True)]
        known = [size for size in found if size is not None]
        if len(known) < len(found) or not any(size.axes for size in known):
            continue
        *volumes, inputs, outputs = known
        families = tuple((start, f"{_family(same)}|{name}") for start, name in _implementations(same[0], device))
        operators.append(TimedOperator(places[:1], families, total(volumes), inputs, outputs))
        seconds.append([record.seconds[place] for record, place in zip(records, places, strict=True)])
    if not operators:
        raise InputError("step times", "no operator of a training step depends on the widths")
    return _merged(operators, np.array(seconds))


def _merged(operators: Sequence[TimedOperator], seconds: Floats) -> tuple[list[TimedOperator], Floats]:
    """Cheap operators of the same family as one: an optimizer runs some for every parameter."""
    cheap = seconds[:, 0] < CHEAP * seconds[:, 0].sum()
    numbers: dict[Hashable, int] = {}
    found: list[TimedOperator] = []
    sums: list[Floats] = []
    for number, each in enumerate(operators):
        key: Hashable = each.families if cheap[number] and not each.multiplies else number
        place = numbers.setdefault(key, len(found))
        if place == len(found):
            found.append(each)
            sums.append(seconds[number])
        else:
            known = found[place]
            volume = total([*known.volume, *each.volume])
            found[place] = replace(known, positions=known.positions + each.positions, volume=volume)
            sums[place] = sums[place] + seconds[number]
    return found, np.array(sums)


def _aligned(records: Sequence[Sequence[Recorded]]) -> Iterator[tuple[int, ...]]:
    """Places in all records of operators that ran in each; torch or the model may choose some by size."""
    numbers: dict[Hashable, int] = {}
    keys = [[numbers.setdefault(each.key, len(numbers)) for each in record] for record in records]
    for found in zip(*(_places(keys[0], other) for other in keys), strict=True):
        if min(found) >= 0:
            yield found


def _places(first: list[int], other: list[int]) -> list[int]:
    """For each element of the first list its place in the other, or -1."""
    if first == other:
        return list(range(len(first)))
    places = [-1] * len(first)
    for here, there, count in SequenceMatcher(None, first, other, autojunk=False).get_matching_blocks():
        places[here : here + count] = range(there, there + count)
    return places


def _family(same: Sequence[Recorded]) -> str:
    """What an operator has in common with others that differ in size only."""
    first = same[0]
    constants = [
        str(values[0]) if len(set(values)) == 1 else "_"
        for values in zip(*(each.constants for each in same), strict=True)
    ]
    tensors = [tensor + layout for tensor, layout in zip(first.tensors, first.layouts, strict=True)]
    kernel = "x".join(map(str, first.convolution.weight[2:])) if first.convolution else ""
    return f"{first.name}({', '.join(map(_counted, (tensors, constants)))}{kernel and f', kernel {kernel}'})"


def _counted(texts: Sequence[str]) -> str:
    """Texts in a row; long lists with the number of times that each occurs."""
    return " ".join(texts if len(texts) <= 16 else (f"{texts.count(text)}*{text}" for text in dict.fromkeys(texts)))


def _implementations(operator: Recorded, device: torch.device) -> list[tuple[int, str]]:
    """How torch implements a convolution, with the least number of input channels for which it does so."""
    arguments = operator.convolution
    if arguments is None or arguments.groups > 1:
        return [(0, "")]
    with FakeTensorMode():
        names = _changes(lambda channels: _implementation(arguments, channels, device), 1, operator.inputs)
    return [(channels if channels > 1 else 0, name) for channels, name in names]


def _changes(function: Callable[[int], str], low: int, high: int) -> list[tuple[int, str]]:
    """Where the value of a function changes between two numbers; it is constant if it is the same at both."""
    if function(low) == function(high):
        return [(low, function(low))]
    if high - low == 1:
        return [(low, function(low)), (high, function(high))]
    middle = (low + high) // 2
    first, second = _changes(function, low, middle), _changes(function, middle, high)
    return [*first, *second[1:]]


def _implementation(arguments: ConvolutionArguments, channels: int, device: torch.device) -> str:
    source, weight = list(arguments.source), list(arguments.weight)
    source[1] = channels
    weight[0 if arguments.transposed else 1] = channels
    tensors = [torch.empty(shape, dtype=arguments.dtype, device=device) for shape in (source, weight)]
    spacing = arguments.stride, arguments.padding, arguments.dilation
    kind = arguments.transposed, arguments.output_padding, arguments.groups
    return str(torch._C._select_conv_backend(*tensors, None, *spacing, *kind))
