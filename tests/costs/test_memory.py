"""Peaks and compositions of blocks whose lifetimes are written by hand, and formulas by hand."""

import numpy as np

from ranp.costs.memory import Block, MemoryFormula, MemoryPrediction, Moment

MOMENTS = (
    Moment("forward", "a", "convolution", 7),
    Moment("forward", "b", "relu"),
    Moment("backward", "b", "threshold_backward"),
    Moment("backward", "a", "convolution_backward", 100),
    Moment("optimizer", "", "add_"),
)
# moment          0   1   2   3   4
# parameters     10  10  10  10  10
# activations     5  25  25   5
# temporaries            30  30
# gradients                  10  10
# all            15  35  65  55  20
BLOCKS = (
    Block("parameters", "a.weight", 10, 0, 5),
    Block("activations", "a", 5, 0, 4),
    Block("activations", "b", 20, 1, 3),
    Block("temporaries", "b", 30, 2, 4),
    Block("gradients", "a.weight", 10, 3, 5),
)
STEP = MemoryPrediction(MOMENTS, BLOCKS)


def test_the_peak_is_where_most_bytes_are_alive() -> None:
    assert STEP.live_bytes.tolist() == [15, 35, 65, 55, 20]
    assert STEP.peak_bytes == 65
    assert STEP.peak == MOMENTS[2]


def test_the_workspace_counts_while_its_operator_runs() -> None:
    assert STEP.process_bytes == 155


def test_the_composition_is_that_at_the_peak() -> None:
    composition = STEP.composition
    assert {kind: size for kind, size in composition.items() if size} == {
        "parameters": 10,
        "activations": 25,
        "temporaries": 30,
    }
    assert sum(composition.values()) == STEP.peak_bytes
    assert STEP.by_path() == {"b": 50, "a": 5}
    assert list(STEP.by_path()) == ["b", "a"]


def test_the_timeline_shows_every_kind_over_time() -> None:
    assert STEP.timeline["activations"].tolist() == [5, 25, 25, 5, 0]
    assert STEP.timeline["gradients"].tolist() == [0, 0, 0, 10, 10]


def test_a_formula_is_the_largest_sum_of_products() -> None:
    # Axes 1, w0 and w0 + 2 w1; moments 100 + 3 w0 and 5 w0 (w0 + 2 w1).
    axes = np.array([[0, 0, 1], [1, 0, 0], [1, 2, 0]])
    formula = MemoryFormula(axes, np.array([[0, 0], [0, 1], [1, 2]]), np.array([[100, 3, 0], [0, 0, 5]]))
    assert formula.evaluate(np.array([2, 1])) == max(100 + 6, 5 * 2 * 4) == 106
    assert formula.evaluate(np.array([4, 3])) == max(100 + 12, 5 * 4 * 10) == 200
