"""Random changes of valid JSON, safetensors files and state dicts."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from ranp.integrations.state_dict import KEY

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 10**6, 2**31, 2**63, 2**64, 10**30, -(2**70), 0.5, -0.5, 1e300),
    *(float("nan"), float("inf"), "", "a", "0", "0-3", "7-2", "0-4194303", "\ud800", "\x00", "a" * 100_000, "../../x"),
    *("forward", "__class__", "0.weight", "normalized_shape[0]", "10%", "3 GiB", [], {}, [[]], [None], {"a": 1}),
]
Place = tuple[Any, Any]


def mutated_json(rng: random.Random, text: str) -> bytes:
    """JSON with one to three changes of its values, sometimes also one of its text."""
    document = json.loads(text)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        places = _places(document)
        if places:
            rng.choice(_CHANGES)(rng, rng.choice(places), places)
    content = json.dumps(document, indent=rng.choice([None, 1])).encode()
    return rng.choice(_TEXTS)(rng, content) if rng.random() < 0.2 else content


def _places(document: Any) -> list[Place]:
    """A holder and a key for each value."""
    found: list[Place] = []
    waiting = [document]
    while waiting:
        holder = waiting.pop()
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            found.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                waiting.append(holder[key])
    return found


def _replace(rng: random.Random, place: Place, places: list[Place]) -> None:
    holder, key = place
    holder[key] = copy.deepcopy(rng.choice(VALUES))


def _adjust(rng: random.Random, place: Place, places: list[Place]) -> None:
    """Another value of the same kind."""
    holder, key = place
    value = holder[key]
    if isinstance(value, bool) or value is None:
        holder[key] = not value
    elif isinstance(value, (int, float)):
        holder[key] = rng.choice([value + 1, value - 1, -value, value * 2, value + 0.5, value * 10**12, value / 3])
    elif isinstance(value, str):
        where = rng.randint(0, len(value))
        holder[key] = (
            value[:where] + rng.choice(["", "0", "-", ",", "9", " ", "\n", "\u0663", "\udfff"]) + value[where + 1 :]
        )
    elif isinstance(value, list):
        rng.shuffle(value)
    elif value:
        name = rng.choice(list(value))
        value[name + "x"] = value.pop(name)


def _remove(rng: random.Random, place: Place, places: list[Place]) -> None:
    holder, key = place
    del holder[key]


def _repeat(rng: random.Random, place: Place, places: list[Place]) -> None:
    """A value again, once or very often."""
    holder, key = place
    times = rng.choice([1, 1, 1, 100, 30_000])
    if isinstance(holder, list):
        holder.extend(holder[key] for _ in range(times))
    else:
        holder.update({f"{key}#{number}": holder[key] for number in range(times)})


def _copy(rng: random.Random, place: Place, places: list[Place]) -> None:
    """The value of another place."""
    holder, key = place
    other, where = rng.choice(places)
    holder[key] = copy.deepcopy(other[where])


def _swap(rng: random.Random, place: Place, places: list[Place]) -> None:
    """Values of the same holder in each other's places."""
    holder, key = place
    other = rng.choice([where for found, where in places if found is holder])
    holder[key], holder[other] = holder[other], holder[key]


_CHANGES = [_replace, _adjust, _adjust, _remove, _repeat, _copy, _swap]


def _flipped(rng: random.Random, content: bytes) -> bytes:
    where = rng.randrange(len(content))
    return content[:where] + bytes([content[where] ^ (1 << rng.randrange(8))]) + content[where + 1 :]


def _cut(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


def _insert(rng: random.Random, content: bytes) -> bytes:
    where = rng.randrange(len(content))
    junk = rng.choice(
        [b"\x00", b"1e999", b"-Infinity", b'"', b"}", b",", b"[" * 5000, b"9" * 5000, b"\xff", b"\\ud800"]
    )
    return content[:where] + junk + content[where:]


def _line_twice(rng: random.Random, content: bytes) -> bytes:
    """A line twice, which gives an object one key twice."""
    lines = content.splitlines(keepends=True)
    where = rng.randrange(len(lines))
    return b"".join((*lines[: where + 1], *lines[where:]))


_TEXTS: list[Callable[[random.Random, bytes], bytes]] = [
    _flipped,
    _cut,
    _insert,
    _line_twice,
    lambda rng, content: b"\xef\xbb\xbf" + content,
    lambda rng, content: content.decode().encode("utf-16"),
    lambda rng, content: content * 2,
    lambda rng, content: b"",
]


# -- tensors -----------------------------------------------------------------------------------------------------


def mutated_weights(rng: random.Random, content: bytes) -> bytes:
    """A safetensors file with a change of a tensor, of the header or of the bytes."""
    kind = rng.randrange(3)
    if kind == 0:
        tensors = load(content)
        name, other = rng.sample(sorted(tensors), 2)
        rng.choice(_TENSORS)(tensors, name, other)
        return save({name: tensor.contiguous() for name, tensor in tensors.items()})
    if kind == 1:
        size = int.from_bytes(content[:8], "little")
        header = mutated_json(rng, content[8 : 8 + size].decode())
        return len(header).to_bytes(8, "little") + header + content[8 + size :]
    return rng.choice([_flipped, _flipped, _cut, _insert, _size])(rng, content)


def _size(rng: random.Random, content: bytes) -> bytes:
    """Another size of the header."""
    return rng.choice([0, 1, 2, 10**8 + 1, 2**40, 2**64 - 1]).to_bytes(8, "little") + content[8:]


def _set(tensors: dict[str, Tensor], name: str, tensor: Tensor) -> None:
    tensors[name] = tensor


def _nan(tensors: dict[str, Tensor], name: str, other: str) -> None:
    if tensors[name].is_floating_point():
        tensors[name].view(-1)[-1] = torch.nan


_TENSORS: list[Callable[[dict[str, Tensor], str, str], Any]] = [
    _nan,
    _nan,
    lambda tensors, name, other: tensors.pop(name),
    lambda tensors, name, other: _set(tensors, name, tensors[other].clone()),
    lambda tensors, name, other: _set(tensors, name + ".", tensors.pop(name)),
    lambda tensors, name, other: _set(tensors, "more", torch.zeros(1)),
    lambda tensors, name, other: _set(tensors, name, tensors[name].double()),
    lambda tensors, name, other: _set(tensors, name, tensors[name].to(torch.complex64)),
    lambda tensors, name, other: _set(tensors, name, tensors[name].reshape(-1)),
    lambda tensors, name, other: _set(tensors, name, tensors[name][None]),
    lambda tensors, name, other: _set(tensors, name, tensors[name].reshape(-1)[:0]),
    lambda tensors, name, other: _set(tensors, name, tensors[name] * 1e30),
]


def mutated_state(rng: random.Random, plan: str) -> dict[str, Any]:
    """A state dict with a changed plan, or with something else in its place."""
    if rng.random() < 0.2:
        others: list[Any] = [None, "plan", plan, torch.zeros(3), torch.zeros(2, 2, dtype=torch.uint8), plan.encode()]
        return {KEY: rng.choice([*others, torch.zeros((), dtype=torch.uint8), torch.zeros(0, dtype=torch.uint8)])}
    content = mutated_json(rng, plan)
    return {KEY: torch.tensor(list(content), dtype=torch.uint8)}
