"""Making a network smaller while something holds for it."""

from collections.abc import Callable, Iterator

from helpers.random_networks._writer import Step

Spec = tuple[Step, ...]


def shrunk(spec: Spec, holds: Callable[[Spec], bool], *, attempts: int = 400) -> Spec:
    """A network that is as small as possible, among those that `holds` accepts.

    Steps are left out, and choices are replaced by the first option, until neither is accepted any more.
    """
    progress = True
    while progress:
        progress = False
        for make in (_without_steps, _with_plain_inputs, _without_outputs, _with_first_options):
            index = 0
            while (candidate := make(spec, index)) is not None and attempts:
                attempts -= 1
                if candidate != spec and holds(candidate):
                    spec, progress = candidate, True
                else:
                    index += 1
    return spec


def _without_steps(spec: Spec, index: int) -> Spec | None:
    """Leave out three, two or one steps, the last ones first."""
    inner = len(spec) - 2
    for count in (3, 2, 1):
        places = max(0, inner - count + 1)
        if index < places:
            last = inner - index
            for number in range(last, last - count, -1):
                spec = _without(spec, number)
            return spec
        index -= places
    return None


def _without(spec: Spec, number: int) -> Spec:
    """Leave out a step; what takes its results takes its first source instead."""
    source = spec[number].sources[0] if spec[number].sources else (0, 0)

    def moved(place: tuple[int, int]) -> tuple[int, int]:
        place = source if place[0] == number else place
        return (place[0] - (place[0] > number), place[1])

    kept = [step for index, step in enumerate(spec) if index != number]
    return tuple(step._replace(sources=tuple(moved(place) for place in step.sources)) for step in kept)


def _with_plain_inputs(spec: Spec, index: int) -> Spec | None:
    """Take the first options for the inputs, and leave out a step, which may have adapted them to what follows."""
    inner = len(spec) - 2
    return (
        None
        if index > inner or not spec[0].choices
        else (Step("inputs"), *(_without(spec, index) if index else spec)[1:])
    )


def _without_outputs(spec: Spec, index: int) -> Spec | None:
    last = spec[-1]
    if len(last.sources) < 2 or index >= len(last.sources):
        return None
    return (*spec[:-1], last._replace(sources=last.sources[:index] + last.sources[index + 1 :]))


def _with_first_options(spec: Spec, index: int) -> Spec | None:
    """Replace one choice, of those that are not the first option yet."""
    for number, place in _choices(spec):
        if index == 0:
            step = spec[number]
            choices = (*step.choices[:place], None, *step.choices[place + 1 :])
            return (*spec[:number], step._replace(choices=choices), *spec[number + 1 :])
        index -= 1
    return None


def _choices(spec: Spec) -> Iterator[tuple[int, int]]:
    for number, step in enumerate(spec):
        for place, choice in enumerate(step.choices):
            if choice is not None:
                yield number, place
