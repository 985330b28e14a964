import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ranp.experiments.reproduce import selection
from ranp.scoring import normalize_layer_means, reweight_by_resource

PARITY = Path(__file__).parents[2] / "data_files" / "parity_unet3d15_shapenet.json"


@pytest.fixture(scope="module")
def parity() -> dict[str, Any]:
    return json.loads(PARITY.read_text())


@pytest.mark.parametrize("method", ["vanilla", "weighted", "ranp-m", "ranp-f"])
def test_keeps_the_neurons_of_the_parity_data(parity: dict[str, Any], method: str) -> None:
    importance = {f"layer{i:02}": np.array(values) for i, values in enumerate(parity["neuron_importance"])}
    scores: selection.Scores = importance if method == "vanilla" else normalize_layer_means(importance)
    if method.startswith("ranp"):
        kind = {"ranp-f": "resource_macs", "ranp-m": "resource_activations"}[method]
        scores = reweight_by_resource(scores, dict(zip(importance, parity[kind], strict=True)), parity["lambda"])
    kept = selection.top_of_network(scores, parity["sparsity"], output="layer14")
    assert [mask.sum() for mask in kept.values()] == parity["kept_before_cleaning"][method]
    assert [np.flatnonzero(mask).tolist() for mask in kept.values()] == parity["kept_indices"][method]


def arrays(**values: list[float]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.array(value, dtype=np.float64) for name, value in values.items()}


def indices(kept: selection.Kept) -> dict[str, list[int]]:
    return {name: np.flatnonzero(mask).tolist() for name, mask in kept.items()}


@pytest.mark.parametrize(
    ("sparsity", "expected"),
    [
        (0.0, {"a": [0, 1, 2], "b": [0, 1], "out": [0, 1]}),
        (0.5, {"a": [1, 2], "b": [], "out": [0, 1]}),  # int(3.5) = 3, the output's own 9 among them
        (0.7, {"a": [1, 2], "b": [], "out": [0, 1]}),  # int(2.1) = 2, and the tie stays
        (0.9, {"a": [], "b": [], "out": [0, 1]}),  # int(0.7) = 0
    ],
)
def test_top_of_network_by_hand(sparsity: float, expected: dict[str, list[int]]) -> None:
    scores = arrays(a=[1, 5, 5], b=[2, 3], out=[9, 0])
    assert indices(selection.top_of_network(scores, sparsity, "out")) == expected


def test_counts_do_not_suffer_from_rounding() -> None:
    scores = arrays(a=list(range(100)))
    assert 100 * (1 - 0.78) < 22 < 1000 * (1 - 0.978)  # what floating point makes of them
    assert selection.top_of_network(scores, 0.78, "")["a"].sum() == 22
    assert selection.top_of_each_layer(arrays(a=list(range(1000))), 0.978, "")["a"].sum() == 22


def test_top_of_each_layer_rounds_up() -> None:
    scores = arrays(a=[3, 1, 2], b=[1], out=[0, 1])
    expected = {"a": [0, 2], "b": [0], "out": [0, 1]}
    assert indices(selection.top_of_each_layer(scores, 0.5, "out")) == expected


def test_random_ranks_are_a_seeded_permutation() -> None:
    scores = arrays(a=[0] * 30, b=[0] * 20)
    ranks = selection.random_scores(scores, seed=1)
    assert sorted(np.concatenate(list(ranks.values()))) == list(range(50))
    assert {name: len(rank) for name, rank in ranks.items()} == {"a": 30, "b": 20}
    again, other = selection.random_scores(scores, seed=1), selection.random_scores(scores, seed=2)
    assert all(np.array_equal(ranks[name], again[name]) for name in ranks)
    assert not np.array_equal(ranks["a"], other["a"])


def test_snip_keeps_the_connections_of_the_largest_parameters() -> None:
    saliency = {
        "a": np.array([[[9, 0]], [[7, 7]]], dtype=np.float32),
        "out": np.array([[[0, 2], [3, 8]]], dtype=np.float32),
    }
    links = selection.top_parameters(saliency, 0.75, "out")  # 2 of 8: the 9 and the 8, not 7 + 7
    assert links["a"].tolist() == [[True], [False]]
    assert links["out"].tolist() == [[True, True]]


# in -> a (2) -> b (2) -> [a, b] -> c (2) -> out (1): c reads a and b side by side.
READS = {name: np.array(i) for name, i in {"a": [-1], "b": [0, 1], "c": [0, 1, 2, 3], "out": [4, 5]}.items()}
MAKES = {name: np.array(i) for name, i in {"a": [0, 1], "b": [2, 3], "c": [4, 5], "out": [-1]}.items()}


def links(**values: list[list[int]]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.array(value, dtype=np.bool_) for name, value in values.items()}


@pytest.mark.parametrize(
    ("connections", "expected"),
    [
        # Nothing is dead.
        (
            links(a=[[1], [1]], b=[[1, 1], [1, 1]], c=[[1, 1, 1, 1]] * 2, out=[[1, 1]]),
            {"a": [0, 1], "b": [0, 1], "c": [0, 1], "out": [0]},
        ),
        # Without a, nothing feeds b and c: forward.
        (
            links(a=[[0], [0]], b=[[1, 1], [1, 1]], c=[[1, 1, 1, 1]] * 2, out=[[1, 1]]),
            {"a": [], "b": [], "c": [], "out": [0]},
        ),
        # Without c, nothing reads a and b: backward.
        (
            links(a=[[1], [1]], b=[[1, 1], [1, 1]], c=[[0, 0, 0, 0]] * 2, out=[[1, 1]]),
            {"a": [], "b": [], "c": [], "out": [0]},
        ),
        # a0 lost its own parameters; b0 reads only a0, so it has no input; c1 is read by nobody and
        # alone reads b1; a1 is read by c0 over the skip.
        (
            links(a=[[0], [1]], b=[[1, 0], [0, 1]], c=[[0, 1, 1, 0], [0, 1, 0, 1]], out=[[1, 0]]),
            {"a": [1], "b": [], "c": [0], "out": [0]},
        ),
    ],
)
def test_dead_ends_by_hand(connections: selection.Connections, expected: dict[str, list[int]]) -> None:
    before = {name: link.copy() for name, link in connections.items()}
    assert indices(selection.without_dead_ends(connections, READS, MAKES)) == expected
    assert all(np.array_equal(before[name], link) for name, link in connections.items())


def test_what_is_kept_lies_on_a_path_from_input_to_output() -> None:
    random = np.random.default_rng(0)
    removed = 0
    for _ in range(300):
        drawn = {name: random.random((len(MAKES[name]), len(READS[name]))) < 0.4 for name in READS}
        kept = selection.without_dead_ends(drawn, READS, MAKES)
        alive = on_paths(drawn)
        for name in ("a", "b", "c"):
            assert kept[name].tolist() == [channel in alive for channel in MAKES[name]]
            removed += int((drawn[name].any(axis=1) & ~kept[name]).sum())
    assert removed > 100


def on_paths(drawn: dict[str, np.ndarray[Any, Any]]) -> set[int]:
    """Channels on any path, by listing all paths backwards from the output."""
    maker = {channel: (name, i) for name in ("a", "b", "c") for i, channel in enumerate(MAKES[name].tolist())}

    def paths(name: str, neuron: int) -> list[set[int]]:
        found: list[set[int]] = []
        for link, channel in zip(drawn[name][neuron], READS[name].tolist(), strict=True):
            if link and channel < 0:
                found.append(set())
            elif link:
                found += [path | {channel} for path in paths(*maker[channel])]
        return found

    return set().union(*paths("out", 0))


def test_the_guard_gives_empty_layers_their_best_neuron_only() -> None:
    kept = {"a": np.array([False, False, False]), "b": np.array([False, True])}
    guarded = selection.with_best_neurons(kept, arrays(a=[1, 3, 2], b=[5, 1]))
    assert selection.empty_layers(kept) == ["a"]
    assert indices(guarded) == {"a": [1], "b": [1]}
    assert not kept["a"].any()


def test_max_sparsity_is_feasible_and_the_next_step_is_not() -> None:
    for limit in (0.0, 0.3, 0.78123, 0.9999):
        found = selection.max_sparsity(lambda sparsity, limit=limit: sparsity <= limit)
        assert limit - 1e-4 <= found <= limit
    scores = arrays(a=[1, 2], b=[3, 4, 5], out=[6])
    most = selection.max_sparsity(
        lambda sparsity: not selection.empty_layers(selection.top_of_network(scores, sparsity, "out"))
    )
    assert math.isclose(most, 1 / 6, abs_tol=1e-4)  # five of six neurons must stay for a to have one
