"""The resource table: every method on every published network, at the published sparsity."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby

import torch
from torch import Tensor, nn

import ranp
from ranp.errors import InputError, nearest
from ranp.experiments.data.synthetic import draw_batches
from ranp.experiments.reproduce.counting import PublishedResources
from ranp.experiments.reproduce.networks import METHODS, NETWORKS, Method, PublishedNetwork
from ranp.experiments.reproduce.selection import Evidence, Kept, Saliency, kept_channels, select
from ranp.graph import ChannelGraph
from ranp.plan import make_plan
from ranp.progress import Progress, no_progress
from ranp.surgery import initialize
from ranp.tables import Table

NOTE = """\
Parameters, multiply-adds and memory are counted as in the published tables: batch size 1, full input size; reductions \
in percent in parentheses. Neurons are scored on synthetic inputs, for brats in crops of 96 voxels a side, as in the \
paper. In mobilenetv2, channels that residual sums and depthwise layers connect are coupled, unlike in the published \
rows. A method that removes all neurons of a layer at its published sparsity is not feasible: the last column shows \
the highest feasible sparsity, and the resources are those with every such layer keeping its best neuron."""


@dataclass(frozen=True)
class ResourceRow:
    """Resources of one network, pruned by one method.

    A method that empties layers at its published sparsity is infeasible; the resources are then those of a network in
    which every emptied layer keeps its best neuron.

    Attributes:
        network: Name of the network: `shapenet`, `brats`, `mobilenetv2` or `i3d`.
        method: One of `METHODS`.
        params_mb, gflops, memory_mb: See `PublishedResources`.
        widths: Neurons kept in every layer, in the order of the forward pass.
        feasible: Whether the method leaves neurons in every layer.
        published: Published resources.
        sparsity: Published sparsity: of parameters for `snip`, of neurons for all other methods.
        max_sparsity: Highest feasible sparsity, if the published one is infeasible.
        emptied: Layers that the method empties.
    """

    network: str
    method: Method
    params_mb: float
    gflops: float
    memory_mb: float
    widths: tuple[int, ...]
    feasible: bool
    published: PublishedResources
    sparsity: float
    max_sparsity: float | None
    emptied: tuple[str, ...]


def run_resources(
    networks: Sequence[str], *, seed: int = 0, batches: int = 4, progress: Progress = no_progress
) -> list[ResourceRow]:
    """Compute the resource table of Xu et al., RANP, 3DV 2020: rows by network, in the order of `METHODS`.

    Every network is initialized (Glorot normal), scored once on synthetic batches of one sample with `parameter`
    importance, pruned by every method, and counted as in the published tables. The seed determines the weights, the
    inputs and random pruning.

    Raises:
        InputError: A network is unknown; the nearest name is suggested.
    """
    for name in networks:
        if name not in NETWORKS:
            raise InputError("networks", f"no published network is named {name!r}", hint=nearest(name, NETWORKS))
    rows = []
    for published in [NETWORKS[name] for name in networks]:
        model = published.build()
        initialize(model, "glorot", seed)
        evidence = _score(published, model, seed, batches, progress)
        for done, method in enumerate(METHODS, start=1):
            rows.append(_row(published, model, method, evidence))
            progress(f"{published.name}: methods", done, len(METHODS))
    return rows


def _score(published: PublishedNetwork, model: nn.Module, seed: int, batches: int, progress: Progress) -> Evidence:
    """Importance and saliency for all methods, from one pass over the data."""

    def report(what: str, done: int, total: int) -> None:
        progress(f"{published.name}: {what}", done, total)

    report("scoring", 0, batches)
    graph = ranp.trace(model, torch.zeros(1).expand(published.input_shape))
    drawn = draw_batches(published.draw, batches, seed=seed)
    with record_saliency(model, graph) as totals:
        scores = ranp.score(model, graph, drawn, published.loss, criterion="vanilla", seed=seed, progress=report)
    saliency = in_layer_order(totals, graph)
    return Evidence(graph, scores.stages["importance"], saliency, published.resource_weight, seed)


@contextmanager
def record_saliency(model: nn.Module, graph: ChannelGraph) -> Iterator[dict[str, Tensor]]:
    """Add up |w * dL/dw| of the weights of every layer over all backward passes within the context, for SNIP.

    Scoring runs these backward passes anyway, so one pass over the data serves neurons and parameters. The totals are
    as large as the weights. Biases are zero during scoring, and so is their saliency, which is left out. Yields a
    tensor per layer with the shape of its weight, from the first backward pass on.
    """
    totals: dict[str, Tensor] = {}

    def add(name: str, weight: Tensor, gradient: Tensor) -> None:
        saliency = (weight.detach() * gradient.detach()).abs_()
        totals[name] = totals[name].add_(saliency) if name in totals else saliency

    with ExitStack() as hooks:
        for layer in graph.layers:
            weight = model.get_parameter(layer.weight)
            hooks.enter_context(weight.register_hook(partial(add, layer.name, weight)))
        yield totals


def in_layer_order(totals: dict[str, Tensor], graph: ChannelGraph) -> Saliency:
    """Recorded saliency as arrays `(neurons, inputs, kernel positions)`, in the order of the forward pass."""
    by_neuron = {layer.name: torch.movedim(totals[layer.name], layer.out_dim, 0) for layer in graph.layers}
    return {name: each.reshape(*each.shape[:2], -1).float().cpu().numpy() for name, each in by_neuron.items()}


def _row(published: PublishedNetwork, model: nn.Module, method: Method, evidence: Evidence) -> ResourceRow:
    sparsity = {"full": 0.0, "snip": published.snip_sparsity}.get(method, published.sparsity)
    selection = select(method, evidence, sparsity)
    return ResourceRow(
        network=published.name,
        method=method,
        **asdict(published.resources(prune(model, selection.kept, evidence, sparsity))),
        widths=tuple(int(mask.sum()) for mask in selection.kept.values()),
        feasible=not selection.emptied,
        published=published.published[method],
        sparsity=sparsity,
        max_sparsity=selection.max_sparsity,
        emptied=selection.emptied,
    )


def prune(model: nn.Module, kept: Kept, evidence: Evidence, sparsity: float) -> nn.Module:
    """The model with only the neurons in `kept`."""
    plan = make_plan(
        evidence.graph,
        kept_channels(evidence.graph, kept),
        budget=ranp.Budget(sparsity=sparsity),
        criterion="published",
        importance="parameter",
        resource_weight=evidence.resource_weight,
        seed=evidence.seed,
        min_width=0,
        round_to=1,
        versions={},
    )
    return ranp.apply(model, plan)


def resource_tables(rows: Sequence[ResourceRow]) -> list[Table]:
    """One table per network, with the published values below the recomputed ones."""
    tables, header = [], ("method", "", "params MB", "GFLOPs", "memory MB", "feasible")
    for name, group in groupby(rows, key=lambda row: row.network):
        full, *_ = members = list(group)
        lines = []
        for row in members:
            feasible = "yes" if row.max_sparsity is None else f"no, up to {100 * row.max_sparsity:.2f}%"
            lines.append([row.method, "ours", *_cells(row, full), feasible])
            lines.append(["", "published", *_cells(row.published, full.published), ""])
        tables.append(Table(name, header, lines, text_columns=2))
    return tables


def _cells(row: ResourceRow | PublishedResources, full: ResourceRow | PublishedResources) -> list[str]:
    """The three resources, each with its reduction in percent."""
    of_row, of_full = ((each.params_mb, each.gflops, each.memory_mb) for each in (row, full))
    if row is full:
        return [f"{value:.2f}" for value in of_row]
    return [f"{v:.2f} ({100 * (1 - v / baseline):.1f}↓)" for v, baseline in zip(of_row, of_full, strict=True)]
