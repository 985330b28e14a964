"""Pictures: they show the data they are given, and their words can be read."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from ranp.experiments import plots

LAYERS = [f"encoder.{level}.conv{number}" for level in range(4) for number in (1, 2)] + ["head"]
FULL = dict(zip(LAYERS, (8, 16, 16, 32, 32, 64, 64, 128, 4), strict=True))
KEPT = {name: max(1, width // 4) for name, width in FULL.items()}


def _curve(ends: tuple[float, int, float]) -> list[dict[str, float]]:
    seconds, steps, dice = ends
    return [{"seconds": seconds * s, "steps": steps * s, "dice": dice * s} for s in (0, 0.5, 1)]


def _curves() -> Figure:
    # Ends that all but coincide, so that labels have to make room for each other.
    return plots.dice_curves({"full": _curve((80, 100, 0.881)), "pruned (5% MACs)": _curve((80, 900, 0.882))})


def _importance() -> Figure:
    generator = np.random.default_rng(0)
    stages = {name: {key: generator.random(w) for key, w in FULL.items()} for name in ("one", "two", "three")}
    return plots.importance_per_layer(stages)


def _channels() -> Figure:
    return plots.channels_kept(KEPT, FULL)


def _segmentations() -> Figure:
    image = np.linspace(0, 1, 70 * 140).reshape(70, 140)
    labels = (image * 3.99).astype(np.uint8)
    boxes = {"training": (slice(20, 98), slice(20, 134)), "validation": (slice(99, 170), slice(135, 210))}
    return plots.segmentations(
        image,
        {"truth": labels, "full\nmean Dice 0.812": labels, "pruned (5% MACs)\nmean Dice 0.901": labels[::-1]},
        ["background", "grey", "white", "other"],
        locator=(np.zeros((197, 233)), boxes, 146),
    )


def _texts(figure: Figure) -> list[tuple[Text, Any]]:
    """All words that are drawn, with the rectangles they fill."""
    FigureCanvasAgg(figure).draw()
    found = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    if figure._supxlabel:
        found.append(figure._supxlabel)
    for axes in figure.axes:
        found += [*axes.texts, axes.title, axes._left_title]
        if legend := axes.get_legend():
            found += legend.get_texts()
        if not axes.axison:
            continue
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            inside = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            found += [axis.label, *(tick.label1 for tick in inside if tick.label1.get_visible())]
    # Figure.texts holds the figure's own labels as well.
    drawn = {id(text): text for text in found if text.get_text().strip()}
    return [(text, text.get_window_extent()) for text in drawn.values()]


@pytest.mark.parametrize("make", [_curves, _importance, _channels, _segmentations])
def test_no_words_overlap_or_are_cut_off(make: Any) -> None:
    figure = make()
    texts = _texts(figure)
    assert len(texts) > 5
    for text, box in texts:
        assert figure.bbox.padded(1).containsx(box.x0), text
        assert figure.bbox.padded(1).containsx(box.x1), text
        assert figure.bbox.padded(1).containsy(box.y0), text
        assert figure.bbox.padded(1).containsy(box.y1), text
    for (one, first), (two, second) in combinations(texts, 2):
        # Turned labels have boxes far larger than their letters.
        if one.get_rotation() % 90 == 0 and two.get_rotation() % 90 == 0:
            assert not first.padded(-1).overlaps(second.padded(-1)), (one, two)


def test_curves_show_time_and_steps_of_both() -> None:
    by_time, by_steps = _curves().axes
    assert [line.get_xdata()[-1] for line in by_time.lines] == [80, 80]
    assert [line.get_xdata()[-1] for line in by_steps.lines] == [100, 900]
    assert [line.get_ydata()[-1] for line in by_steps.lines] == [0.881, 0.882]
    assert "(s)" in by_time.get_xlabel()
    colours = {text.get_text().split("\n")[0]: text.get_color() for text in by_time.texts}
    assert colours == {"full": plots.FULL_COLOUR, "pruned (5% MACs)": plots.PRUNED_COLOUR}


def test_labels_of_curves_stand_in_the_order_of_their_ends() -> None:
    heights = {text.get_text().split("\n")[1]: text.get_position()[1] for text in _curves().axes[0].texts}
    assert heights["0.882"] > heights["0.881"]


def test_channels_are_bars_with_their_numbers() -> None:
    axis = _channels().axes[0]
    grey, kept = axis.containers
    assert [bar.get_width() for bar in grey] == list(FULL.values())
    assert [bar.get_width() for bar in kept] == list(KEPT.values())
    assert axis.get_xlim()[1] > max(FULL.values())
    assert [text.get_text() for text in axis.texts] == [f"{KEPT[name]} of {FULL[name]}" for name in LAYERS]


def test_importance_has_a_panel_per_stage_and_a_mean_per_layer() -> None:
    scores = {"a": np.array([1.0, 3.0]), "b": np.array([0.0, 0.5, 1.0])}
    figure = plots.importance_per_layer({"raw": scores, "after": {name: 2 * s for name, s in scores.items()}})
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["raw", "after"]
    assert [axis.lines[0].get_ydata().tolist() for axis in figure.axes] == [[2.0, 0.5], [4.0, 1.0]]
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == ["a", "b"]


def test_segmentations_show_the_labels_upright() -> None:
    labels = np.array([[0, 1, 2], [3, 0, 0]])
    box = {"here": (slice(0, 2), slice(0, 2))}
    figure = plots.segmentations(labels / 3, {"truth": labels}, "abcd", locator=(labels / 3, box, 1))
    shown = figure.axes[2].images[0]
    assert np.array_equal(shown.get_array(), labels.T)
    assert shown.origin == "lower"


def test_figures_belong_to_nobody_else() -> None:
    import matplotlib.pyplot

    _channels()
    assert matplotlib.pyplot.get_fignums() == []
