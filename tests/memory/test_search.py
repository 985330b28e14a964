"""What is found fits, and the next larger one does not."""

import pytest
import torch
from torch import nn

import ranp
from ranp import TrainingSetup
from ranp.costs.memory import Block, MemoryPrediction, Moment
from ranp.errors import InputError
from ranp.memory import MemoryPredictor, largest_batch, largest_size, size_multiple
from ranp.memory._search import _largest
from ranp.models import UNet3D

MIB = 2**20


def _predictor(**setup: object) -> MemoryPredictor:
    model, inputs = UNet3D(1, 3, width=4, levels=3), torch.zeros(1, 1, 8, 8, 8)
    return MemoryPredictor(model, inputs, TrainingSetup(**setup), graph=ranp.trace(model, inputs))  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [MIB, 10 * MIB])
def test_the_largest_batch(limit: int) -> None:
    predictor = _predictor()
    found = largest_batch(predictor, limit, margin=0)
    assert found > 1
    assert predictor.predict(batch=found).process_bytes <= limit
    assert predictor.predict(batch=found + 1).process_bytes > limit


def test_narrower_networks_and_smaller_inputs_take_larger_batches() -> None:
    predictor = _predictor()
    assert predictor.graph is not None
    full = largest_batch(predictor, 4 * MIB, size=16)
    narrow = predictor.graph.widths // 2
    assert largest_batch(predictor, 4 * MIB, size=16, widths=narrow) > full
    assert largest_batch(predictor, 4 * MIB) > full


def test_nothing_fits_into_too_little() -> None:
    assert largest_batch(_predictor(), 1000) == 0
    assert largest_size(_predictor(), 1000, multiple=4) == ()


def test_the_largest_size() -> None:
    predictor = _predictor()
    found = largest_size(predictor, 30 * MIB, batch=2, multiple=4, margin=0)
    assert len(set(found)) == 1
    assert found[0] % 4 == 0
    assert predictor.predict(batch=2, size=found).process_bytes <= 30 * MIB
    assert predictor.predict(batch=2, size=found[0] + 4).process_bytes > 30 * MIB


def test_sides_keep_their_ratio() -> None:
    predictor = _predictor()
    found = largest_size(predictor, 30 * MIB, aspect=(2, 1.5, 1), multiple=4, margin=0)
    count = found[2] // 4
    assert found == (8 * count, 4 * round(1.5 * count), 4 * count)
    assert predictor.predict(size=found).process_bytes <= 30 * MIB
    own = largest_size(predictor, 30 * MIB, aspect=(8, 8, 2), multiple=(4, 8, 1), margin=0)
    count = own[1] // 8
    assert own == (8 * count, 8 * count, 2 * count)
    assert predictor.predict(size=own).process_bytes <= 30 * MIB
    assert predictor.predict(size=(8 * count + 8, 8 * count + 8, 2 * count + 2)).process_bytes > 30 * MIB
    with pytest.raises(InputError, match=r"aspect: got .* expected 3 positive numbers"):
        largest_size(predictor, MIB, aspect=(1, 2))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_part_is_left_free(device: str) -> None:
    predictor, limit = _predictor(device=device), 10 * MIB
    assert largest_batch(predictor, limit) == largest_batch(predictor, 0.9 * limit, margin=0)
    assert largest_batch(predictor, limit) < largest_batch(predictor, limit, margin=0)
    sizes = [
        largest_size(predictor, room, multiple=1, margin=share) for room, share in ((limit, 0.1), (0.9 * limit, 0))
    ]
    assert sizes[0] == sizes[1] == largest_size(predictor, limit, multiple=1)


class Halves(nn.Module):
    """Accepts multiples of 4 only."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(1, 4, 4, 4), nn.ConvTranspose2d(4, 1, 4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.up(self.down(x))


def test_the_sizes_that_a_network_accepts() -> None:
    predictor = MemoryPredictor(Halves(), torch.zeros(1, 1, 32, 32))
    assert size_multiple(predictor) == 4
    assert size_multiple(_predictor()) == 1
    found = largest_size(predictor, MIB, margin=0)
    assert found[0] % 4 == 0
    assert predictor.predict(size=found[0] + 4).process_bytes > MIB

    class OneSize(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.flatten(1))

    with pytest.raises(InputError, match="largest_size: the network accepts no other size of inputs"):
        largest_size(MemoryPredictor(OneSize(36, 2), torch.zeros(1, 1, 6, 6)), MIB)


@pytest.mark.parametrize("first", [1, 40, 3000])
@pytest.mark.parametrize("power", [1, 3])
@pytest.mark.parametrize("limit", [0, 1, 5000, 123_456, 10**9])
def test_searches_of_any_growth(first: int, power: int, limit: int) -> None:
    """Even where the memory is not linear: a step, a kink, a square."""
    for growth in (
        lambda n: n**power,
        lambda n: n * n + 7,
        lambda n: 1000 if n < 77 else 50 * n,
        lambda n: n // 100 + 1,
    ):
        asked: list[int] = []

        def predict(count: int, growth=growth, asked=asked) -> MemoryPrediction:  # type: ignore[no-untyped-def]
            asked.append(count)
            return MemoryPrediction((Moment("forward", "", ""),), (Block("activations", "", growth(count), 0, 1),))

        found = _largest(predict, limit, first, power)
        expected = max((n for n in range(1, 1 << 16) if growth(n) <= limit), default=0)
        assert found == expected
        assert len(asked) <= 24
