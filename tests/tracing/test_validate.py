"""The search for groups whose width a forward relies on, with made-up forwards for which the answer is known."""

from collections.abc import Sequence
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from ranp.tracing._validate import Note, Violation, blocking_groups

GROUPS = frozenset(range(12))


class Forward:
    """Operators, each with the groups in its outputs and those that need their full width for it to work."""

    def __init__(self, *operators: tuple[set[int], set[int]], ends: bool = False) -> None:
        self.operators, self.ends, self.attempts = operators, ends, 0

    def attempt(self, groups: frozenset[int]) -> Sequence[Violation]:
        """What fails when these groups are resized; only the first where a failure ends the forward."""
        self.attempts += 1
        found = [
            Violation(position, Note("", str(position), ""), frozenset(() if self.ends else own), self.ends)
            for position, (own, needed) in enumerate(self.operators)
            if needed & groups
        ]
        return found[:1] if self.ends else found

    def latest(self, position: int) -> list[int]:
        """Groups of operators up to that one, the latest first."""
        own = [sorted(own) for own, _ in self.operators[: position + 1]]
        return list(dict.fromkeys(chain(*reversed(own))))

    def found(self) -> dict[int, Note]:
        return blocking_groups(GROUPS, self.attempt(GROUPS), self.attempt, self.latest)

    def all_found(self) -> set[int]:
        """What is found until nothing fails any more."""
        groups = GROUPS
        while groups and (violations := self.attempt(groups)):
            groups = groups.difference(blocking_groups(groups, violations, self.attempt, self.latest))
        return {*GROUPS - groups}


def test_one_of_several_groups() -> None:
    assert {*Forward(({0, 1, 2, 3}, {2})).found()} == {2}
    assert {*Forward(({0, 1, 2, 3}, {2}), ends=True).found()} == {2}


def test_where_one_is_not_enough_it_is_all_up_to_the_last() -> None:
    assert {*Forward(({0, 1, 2, 3}, {0, 2})).found()} == {0, 1, 2}


def test_operators_that_share_no_groups_share_attempts() -> None:
    one = Forward(({0, 1, 2, 3}, {0, 3}))
    three = Forward(({0, 1, 2, 3}, {0, 3}), ({4, 5, 6, 7}, {4, 7}), ({8, 9, 10, 11}, {8, 11}))
    assert [note.operator for note in three.found().values()] == ["0"] * 4 + ["1"] * 4 + ["2"] * 4
    one.found()
    assert three.attempts == one.attempts + 2  # each is confirmed alone


def test_what_operators_share_is_searched_for_the_first() -> None:
    found = Forward(({0, 1}, {1}), ({1, 2}, {1})).found()
    assert {group: note.operator for group, note in found.items()} == {1: "0"}


def test_a_cause_elsewhere_does_not_block_an_operators_own_groups() -> None:
    # The second relies on a group of the first, which keeps its full width anyway.
    found = Forward(({0, 1}, {0}), ({2, 3}, {0})).found()
    assert {group: note.operator for group, note in found.items()} == {0: "0"}
    assert {*Forward(({4, 5}, set()), ({2, 3}, {5})).found()} == {5}


OPERATORS = st.lists(st.tuples(st.sets(st.integers(0, 11), min_size=2), st.sets(st.integers(0, 11), max_size=3)))


@given(OPERATORS, st.booleans())
def test_the_search_finds_all_groups_that_are_relied_on(operators: list[tuple[set[int], set[int]]], ends: bool) -> None:
    known = [
        (own, needed & set(chain(*(own for own, _ in operators[: n + 1])))) for n, (own, needed) in enumerate(operators)
    ]
    assert Forward(*known, ends=ends).all_found() >= set(chain(*(needed for _, needed in known)))


@given(st.sets(st.integers(0, 11), min_size=1), st.booleans())
def test_no_more_is_found_than_one_group_or_all_up_to_the_last(needed: set[int], ends: bool) -> None:
    expected = needed if len(needed) == 1 else {*range(max(needed) + 1)}
    assert Forward(({*GROUPS}, needed), ends=ends).all_found() == expected
