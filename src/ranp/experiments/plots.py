"""Plots of a pruned network and of training; needs matplotlib (`pip install 'ranp[plots]'`).

Every function takes plain data and returns a `matplotlib.figure.Figure` that is not registered with pyplot.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ranp.criteria import CRITERIA
from ranp.optional import optional_import

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which color-blind readers can tell apart, and whose colors differ in lightness as well.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
FULL_COLOR, PRUNED_COLOR = PALETTE[:2]
METHOD_COLORS = {"none": "#000000", **{name: criterion.color for name, criterion in CRITERIA.items()}}
"""A color for each way to prune; `none` is the full network."""
LIGHT_GRAY, DARK_GRAY = "#D9D9D9", "#222222"
_BOX_COLORS = ("#F0E442", "#CC79A7", "#56B4E9")
_CLASS_COLORS = ("#000000", "#E69F00", "#F0F0F0", "#56B4E9", "#CC79A7", "#009E73")

Floats = npt.NDArray[np.floating[Any]]


def dice_curves(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> "Figure":
    """Dice against time and against steps: one line per network, whose points have `seconds`, `steps` and `dice`."""
    figure, axes = panels(11, 4.4, 1, 2, sharey=True)
    for axis, key, label in zip(axes, ("seconds", "steps"), ("training time (s)", "training steps"), strict=True):
        for curve, color in zip(curves.values(), PALETTE, strict=False):
            x, y = [point[key] for point in curve], [point["dice"] for point in curve]
            axis.plot(x, y, color=color, marker="o", markersize=4, linewidth=2, clip_on=False)
        _label_ends(axis, {name: curve[-1]["dice"] for name, curve in curves.items()})
        style_panel(axis, f"Dice against {'time' if key == 'seconds' else 'steps'}", grid=True)
        axis.set(xlabel=label, xlim=(0, None), ylim=(0, 1))
        axis.tick_params(labelleft=True)
    axes[0].set_ylabel("mean Dice of the tissues, validation")
    return figure


def _label_ends(axis: "Axes", ends: Mapping[str, float]) -> None:
    """Label each line at its end, to the right of the panel, without overlaps."""
    spacing = 0.13
    below = 1.0 + spacing
    style: dict[str, Any] = {"va": "center", "transform": axis.transAxes, "fontweight": "bold"}
    for (name, y), color in sorted(zip(ends.items(), PALETTE, strict=False), key=lambda item: -item[0][1]):
        below = min(y, below - spacing)
        axis.text(1.02, below, f"{name}\n{y:.3f}", color=color, **style)


def importance_per_layer(stages: Mapping[str, Mapping[str, Floats]]) -> "Figure":
    """Importance of the neurons of each layer, before and after every reweighting: one panel per stage.

    A bar spans the middle 80% of the neurons of a layer, a thin line all of them; a dot is their mean. `stages` maps
    the name of a stage to the name of a layer to the importance of each of its neurons.
    """
    layers = list(next(iter(stages.values())))
    figure, axes = panels(9, 1.6 + 1.9 * len(stages), len(stages), 1, sharex=True, squeeze=False)
    for axis, (stage, scores) in zip(axes.flat, stages.items(), strict=True):
        columns = [np.asarray(scores[layer], dtype=float) for layer in layers]
        lowest, low, high, highest = (np.array([np.quantile(each, q) for each in columns]) for q in (0, 0.1, 0.9, 1))
        positions = range(len(layers))
        axis.vlines(positions, lowest, highest, color=FULL_COLOR, linewidth=1)
        axis.bar(positions, high - low, bottom=low, width=0.55, color=FULL_COLOR, alpha=0.35)
        axis.plot(positions, [each.mean() for each in columns], "o", color=FULL_COLOR, markersize=6)
        # Linear and from zero, so that a layer far below the others is visibly close to zero.
        axis.set_ylim(bottom=0)
        axis.set_axisbelow(True)
        axis.set_ylabel("importance")
        style_panel(axis, stage, grid=True)
    name_layers(axis, layers)
    axis.set_xlim(-0.6, len(layers) - 0.4)
    figure.supxlabel("dot: mean of the layer's neurons   bar: middle 80%   line: all", fontsize=9, color=DARK_GRAY)
    return figure


def channels_kept(widths: Mapping[str, int], full_widths: Mapping[str, int]) -> "Figure":
    """Output channels of every layer, before and after pruning."""
    layers = list(full_widths)
    figure, axis = panels(8, 1.4 + 0.33 * len(layers))
    positions = np.arange(len(layers))
    before, after = ([each[layer] for layer in layers] for each in (full_widths, widths))
    axis.barh(positions, before, color=LIGHT_GRAY, height=0.72, label="full")
    axis.barh(positions, after, color=PRUNED_COLOR, height=0.72, label="kept")
    for position, kept, total in zip(positions, after, before, strict=True):
        text = f"{kept} of {total}"
        axis.annotate(text, (total, position), (5, 0), textcoords="offset points", va="center", color=DARK_GRAY)
    axis.set_yticks(positions, layers)
    axis.set(xlabel="output channels", xlim=(0, 1.15 * max(before)), ylim=(len(layers) - 0.4, -0.6))
    axis.tick_params(axis="y", length=0)
    axis.legend(frameon=False, loc="lower right")
    style_panel(axis, "Channels kept per layer")
    return figure


def segmentations(
    image: Floats,
    labels: Mapping[str, npt.NDArray[np.integer[Any]]],
    classes: Sequence[str],
    *,
    locator: tuple[Floats, Mapping[str, tuple[slice, ...]], int],
) -> "Figure":
    """A slice and several segmentations of it, `(width, height)`, next to a section that shows where the slice is.

    `locator` is a section that the slice cuts, `(width, depth)`; named boxes in it; and the depth of the slice, which
    is drawn as a line across the last box.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    ratios = [1.25] + [1] * (1 + len(labels))
    figure, axes = panels(2.5 * len(ratios), 5, 1, len(ratios), width_ratios=ratios)
    _draw_locator(axes[0], *locator)
    axes[1].imshow(image.T, origin="lower", cmap="gray")
    axes[1].set_title("T1 image", fontsize=11)
    colors = ListedColormap(_CLASS_COLORS[: len(classes)])
    for axis, (title, label) in zip(axes[2:], labels.items(), strict=True):
        limits = {"vmin": -0.5, "vmax": len(classes) - 0.5}
        axis.imshow(label.T, origin="lower", cmap=colors, interpolation="nearest", **limits)
        axis.set_title(title, fontsize=11)
    for axis in axes:
        axis.set_axis_off()
    named = zip(classes, _CLASS_COLORS, strict=False)
    patches = [Patch(facecolor=color, edgecolor="#666666", label=name) for name, color in named]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(classes), frameon=False, fontsize=10)
    return figure


def _draw_locator(axis: "Axes", section: Floats, boxes: Mapping[str, tuple[slice, ...]], depth: int) -> None:
    from matplotlib.patches import Rectangle

    axis.imshow(section.T, origin="lower", cmap="gray")
    for (name, (across, along)), color in zip(boxes.items(), _BOX_COLORS, strict=False):
        corner, size = (across.start, along.start), (across.stop - across.start, along.stop - along.start)
        axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor=color, linewidth=2.5))
        # Outside the brain, where the section is black.
        above = along.stop > 0.6 * section.shape[1]
        edge, side = (along.stop + 3, "bottom") if above else (along.start - 3, "top")
        middle = (across.start + across.stop) / 2
        axis.text(middle, edge, name, color=color, ha="center", va=side, fontweight="bold")
    axis.hlines(depth, across.start, across.stop, color="white", linewidth=1.5, linestyle="--")
    axis.set_title("seen from above", fontsize=11)


def panels(width: float, height: float, rows: int = 1, columns: int = 1, **how: Any) -> "tuple[Figure, Any]":
    """A white figure, its size in inches, that is not registered with pyplot; and its empty panels."""
    figure: Figure = optional_import("matplotlib.figure", "plots", extra="plots").Figure(
        figsize=(width, height), dpi=150, layout="constrained", facecolor="white"
    )
    return figure, figure.subplots(rows, columns, **how)


def name_layers(axis: "Axes", layers: Sequence[str]) -> None:
    """Write the names of layers below the panel."""
    axis.set_xticks(range(len(layers)), layers, rotation=40, ha="right", rotation_mode="anchor")


def style_panel(axis: "Axes", title: str, *, grid: bool = False) -> None:
    """Set the title of a panel, remove the spines at its top and right, and add horizontal grid lines if wanted."""
    if grid:
        axis.grid(axis="y", color=LIGHT_GRAY, linewidth=0.8)
    axis.set_title(title, loc="left", fontsize=12, fontweight="bold", color=DARK_GRAY)
    axis.spines[["top", "right"]].set_visible(False)
