"""Seconds of a training step's operators as functions of their sizes, fitted to measurements.

A sum of non-negative costs per call, activation, weight and multiply-add explains most of the time of an operator.
Devices compute on blocks of channels, so channels count both as they are and rounded up to a multiple of the block; the
block that explains the measurements best is chosen. What remains is interpolated, operator by operator, between the
widths that were measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BLOCKS = (4, 8, 16, 32, 64)
"""Channels that a device may compute on at once."""
_LENGTH = 2.5
"""Factor of a size, as a logarithm to base 2, over which what remains stays similar."""
_NOISE = 0.08
"""Relative error of a single measurement."""


@dataclass(frozen=True, eq=False)
class Loads:
    """Sizes of some operators at some widths.

    A convolution or matrix product multiplies `inputs` by `outputs` channels at `volume` positions. Any other operator
    has one channel each; its volume is the number of elements that it reads and writes.

    Attributes:
        family: Numbers of the families; operators of a family differ in nothing but their size. All of shape (...,).
        volume: Positions.
        inputs: Input channels.
        outputs: Output channels.
    """

    family: Ints
    volume: Floats
    inputs: Floats
    outputs: Floats

    def __getitem__(self, index: object) -> "Loads":
        return Loads(self.family[index], self.volume[index], self.inputs[index], self.outputs[index])  # type: ignore

    @classmethod
    def stack(cls, loads: Sequence["Loads"]) -> "Loads":
        """Loads of shape (operators,) at several widths, as one of shape (operators, widths)."""
        names = ("family", "volume", "inputs", "outputs")
        return cls(*(np.stack([getattr(load, name) for load in loads], axis=1) for name in names))

    def kinds(self, block: Ints) -> Ints:
        """Operators on fewer input channels than a block behave differently, in convolutions."""
        return (self.inputs < block).astype(np.int64)

    def features(self, block: Ints) -> Floats:
        """What costs time, of shape (..., features)."""
        volume, ins, outs = self.volume, self.inputs, self.outputs
        wide_ins, wide_outs = (np.ceil(channels / block) * block for channels in (ins, outs))
        reads = [volume * channels for channels in (ins, wide_ins, outs, wide_outs)]
        weights = [ins * outs, wide_ins * wide_outs]
        macs = [reads[0] * outs, reads[0] * wide_outs, reads[1] * outs, reads[1] * wide_outs]
        return np.stack([np.ones_like(volume), volume, *reads, *weights, *macs], axis=-1)

    def places(self) -> Floats:
        """Where an operator is among others of its family, of shape (..., 3)."""
        # The narrowest steps change a size most, and its time least.
        channels = [np.ceil(channels / 4) * 4 for channels in (self.inputs, self.outputs)]
        return np.log2(np.stack([self.volume, *channels], axis=-1))  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class OperatorTimes:
    """The fitted model.

    Attributes:
        blocks: Of each family, of shape (families,).
        costs: Of each feature, of shape (families, kinds, features).
        measured: Sizes that were measured, of shape (operators, samples).
        corrections: How measurements differ from the sum of costs, of shape (operators, samples).
        spread: By how much they do, of shape (operators,).
    """

    blocks: Ints
    costs: Floats
    measured: Loads
    corrections: Floats
    spread: Floats

    def seconds(self, loads: Loads) -> Floats:
        """Seconds of every operator, of shape (operators,)."""
        base = _base(self.blocks, self.costs, loads)
        near = self._similarity(loads[:, None], self.measured)[:, 0]
        return base * np.exp((near * self.corrections).sum(axis=1))  # type: ignore[no-any-return]

    def _similarity(self, a: Loads, b: Loads) -> Floats:
        return _similarity(self.blocks, self.spread, a, b)


def fit(loads: Loads, seconds: Floats, names: Sequence[str]) -> OperatorTimes:
    """Fit the model.

    Args:
        loads: Sizes of all operators at some widths, of shape (operators, samples).
        seconds: What was measured, of the same shape.
        names: Of the families: a function with its constant arguments, `|`, and how torch implements it.
    """
    measured = np.unique(loads.family).tolist()
    blocks = _choose_blocks(loads, seconds, {number: names[number] for number in measured})
    found = {number: _fit_family(loads, seconds, number, int(blocks[number])) for number in measured}
    # Torch may choose an implementation that was not measured; the others of the same function have to do.
    functions = [name.rpartition("|")[0] for name in names]
    alike = {functions[number]: number for number in measured}
    use = [number if number in found else alike[functions[number]] for number in range(len(names))]
    blocks = blocks[use]
    costs: Floats = np.stack([found[number] for number in use])
    remaining = np.log(seconds / _base(blocks, costs, loads))
    spread: Floats = np.clip(np.sqrt((remaining**2).mean(axis=1)), 0.02, 0.5)
    near = _similarity(blocks, spread, loads, loads)
    noise = _NOISE**2 * np.eye(near.shape[-1])
    corrections: Floats = np.linalg.solve(near + noise, remaining[..., None])[..., 0].astype(np.float64)
    return OperatorTimes(blocks, costs, loads, corrections, spread)


def _base(blocks: Ints, costs: Floats, loads: Loads) -> Floats:
    block = blocks[loads.family]
    found = (loads.features(block) * costs[loads.family, loads.kinds(block)]).sum(axis=-1)
    return np.maximum(found, 1e-9)  # type: ignore[no-any-return]


def _similarity(blocks: Ints, spread: Floats, a: Loads, b: Loads) -> Floats:
    """How much measurements of an operator say about each other, of shape (operators, len(a), len(b))."""
    distance = (((a.places()[:, :, None] - b.places()[:, None]) / _LENGTH) ** 2).sum(axis=-1)
    kinds = [each.kinds(blocks[each.family]) + 2 * each.family for each in (a, b)]
    same = kinds[0][:, :, None] == kinds[1][:, None]
    return spread[:, None, None] ** 2 * np.exp(-distance / 2) * np.where(same, 1, 0.3)  # type: ignore[no-any-return]


def _choose_blocks(loads: Loads, seconds: Floats, names: Mapping[int, str]) -> Ints:
    """Of each family the block that explains the measurements of its function and implementation best."""
    blocks = np.full(max(names) + 1, BLOCKS[0])
    groups: dict[str, list[int]] = {}
    for number, name in names.items():
        groups.setdefault(name.partition("(")[0] + name.rpartition("|")[2], []).append(number)
    for families in groups.values():
        multiplying = [number for number in families if (loads.outputs[loads.family == number] > 1).any()]
        errors = [sum(_error(loads, seconds, number, block) for number in multiplying) for block in BLOCKS]
        blocks[families] = BLOCKS[int(np.argmin(errors))]
    return blocks


def _error(loads: Loads, seconds: Floats, family: int, block: int) -> float:
    """Seconds by which a family's fit is wrong."""
    chosen = loads.family == family
    mine, spent = loads[chosen], seconds[chosen]
    costs = _fit_family(loads, seconds, family, block)
    found = (mine.features(np.array(block)) * costs[mine.kinds(np.array(block))]).sum(axis=-1)
    return float((spent * np.abs(np.log(np.maximum(found, 1e-9) / spent))).sum())


def _fit_family(loads: Loads, seconds: Floats, family: int, block: int) -> Floats:
    """Costs of the features, of shape (kinds, features)."""
    chosen = loads.family == family
    mine, spent = loads[chosen], seconds[chosen]
    features, kinds = mine.features(np.array(block)), mine.kinds(np.array(block))
    # Between absolute and relative errors: what takes long matters more.
    weight = spent**-0.75
    rows, target = features * weight[:, None], spent * weight
    pooled = nonnegative_least_squares(rows, target)
    costs = [
        nonnegative_least_squares(rows[kinds == kind], target[kinds == kind]) if (kinds == kind).sum() >= 3 else pooled
        for kind in range(2)
    ]
    return np.stack(costs)


def nonnegative_least_squares(matrix: Floats, target: Floats) -> Floats:
    """The non-negative x with the least |matrix @ x - target| (Lawson and Hanson, 1974).

    Example:
        >>> nonnegative_least_squares(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([2.0, -1.0]))
        array([2., 0.])
    """
    scale = np.maximum(np.linalg.norm(matrix, axis=0), 1e-300)
    gram, moment = (matrix / scale).T @ (matrix / scale), (matrix / scale).T @ target
    active, x = np.zeros(len(moment), dtype=bool), np.zeros(len(moment))
    for _ in range(3 * len(moment)):
        gradient = np.where(active, -np.inf, moment - gram @ x)
        if gradient.max() <= 1e-9 * max(np.abs(moment).max(), 1e-300):
            break
        active[gradient.argmax()] = True
        while active.any():
            trial = np.zeros(len(moment))
            trial[active] = np.linalg.lstsq(gram[np.ix_(active, active)], moment[active], rcond=1e-12)[0]
            below = active & (trial <= 0)
            if not below.any():
                x = trial
                break
            x = x + min(x[below] / (x[below] - trial[below])) * (trial - x)
            active &= x > 1e-12
            x[~active] = 0
    return x / scale  # type: ignore[no-any-return]
