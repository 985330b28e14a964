"""From a model and batches to scores of its channels."""

from collections.abc import Callable, Iterable
from typing import Any, get_args

import numpy as np
from torch import nn

from ranp.criteria import DEFAULT_RESOURCE_WEIGHT, Criterion, Importance, Reduction, criterion_named
from ranp.deprecation import renamed_arguments
from ranp.errors import InputError, nearest
from ranp.graph import ChannelGraph, Floats
from ranp.progress import Progress
from ranp.scores import Scores
from ranp.scoring._average import Estimator, Ranking, averaged
from ranp.scoring._loop import Step, as_step, losses, prepared
from ranp.scoring.neuron import NeuronImportance
from ranp.scoring.parameter import ParameterImportance


@renamed_arguments(lam="resource_weight", until="stop_at_correlation")
def score(
    model: nn.Module,
    graph: ChannelGraph,
    batches: Iterable[Any],
    loss_fn: Callable[[Any, Any], Any] | None = None,
    *,
    criterion: str | Criterion = "ranp-f",
    importance: Importance = "parameter",
    resource_weight: float | None = None,
    seed: int = 0,
    reduce: Reduction = "sum",
    step: Step | None = None,
    stop_at_correlation: float | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score every neuron of a model once, before training.

    The model runs in training mode with the biases of its layers at zero; afterwards its mode, weights, buffers,
    gradients and the state of the random number generators are restored.

    Where torch's default process group is initialized (under torchrun, say), every process scores its own batches, at
    least one, and all get the scores of all batches; only dropout differs from what one process would draw.

    Args:
        model: The model that was traced.
        graph: Its graph, from `ranp.trace`.
        batches: Yields `(inputs, targets)`, inputs a tensor, a tuple (positional) or a dict (keyword arguments); all
            of it is used.
        loss_fn: From `(outputs, targets)` to a scalar.
        criterion: A name in `ranp.criteria.CRITERIA`, or a `Criterion` of your own.
        importance: `parameter` sums |w * dL/dw| over a neuron's weights; `neuron` takes |dL/dc| of a gate c on the
            neuron's channel where it is consumed, without any weight gradient.
        resource_weight: Weight of the resource term of `ranp-f` and `ranp-m`; 11 by default.
        seed: Seed of all random numbers (dropout while scoring, the criterion `random`).
        reduce: For `parameter`: sum, mean or max over a neuron's weights.
        step: Instead of `loss_fn`, a function of (model, batch) that returns the loss.
        stop_at_correlation: Use no more batches once the scores of n batches and those of their first half have at
            least this rank correlation, for n = 2, 4, 8, ... (times the number of processes); all batches by default.
        progress: Called with ("scoring", batches done, batches in total or 0 if unknown).

    Returns:
        Scores of neurons by layer, and of channels.

    Raises:
        InputError: An unknown criterion or importance, no batches, or a batch or loss that cannot be used.

    Example:
        >>> import torch, ranp
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
        >>> x, y = torch.randn(2, 1, 8, 8), torch.randn(2, 2, 4, 4)
        >>> scores = score(model, ranp.trace(model, x), [(x, y)], nn.functional.mse_loss)
        >>> list(scores.stages), scores.channels.shape
        (['importance', 'weighted', 'ranp-f'], (4,))
    """
    chosen = criterion_named(criterion)
    if importance not in get_args(Importance):
        known = nearest(str(importance), get_args(Importance))
        raise InputError("importance", f"{importance!r} is unknown", hint=known)
    if stop_at_correlation is not None and not 0 < stop_at_correlation <= 1:
        expected, hint = "a rank correlation in (0, 1]", "for example 0.99"
        raise InputError("stop_at_correlation", got=str(stop_at_correlation), expected=expected, hint=hint)
    weight = DEFAULT_RESOURCE_WEIGHT if resource_weight is None else resource_weight
    ranking = Ranking(lambda found: chosen.evaluate(graph, found, weight)[1], stop_at_correlation)
    found: dict[str, Floats] = {}
    seen, used = 0, ""
    if chosen.needs_batches:
        used = "parameter" if chosen.reduce else importance
        estimator: Estimator
        if used == "neuron":
            estimator = NeuronImportance(model, graph)
        else:
            estimator = ParameterImportance(model, graph, chosen.reduce or reduce)
        checked = losses(model, batches, step or as_step(loss_fn), estimator.check_forward, progress)
        with prepared(model, graph, estimator.trained, seed), estimator:
            found, seen = averaged(checked, estimator, ranking)
    stages, channels = chosen.evaluate(graph, found, weight)
    if chosen.finish is not None:
        channels = chosen.finish(graph, channels, np.random.default_rng(seed))
    recorded_weight = weight if chosen.uses_resource_weight else 0.0
    return Scores(chosen.name, used, recorded_weight, seed, stages, channels, seen, tuple(ranking.seen))
