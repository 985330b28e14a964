"""The resource table: every method on every published network, at the published sparsity."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

import ranp
from ranp.budget import Budget
from ranp.experiments.data.synthetic import draw_batches
from ranp.experiments.reproduce._methods import Evidence, kept_channels, select
from ranp.experiments.reproduce._networks import METHODS, Method, Network, network
from ranp.experiments.reproduce._published import PublishedResources
from ranp.experiments.reproduce._saliency import in_layer_order, recorded_saliency
from ranp.experiments.reproduce._selection import Kept
from ranp.plan import make_plan
from ranp.surgery import initialize

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Row:
    """What one method makes of one network.

    A method that empties layers at its published sparsity is infeasible; its figures are then those with
    the guard, by which every emptied layer keeps its best neuron.

    Attributes:
        network: `shapenet`, `brats`, `mobilenetv2` or `i3d`.
        method: one of `METHODS`.
        params_mb: see `PublishedResources`.
        gflops: see `PublishedResources`.
        memory_mb: see `PublishedResources`.
        widths: kept neurons of every layer, in the order of the forward pass.
        feasible: whether the method leaves neurons in every layer.
        published: the printed figures.
        sparsity: the published sparsity: of parameters for `snip`, of neurons for all others.
        max_sparsity: the highest feasible sparsity, where the published one is not.
        emptied: the layers that the method empties.
    """

    network: str
    method: Method
    params_mb: float
    gflops: float
    memory_mb: float
    widths: tuple[int, ...]
    feasible: bool
    published: PublishedResources | None
    sparsity: float
    max_sparsity: float | None
    emptied: tuple[str, ...]


def run_resources(
    networks: Sequence[str], *, seed: int = 0, batches: int = 4, progress: Progress | None = None
) -> list[Row]:
    """Compute the resource table of Xu et al., RANP, 3DV 2020.

    Every network is drawn anew (Glorot normal), scored once on synthetic batches of one sample with the
    `parameter` reading, pruned by every method, and counted as the published tables count.

    Args:
        networks: names of published networks.
        seed: of the weights, the inputs and random pruning.
        batches: mini-batches to score with.
        progress: called with (what, done, total).

    Returns:
        Rows by network, in the order of `METHODS`.

    Raises:
        InputError: an unknown network; the nearest is suggested.
    """
    rows = []
    for spec in [network(name) for name in networks]:  # all names are checked before anything is computed
        model = spec.build()
        initialize(model, "glorot", seed)
        evidence = _gather(spec, model, seed, batches, progress)
        for done, method in enumerate(METHODS, start=1):
            rows.append(_row(spec, model, method, evidence))
            if progress is not None:
                progress(f"{spec.name}: methods", done, len(METHODS))
    return rows


def _gather(spec: Network, model: nn.Module, seed: int, batches: int, progress: Progress | None) -> Evidence:
    """One round over the data, for all methods."""

    def report(what: str, done: int, total: int) -> None:
        if progress is not None:
            progress(f"{spec.name}: {what}", done, total)

    report("scoring", 0, batches)
    graph = ranp.trace(model, torch.zeros(1).expand(spec.input_shape))
    drawn = draw_batches(spec.draw, batches, seed=seed)
    with recorded_saliency(model, graph) as saliency:
        scores = ranp.score(model, graph, drawn, spec.loss, criterion="vanilla", seed=seed, progress=report)
    return Evidence(graph, scores.stages["importance"], in_layer_order(saliency, graph), spec.resource_weight, seed)


def _row(spec: Network, model: nn.Module, method: Method, evidence: Evidence) -> Row:
    sparsity = {"full": 0.0, "snip": spec.snip_sparsity}.get(method, spec.sparsity)
    selection = select(method, evidence, sparsity)
    return Row(
        network=spec.name,
        method=method,
        **asdict(spec.resources(_pruned(model, selection.kept, evidence, sparsity))),
        widths=tuple(int(mask.sum()) for mask in selection.kept.values()),
        feasible=not selection.emptied,
        published=spec.published.get(method),
        sparsity=sparsity,
        max_sparsity=selection.max_sparsity,
        emptied=selection.emptied,
    )


def _pruned(model: nn.Module, kept: Kept, evidence: Evidence, sparsity: float) -> nn.Module:
    plan = make_plan(
        evidence.graph,
        kept_channels(evidence.graph, kept),
        budget=Budget(sparsity=sparsity),
        criterion="published",
        importance="parameter",
        resource_weight=evidence.resource_weight,
        seed=evidence.seed,
        min_width=0,
        round_to=1,
        versions={},
    )
    return ranp.apply(model, plan)
