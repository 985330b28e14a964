"""The list of criteria: how the importance of neurons becomes scores of channels.

The command line, recipes, plots and documentation take names, summaries and colors from `CRITERIA`. Nothing here needs
torch, so that they can do so quickly.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal, TypeAlias

import numpy as np

from ranp.arguments import Must, checked, require_fields
from ranp.errors import InputError, nearest
from ranp.graph import ChannelGraph, Floats
from ranp.scores import rank_within_groups

Importance: TypeAlias = Literal["parameter", "neuron"]
"""How importance is estimated: from the gradients of weights, or from those of gates on channels."""

Reduction: TypeAlias = Literal["sum", "mean", "max"]
"""From the importance of a neuron's weights to that of the neuron."""

LayerScores: TypeAlias = Mapping[str, Floats]
"""For every layer an array of shape (neurons,)."""

DEFAULT_RESOURCE_WEIGHT = 11.0

ResourceWeight: TypeAlias = Annotated[
    float, Must(lambda value: value >= 0, "a finite number of at least 0", "the paper used 11 to 80")
]


@dataclass(frozen=True)
class Criterion:
    """One way to score channels; pass it as `criterion=` to `ranp.score` or `ranp.prune`.

    Attributes:
        name: What plans and reports call it.
        summary: What it does, in one line.
        stages: A function of the graph, the importance of the neurons by layer, and the resource weight. It returns the
            steps of the criterion by name, each an array of shape (neurons,) for every layer; the last step counts.
        needs_batches: Whether it needs importance, and therefore batches and a loss; if not, `stages` gets no layers.
        uses_resource_weight: Whether the resource weight matters; plans record it only then.
        needs_step_time: Whether it needs a graph with measured step times; `ranp.prune` measures them.
        combine: How the scores of coupled neurons become the score of their channel.
        reduce: How the importance of weights becomes that of their neuron; `parameter` importance is then always used.
        finish: A function of the graph, the scores of all channels, of shape (channels,), and a seeded random
            generator, which returns the final scores.
        color: Color of its curves in plots.

    Example:
        >>> import torch, ranp
        >>> by_number = Criterion("by-number", "Keep the last channels.", needs_batches=False,
        ...                       finish=lambda graph, channels, rng: np.arange(len(channels), dtype=float))
        >>> model = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 1), torch.nn.Conv1d(4, 2, 1))
        >>> result = ranp.prune(model, torch.zeros(1, 1, 3), [], budget=ranp.Budget(macs=0.5), criterion=by_number)
        >>> result.plan.criterion, result.plan.keep
        ('by-number', {'0': (2, 3)})
    """

    name: str
    summary: str
    stages: Callable[[ChannelGraph, LayerScores, float], dict[str, LayerScores]] | None = None
    needs_batches: bool = True
    uses_resource_weight: bool = False
    needs_step_time: bool = False
    combine: Literal["sum", "max"] = "sum"
    reduce: Reduction | None = None
    finish: Callable[[ChannelGraph, Floats, np.random.Generator], Floats] | None = None
    color: str = "#999999"

    def __post_init__(self) -> None:
        require_fields(self)

    def check(self, graph: ChannelGraph) -> None:
        """Refuse a graph without step times, where the criterion needs them.

        Raises:
            InputError: It has none.
        """
        if self.needs_step_time and graph.cost().step_seconds is None:
            hint = "use ranp.prune, or graph.with_costs(step_seconds=ranp.measure_times(...))"
            raise InputError(f"criterion {self.name}", "it needs measured step times", hint=hint)

    def evaluate(
        self, graph: ChannelGraph, importance: LayerScores, resource_weight: float
    ) -> tuple[dict[str, LayerScores], Floats]:
        """The stages, and the scores of channels before `finish`, of shape (channels,).

        Raises:
            InputError: The last stage lacks a layer or has the wrong shape.
        """
        stages = {} if self.stages is None else self.stages(graph, importance, resource_weight)
        channels = np.zeros(int(graph.offsets[-1]))
        last = list(stages.values())[-1] if stages else {}
        combine = np.add if self.combine == "sum" else np.maximum
        for layer in graph.layers if last else ():
            if np.shape(last.get(layer.name, 0.0)) != (layer.width,):
                problem = f"its last stage needs an array of shape ({layer.width},) for the layer {layer.name}"
                raise InputError(f"criterion {self.name}", problem, hint="return one score per neuron for every layer")
            inside = layer.channels >= 0
            combine.at(channels, layer.channels[inside], last[layer.name][inside])
        return stages, channels


def criterion_named(criterion: str | Criterion) -> Criterion:
    """The built-in criterion of that name, or the given criterion if its name is not that of another built-in one.

    Raises:
        InputError: An unknown name (the nearest is suggested), or one that is taken.

    Example:
        >>> criterion_named("ranp-f").summary
        'RANP: normalized importance, higher in layers with few multiply-adds.'
    """
    if isinstance(criterion, Criterion):
        if CRITERIA.get(criterion.name, criterion) != criterion:
            problem = f"{criterion.name!r} is the name of a built-in criterion, and plans would confuse the two"
            raise InputError("criterion", problem, hint="choose another name for yours")
        return criterion
    if criterion not in CRITERIA:
        raise InputError("criterion", f"{criterion!r:.60} is unknown", hint=nearest(str(criterion), CRITERIA))
    return CRITERIA[criterion]


def normalize_layer_means(importance: LayerScores) -> dict[str, Floats]:
    """Weighted neuron importance (Xu et al., RANP, 3DV 2020): scale every layer to the largest layer mean.

    s~ = (max_k mean(s^k) / mean(s^l)) * s, with k over all layers. A layer without any importance keeps its zeros.

    Args:
        importance: For each layer an array of shape (neurons,).

    Example:
        >>> normalize_layer_means({"a": np.array([1.0, 3.0]), "b": np.array([10.0])})
        {'a': array([ 5., 15.]), 'b': array([10.])}
    """
    means = {name: float(values.mean()) for name, values in importance.items()}
    largest = max(means.values(), default=0.0)
    return {
        name: values * (largest / means[name]) if means[name] > 0 else values.copy()
        for name, values in importance.items()
    }


@checked
def reweight_by_resource(
    scores: LayerScores, resources: Mapping[str, float], resource_weight: ResourceWeight
) -> dict[str, Floats]:
    """Resource-aware neuron importance (Xu et al., RANP, 3DV 2020): raise layers that use little of a resource.

    s^ = (1 + resource_weight * softmax(-tau / max tau)) * s~, softmax over layers. Dividing by the largest tau keeps
    the softmax from saturating.

    Args:
        scores: For each layer an array of shape (neurons,).
        resources: The use tau of each layer, in any unit.
        resource_weight: Weight of the resource, at least 0.

    Raises:
        InputError: A weight that is negative or not finite.

    Example:
        >>> reweight_by_resource({"a": np.ones(1), "b": np.ones(1)}, {"a": 1.0, "b": 1.0}, resource_weight=2.0)
        {'a': array([2.]), 'b': array([2.])}
    """
    largest = max(resources.values(), default=1.0) or 1.0
    weights = {name: float(np.exp(-tau / largest)) for name, tau in resources.items()}
    total = sum(weights.values())
    return {name: (1 + resource_weight * weights[name] / total) * values for name, values in scores.items()}


def vanilla(graph: ChannelGraph, importance: LayerScores, resource_weight: float) -> dict[str, LayerScores]:
    """Importance as it is."""
    return {"importance": importance}


def weighted(graph: ChannelGraph, importance: LayerScores, resource_weight: float) -> dict[str, LayerScores]:
    """Importance, with the same mean in every layer."""
    return {"importance": importance, "weighted": normalize_layer_means(importance)}


def ranp_f(graph: ChannelGraph, importance: LayerScores, resource_weight: float) -> dict[str, LayerScores]:
    """RANP-f: reweighted by the multiply-adds of the layers."""
    stages = weighted(graph, importance, resource_weight)
    macs = {layer.name: float(layer.macs) for layer in graph.layers}
    return stages | {"ranp-f": reweight_by_resource(stages["weighted"], macs, resource_weight)}


def ranp_m(graph: ChannelGraph, importance: LayerScores, resource_weight: float) -> dict[str, LayerScores]:
    """RANP-m: reweighted by the sizes of the layers' outputs."""
    stages = weighted(graph, importance, resource_weight)
    elements = {layer.name: float(layer.output_elements) for layer in graph.layers}
    return stages | {"ranp-m": reweight_by_resource(stages["weighted"], elements, resource_weight)}


def ranp_t(graph: ChannelGraph, importance: LayerScores, resource_weight: float) -> dict[str, LayerScores]:
    """RANP-t: reweighted by the time of a training step that a neuron of the layer takes."""
    stages = weighted(graph, importance, resource_weight)
    return stages | {"ranp-t": reweight_by_resource(stages["weighted"], seconds_per_neuron(graph), resource_weight)}


def seconds_per_neuron(graph: ChannelGraph) -> dict[str, float]:
    """Seconds of a training step for each neuron of every layer; 0 where no neuron can be removed.

    A group is measured against half of it, so that rounding of widths on the device averages out. Neurons of coupled
    layers are removed together and share their time.
    """
    full, saved = graph.amount("step_seconds", graph.widths), np.zeros(len(graph.groups))
    for number, group in enumerate(graph.groups):
        widths = graph.widths.copy()
        widths[number] -= group.width // 2
        neurons = graph.neurons[graph.offsets[number]] * max(group.width // 2, 1)
        saved[number] = max(full - graph.amount("step_seconds", widths), 0.0) / neurons
    groups = {layer.name: graph.group_of[layer.channels[layer.channels >= 0]] for layer in graph.layers}
    return {name: float(saved[found].mean()) if len(found) else 0.0 for name, found in groups.items()}


def layerwise(graph: ChannelGraph, channels: Floats, rng: np.random.Generator) -> Floats:
    """Scores by rank within the group, so that one threshold removes the same fraction of every group."""
    return 1 - rank_within_groups(graph, channels) / graph.widths[graph.group_of]


def uniform(graph: ChannelGraph, channels: Floats, rng: np.random.Generator) -> Floats:
    """Scores by index within the group, relative to its width: all groups become narrower by the same factor."""
    return layerwise(graph, np.zeros_like(channels), rng)  # Equal scores rank by index.


def constant(graph: ChannelGraph, channels: Floats, rng: np.random.Generator) -> Floats:
    """Scores by index within the group: all groups get the same width, or keep their own if that is smaller."""
    return -rank_within_groups(graph, np.zeros_like(channels)).astype(np.float64)


def drawn(graph: ChannelGraph, channels: Floats, rng: np.random.Generator) -> Floats:
    """Scores drawn uniformly from [0, 1)."""
    return rng.random(len(channels))


# Colors are those of Okabe and Ito, which color-blind readers can tell apart, and three more.
_ALL = (
    Criterion(
        "ranp-f",
        "RANP: normalized importance, higher in layers with few multiply-adds.",
        ranp_f,
        uses_resource_weight=True,
        color="#D55E00",
    ),
    Criterion(
        "ranp-m",
        "RANP: normalized importance, higher in layers with small outputs.",
        ranp_m,
        uses_resource_weight=True,
        color="#E69F00",
    ),
    Criterion(
        "ranp-t",
        "RANP: normalized importance, higher in layers whose neurons take little time in training.",
        ranp_t,
        uses_resource_weight=True,
        needs_step_time=True,
        color="#4B0092",
    ),
    Criterion("weighted", "Importance, normalized to the same mean in every layer.", weighted, color="#009E73"),
    Criterion("vanilla", "Importance as it is.", vanilla, color="#CC79A7"),
    Criterion(
        "layerwise",
        "The same fraction of every layer, the least important neurons first.",
        vanilla,
        finish=layerwise,
        color="#56B4E9",
    ),
    # A neuron survives SNIP's threshold on weights as long as its largest weight does.
    Criterion(
        "snip",
        "SNIP: the largest importance of a single weight.",
        vanilla,
        combine="max",
        reduce="max",
        color="#F0E442",
    ),
    Criterion(
        "uniform", "All layers narrower by the same factor.", needs_batches=False, finish=uniform, color="#0072B2"
    ),
    Criterion("constant", "All layers of the same width.", needs_batches=False, finish=constant, color="#8C6D31"),
    Criterion("random", "Drawn at random.", needs_batches=False, finish=drawn),
)
CRITERIA: Mapping[str, Criterion] = MappingProxyType({criterion.name: criterion for criterion in _ALL})
