"""The list of criteria: formulas by hand, and that everything that lists criteria agrees with it."""

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ranp.criteria import CRITERIA, criterion_named, normalize_layer_means, reweight_by_resource
from ranp.errors import InputError

PAGE = Path(__file__).parents[1] / "docs" / "criteria.md"


def test_normalized_layer_means_by_hand() -> None:
    found = normalize_layer_means({"a": np.array([1.0, 3.0]), "b": np.array([4.0, 0.0, 8.0]), "dead": np.zeros(2)})
    assert found["a"].tolist() == [2.0, 6.0]
    assert found["b"].tolist() == [4.0, 0.0, 8.0]
    assert found["dead"].tolist() == [0.0, 0.0]


def test_reweighting_by_resource_by_hand() -> None:
    scores = {"costly": np.array([1.0, 2.0]), "cheap": np.array([3.0])}
    macs = {"costly": 400.0, "cheap": 100.0}
    found = reweight_by_resource(scores, macs, resource_weight=10.0)
    # softmax of (-1, -1/4)
    costly, cheap = math.exp(-1.0), math.exp(-0.25)
    factor = 1 + 10 * costly / (costly + cheap)
    np.testing.assert_allclose(found["costly"], [factor, 2 * factor])
    np.testing.assert_allclose(found["cheap"], [3 * (1 + 10 * cheap / (costly + cheap))])
    assert reweight_by_resource(scores, macs, resource_weight=0.0)["costly"].tolist() == [1.0, 2.0]


def test_names_are_keys_and_colors_differ() -> None:
    assert [criterion.name for criterion in CRITERIA.values()] == list(CRITERIA)
    colors = [criterion.color for criterion in CRITERIA.values()]
    assert len(set(colors)) == len(colors)
    assert all(re.fullmatch("#[0-9A-F]{6}", color) for color in colors)


def test_the_list_cannot_be_changed() -> None:
    with pytest.raises(TypeError, match="does not support item assignment"):
        CRITERIA["mine"] = CRITERIA["vanilla"]  # type: ignore[index]


def test_unknown_names_are_refused() -> None:
    assert criterion_named("snip") is CRITERIA["snip"]
    with pytest.raises(InputError, match=r"^criterion: 'rapn-f' is unknown; did you mean 'ranp-f'\? known: constant"):
        criterion_named("rapn-f")


def test_the_page_lists_every_criterion_with_its_summary() -> None:
    rows = re.findall(r"^\| `(\S+)` \| (.*) \| (yes|no) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [
        (criterion.name, criterion.summary, "yes" if criterion.needs_batches else "no")
        for criterion in CRITERIA.values()
    ]


def test_the_list_is_read_without_torch() -> None:
    code = "import sys, ranp.criteria; assert 'torch' not in sys.modules and 'numpy' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
