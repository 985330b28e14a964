"""The random split of names."""

import pytest

from ranp.experiments.data._base import split_names


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.24, 2), (0.5, 5), (0.99, 9)])
def test_both_parts_of_a_split_are_nonempty(share: float, count: int) -> None:
    names = [f"case{number}" for number in range(10)]
    first, second = split_names(names, share, seed=3)
    assert (len(second), len(first)) == (count, 10 - count)
    assert sorted(first + second) == names
    assert split_names(names[::-1], share, seed=3) == (first, second)
