"""Settings of nnU-Net's trainer, which do not need nnU-Net."""

import importlib
import sys

import pytest

from ranp import Budget, RanpError
from ranp.integrations.settings import NnUNetPruning


def test_the_environment_changes_what_it_names() -> None:
    mine = NnUNetPruning(Budget(macs=0.3, params=0.5), criterion="snip", batches=7)
    assert mine.changed_by({"HOME": "/", "nnUNet_raw": "/raw"}) == mine
    assert mine.changed_by({"nnUNet_ranp_activations": "0.25"}).budget == Budget(activations=0.25)
    found = mine.changed_by({"nnUNet_ranp_importance": "neuron", "nnUNet_ranp_round_to": "8"})
    assert (found.importance, found.round_to, found.criterion, found.batches) == ("neuron", 8, "snip", 7)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("budget", "0.1", "nnUNet_ranp_budget"),
        ("batchs", "3", "did you mean 'batches'"),
        ("macs", "5 ms", "5 ms"),
        ("step_time", "80", '"80%"'),
        ("macs", "2", "a fraction"),
        ("batches", "0", "at least 1"),
        ("batches", "1.5", "an integer"),
        ("resource_weight", "much", "a number"),
        ("seed", "-1", "at least 0"),
    ],
)
def test_what_the_environment_says_wrongly_is_refused(name: str, text: str, said: str) -> None:
    with pytest.raises(RanpError, match=said):
        NnUNetPruning().changed_by({f"nnUNet_ranp_{name}": text})


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nnunetv2", None)
    monkeypatch.delitem(sys.modules, "ranp.integrations.nnunet", raising=False)
    with pytest.raises(RanpError, match=r"the package nnunetv2 is not installed .* pip install 'ranp\[nnunet\]'"):
        importlib.import_module("ranp.integrations.nnunet")
