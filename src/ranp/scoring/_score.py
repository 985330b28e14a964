"""From a model and batches to scores of its channels."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ranp.costs.training import Step, as_step, check_loss
from ranp.criteria import DEFAULT_RESOURCE_WEIGHT, Criterion, Importance, Reduction, criterion_named
from ranp.deprecation import renamed_arguments
from ranp.errors import InputError, RanpError, nearest
from ranp.graph import ChannelGraph, Floats
from ranp.module_utils import describe, preserve_rng, preserve_state
from ranp.progress import Progress, no_progress
from ranp.scores import Scores
from ranp.scoring._average import Estimator, Ranking, averaged
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
        resource_weight: Weight of the resource term of `ranp-f`, `ranp-m` and `ranp-t`; 11 by default.
        seed: Seed of all random numbers (dropout while scoring, the criterion `random`).
        reduce: For `parameter`: sum, mean or max over a neuron's weights.
        step: Instead of `loss_fn`, a function of (model, batch) that returns the loss.
        stop_at_correlation: Use no more batches once the scores of n batches and those of their first half have at
            least this rank correlation, for n = 2, 4, 8, ... (times the number of processes); all batches by default.
        progress: Called with ("scoring", batches done, batches in total or 0 if unknown).

    Returns:
        Scores of neurons by layer, and of channels.

    Raises:
        InputError: An unknown criterion or importance, a criterion that needs step times which the graph does not have,
            no batches, or a batch or loss that cannot be used.

    Example:
        >>> import torch, ranp
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
        >>> x, y = torch.randn(2, 1, 8, 8), torch.randn(2, 2, 4, 4)
        >>> scores = score(model, ranp.trace(model, x), [(x, y)], nn.functional.mse_loss)
        >>> list(scores.stages), scores.channels.shape
        (['importance', 'weighted', 'ranp-f'], (4,))
    """
    chosen = criterion_named(criterion)
    chosen.check(graph)
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
        checked = _losses(model, batches, step or as_step(loss_fn), estimator.check_forward, progress or no_progress)
        with _prepared(model, graph, estimator.trained, seed), estimator:
            found, seen = averaged(checked, estimator, ranking)
    stages, channels = chosen.evaluate(graph, found, weight)
    if chosen.finish is not None:
        channels = chosen.finish(graph, channels, np.random.default_rng(seed))
    recorded_weight = weight if chosen.uses_resource_weight else 0.0
    return Scores(chosen.name, used, recorded_weight, seed, stages, channels, seen, tuple(ranking.seen))


@contextmanager
def _prepared(model: nn.Module, graph: ChannelGraph, trained: set[str], seed: int) -> Iterator[None]:
    """A model ready to be scored: training mode, layer biases at zero, gradients only of the `trained` parameters.

    All changes to the model and to the random number generators are undone, also after an error.
    """
    parameters = dict(model.named_parameters())
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in parameters.values()]
    biases = [parameters[layer.bias] for layer in graph.layers if layer.bias in parameters]
    values = [bias.detach().clone() for bias in biases]
    with preserve_state(model), preserve_rng(model), torch.enable_grad():
        torch.manual_seed(seed)
        try:
            model.train()
            for name, parameter in parameters.items():
                parameter.requires_grad_(name in trained)
                parameter.grad = None
            for bias in biases:
                bias.detach().zero_()
            yield
        finally:
            for parameter, requires_grad, gradient in before:
                parameter.requires_grad_(requires_grad)
                parameter.grad = gradient
            for bias, value in zip(biases, values, strict=True):
                bias.detach().copy_(value)


def _losses(
    model: nn.Module, batches: Iterable[Any], step: Step, check_forward: Callable[[], None], progress: Progress
) -> Iterator[Tensor]:
    """The loss of every batch, moved to the model's device and checked.

    Raises:
        InputError: No batches; a loss that is no finite scalar or needs no gradient; a forward or loss that fails.
    """
    if not isinstance(batches, Iterable):
        raise InputError("batches", got=type(batches).__name__, expected="an iterable of (inputs, targets)")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    total = len(batches) if isinstance(batches, Sized) else 0
    done = 0
    for done, batch in enumerate(batches, 1):
        loss = _run(step, model, _move(batch, device), done - 1)
        check_forward()
        yield _checked(loss, done - 1)
        progress("scoring", done, total)
    if not done:
        raise InputError("batches", got="none", expected="at least one batch", hint="an iterator can be used only once")


def _move(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _move(item, device) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_move(item, device) for item in value)
    return value


def _run(step: Step, model: nn.Module, batch: Any, index: int) -> Any:
    try:
        return step(model, batch)
    except RanpError:
        raise
    except Exception as error:
        problem = f"the model or the loss raised {type(error).__name__}: {error}; the batch was {describe(batch)}"
        hint = "compare its shapes with example_inputs and with what the loss expects"
        raise InputError(f"batch {index}", problem, hint=hint) from error


def _checked(loss: Any, index: int) -> Tensor:
    where = f"loss of batch {index}"
    checked = check_loss(loss, where)
    if not math.isfinite(value := float(checked.detach())):
        hint = "check the data for NaN and the model's initial weights"
        raise InputError(where, got=str(value), expected="a finite number", hint=hint)
    return checked
