"""Artifacts that were changed at random end in a result or in an error of ranp: the first of `make fuzz`."""

import pytest

from fuzz_artifacts import Fuzzer

CHANGES, PARTS = 400, 4


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Fuzzer:
    return Fuzzer(tmp_path_factory.mktemp("fuzzed"))


@pytest.mark.parametrize("part", range(PARTS))
def test_changed_artifacts_are_read_or_refused(part: int, fuzzer: Fuzzer) -> None:
    outcomes = [fuzzer.run(number) for number in range(part, CHANGES, PARTS)]
    assert not [outcome for outcome in outcomes if outcome.status == "failed"]
    # Most changes do damage, and some do none.
    assert 0 < sum(outcome.status == "accepted" for outcome in outcomes) < CHANGES / PARTS / 3
