"""Drawing a network by a number."""

import contextlib
import random
import warnings
from collections.abc import Iterator
from itertools import count

import torch

from helpers.random_networks._writer import KINDS, Kind, Layout, Step, UnfitError, Writer

# From one layout to another, where a step asks for one that there is not.
CONVERSIONS: dict[tuple[Layout, Layout], tuple[str, ...]] = {
    ("image", "tokens"): ("image_to_tokens",),
    ("image", "vector"): ("global_pooling",),
    ("tokens", "image"): ("tokens_to_image",),
    ("tokens", "vector"): ("tokens_to_vector",),
    ("vector", "tokens"): ("vector_to_tokens",),
    ("vector", "image"): ("vector_to_image",),
}
# Steps that a network is built around, and how often drawing one is tried before it is left out.
FEATURED = 3
ATTEMPTS = 12
LAYERS: dict[Layout, str] = {"image": "convolution", "tokens": "linear", "vector": "linear_of_vectors"}


def featured(number: int) -> list[tuple[str, int]]:
    """Kinds and variants that a network features; numbers that follow each other go through all of them."""
    found = [(name, variant) for name, kind in KINDS.items() if kind.weight for variant in range(kind.variants)]
    return [found[(FEATURED * number + place) % len(found)] for place in range(FEATURED)]


class Drawer:
    """Draws one step after the other."""

    def __init__(self, generator: random.Random) -> None:
        self.generator, self.writer = generator, Writer(generator)
        kinds = {name: kind for name, kind in KINDS.items() if kind.weight}
        self.names, self.weights = [*kinds], [kind.weight for kind in kinds.values()]

    def draw(self, wanted: list[tuple[str, int]]) -> bool:
        """Write a network; whether it has all the steps that are wanted."""
        rng = self.generator
        self._add("inputs", ())
        if rng.random() < 0.9:
            self._layer()
        steps = [*wanted, *((rng.choices(self.names, self.weights)[0], None) for _ in range(rng.randint(0, 6)))]
        rng.shuffle(steps)
        placed = [self._place(name, variant) for name, variant in steps]
        numbers = [number for number, values in enumerate(self.writer.values) if number and values]
        if not numbers:
            raise UnfitError("no step fits")
        others = [rng.choice(numbers) for _ in range(rng.choice((0, 0, 0, 1, 2)))]
        self._add("outputs", tuple((number, 0) for number in dict.fromkeys((numbers[-1], *others))))
        return all(placed[index] for index, step in enumerate(steps) if step in wanted)

    def _add(self, kind: str, sources: tuple[tuple[int, int], ...], variant: int | None = None) -> None:
        self.writer.add(Step(kind, sources), variant)

    def _layer(self) -> None:
        """A layer of the latest value."""
        self._place(LAYERS[self.writer.values[-1][0].layout], None)

    def _place(self, name: str, variant: int | None) -> bool:
        """Add a step; whether that was possible."""
        for attempt in range(ATTEMPTS):
            try:
                if attempt == ATTEMPTS // 2:
                    self._layer()  # Another number of channels may fit.
                self._add(name, self._sources(KINDS[name]), variant)
            except UnfitError:
                continue
            return True
        return False

    def _sources(self, kind: Kind) -> tuple[tuple[int, int], ...]:
        """Values of the layouts that a step takes: recent ones are likelier, and the first is the latest."""
        found: list[tuple[int, int]] = []
        for layout in kind.layouts:
            fitting = self._of_layout(layout)
            if not fitting:
                self._convert(layout)
                fitting = self._of_layout(layout)
            if not fitting:
                raise UnfitError(f"no {layout}")
            back = self.generator.choice((0, 0, 0, 1, 2) if not found else (0, 1, 2, 3, 4, 5))
            found.append(fitting[-1 - min(back, len(fitting) - 1)])
        return tuple(found)

    def _of_layout(self, layout: Layout) -> list[tuple[int, int]]:
        return [
            (number, index)
            for number, values in enumerate(self.writer.values)
            for index, value in enumerate(values)
            if value.layout == layout
        ]

    def _convert(self, layout: Layout) -> None:
        values = [(n, i, v) for n, values in enumerate(self.writer.values) for i, v in enumerate(values)]
        number, index, value = values[-1]
        for name in CONVERSIONS[value.layout, layout]:
            self._add(name, ((number, index),))


def drawn(number: int) -> Iterator[Writer]:
    """Networks for a number, of which the first that runs counts."""
    generator, wanted = random.Random(number), featured(number)
    for attempt in count():
        drawer = Drawer(generator)
        with contextlib.suppress(UnfitError), torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(number)
            if drawer.draw(wanted) or attempt >= ATTEMPTS:
                yield drawer.writer
