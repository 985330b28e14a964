"""Drawing a network by a number."""

import contextlib
import random
import warnings
from collections.abc import Iterator

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
ATTEMPTS = 40


class Drawer:
    """Draws one step after the other."""

    def __init__(self, generator: random.Random) -> None:
        self.generator, self.writer = generator, Writer(generator)
        kinds = {name: kind for name, kind in KINDS.items() if kind.weight}
        self.names, self.weights = [*kinds], [kind.weight for kind in kinds.values()]

    def draw(self, featured: str) -> None:
        """Write a network that has a step of the given kind, unless none fits."""
        rng = self.generator
        self._add("inputs", ())
        if rng.random() < 0.9:
            self._layer()
        count = rng.randint(2, 9)
        place = rng.randrange(count)
        for number in range(count):
            self._place(featured if number == place else rng.choices(self.names, self.weights)[0])
        if rng.random() < 0.8:
            self._layer()
        numbers = [number for number, values in enumerate(self.writer.values) if number and values]
        if not numbers:
            raise UnfitError("no step fits")
        last = numbers[-1]
        others = [rng.choice(numbers) for _ in range(rng.choice((0, 0, 0, 1, 2)))]
        self._add("outputs", tuple((number, 0) for number in dict.fromkeys((last, *others))))

    def _add(self, kind: str, sources: tuple[tuple[int, int], ...]) -> None:
        self.writer.add(Step(kind, sources))

    def _layer(self) -> None:
        """A layer of the latest value, as most networks have at their beginning and before their head."""
        self._place({"image": "convolution", "tokens": "linear", "vector": "linear_of_vectors"}[self.writer.values[-1][0].layout])

    def _place(self, name: str) -> None:
        """Add a step; after some attempts it is left out."""
        for _ in range(ATTEMPTS):
            try:
                self._add(name, self._sources(KINDS[name]))
            except UnfitError:
                continue
            return

    def _sources(self, kind: Kind) -> tuple[tuple[int, int], ...]:
        """Values of the layouts that a step takes: recent ones are likelier, and the first is the latest if it may be."""
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


def drawn(seed: int) -> Iterator[Writer]:
    """Networks for a number, of which the first that runs counts.

    Numbers that follow each other feature each kind of step in turn.
    """
    names = [name for name, kind in KINDS.items() if kind.weight]
    generator = random.Random(seed)
    while True:
        drawer = Drawer(generator)
        with contextlib.suppress(UnfitError), torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            drawer.draw(names[seed % len(names)])
            yield drawer.writer
