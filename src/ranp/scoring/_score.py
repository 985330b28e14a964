"""From a model and batches to scores of its channels."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ranp.arguments import Seed, checked, describe, require
from ranp.costs.training import Step, as_step, check_loss
from ranp.criteria import (
    DEFAULT_RESOURCE_WEIGHT,
    Criterion,
    Importance,
    LayerScores,
    Reduction,
    ResourceWeight,
    criterion_named,
)
from ranp.deprecation import renamed_arguments
from ranp.errors import InputError, RanpError
from ranp.graph import ChannelGraph, Floats
from ranp.module_utils import ModelWithValues, all_tensors, preserve_rng, preserve_state
from ranp.progress import Progress, no_progress
from ranp.scores import Scores
from ranp.scoring._average import Correlation, Estimator, ProcessGroup, Ranking, averaged
from ranp.scoring.neuron import NeuronImportance
from ranp.scoring.parameter import ParameterImportance


@renamed_arguments(lam="resource_weight", until="stop_at_correlation")
@checked
def score(
    model: nn.Module,
    graph: ChannelGraph,
    batches: Iterable[Any] | None,
    loss_fn: Callable[[Any, Any], Any] | None = None,
    *,
    criterion: str | Criterion = "ranp-f",
    importance: Importance = "parameter",
    resource_weight: ResourceWeight | None = None,
    seed: Seed = 0,
    reduce: Reduction = "sum",
    step: Step | None = None,
    stop_at_correlation: Correlation | None = None,
    process_group: ProcessGroup | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score every neuron of a model once, before training.

    The model runs in training mode with the biases of its layers at zero; afterwards its mode, weights, buffers,
    gradients and the state of the random number generators are restored.

    Args:
        model: The model that was traced.
        graph: Its graph, from `ranp.trace`.
        batches: Yields `(inputs, targets)`, inputs a tensor, a tuple (positional) or a dict (keyword arguments); all
            of it is used. None for criteria that need none.
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
        process_group: Processes that score together, such as `torch.distributed.group.WORLD`: each of them scores its
            own batches, at least one, and all get the scores of all batches; only dropout differs from what one
            process would draw. By default this process scores alone, and communicates with no other.
        progress: Called with ("scoring", batches done, batches in total or 0 if unknown).

    Returns:
        Scores of neurons by layer, and of channels.

    Raises:
        InputError: An unknown criterion or importance, a criterion that needs step times which the graph does not have,
            no batches, a batch or loss that cannot be used, or a loss that depends on no channel that may be removed.

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
    weight = DEFAULT_RESOURCE_WEIGHT if resource_weight is None else resource_weight
    ranking = Ranking(lambda found: chosen.evaluate(graph, found, weight)[1], stop_at_correlation)
    found: dict[str, Floats] = {}
    seen, used = 0, ""
    if chosen.needs_batches:
        require("model", model, ModelWithValues)
        _require_same_model(model, graph)
        used = "parameter" if chosen.reduce else importance
        estimator: Estimator
        if used == "neuron":
            estimator = NeuronImportance(model, graph)
        else:
            estimator = ParameterImportance(model, graph, chosen.reduce or reduce)
        losses = _losses(model, batches, step or as_step(loss_fn), estimator.check_forward, progress or no_progress)
        with _prepared(model, graph, estimator.trained, seed), estimator:
            found, seen = averaged(losses, estimator, ranking, process_group)
        _require_gradients(graph, found)
    stages, channels = chosen.evaluate(graph, found, weight)
    if chosen.finish is not None:
        channels = chosen.finish(graph, channels, np.random.default_rng(seed))
    recorded_weight = weight if chosen.uses_resource_weight else 0.0
    return Scores(chosen.name, used, recorded_weight, seed, stages, channels, seen, tuple(ranking.seen))


def _require_same_model(model: nn.Module, graph: ChannelGraph) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in all_tensors(model).items()}
    for layer in graph.layers:
        if shapes.get(layer.weight) != graph.shapes[layer.weight]:
            got = f"{layer.weight} of shape {shapes[layer.weight]}" if layer.weight in shapes else f"no {layer.weight}"
            expected = f"shape {graph.shapes[layer.weight]}, as in the graph"
            raise InputError("model", got=got, expected=expected, hint="score the model that was traced")


def _require_gradients(graph: ChannelGraph, importance: LayerScores) -> None:
    """Refuse importance that is not finite, or that is zero for all channels that may be removed."""
    for layer in graph.layers:
        if not np.isfinite(importance[layer.name]).all():
            hint = "check the loss for roots and quotients of zero, and the model's initial weights"
            raise InputError(f"gradients of {layer.name}", "they contain NaN or infinity", hint=hint)
    removable = [importance[layer.name][layer.channels >= 0] for layer in graph.layers]
    if graph.groups and not any(values.any() for values in removable):
        problem = "its gradient is zero for every neuron that may be removed, so none is more important than another"
        hint = "check that the loss depends on the model's outputs, and that inputs and weights are not all zero"
        raise InputError("loss", problem, hint=hint)


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
                # Others, such as integers, have no gradient.
                parameter.requires_grad_(name in trained and (parameter.is_floating_point() or parameter.is_complex()))
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
    model: nn.Module, batches: Iterable[Any] | None, step: Step, check_forward: Callable[[], None], progress: Progress
) -> Iterator[Tensor]:
    """The loss of every batch, moved to the model's device and checked.

    Raises:
        InputError: No batches; a loss that is no finite scalar or needs no gradient; a forward or loss that fails.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    total = len(batches) if isinstance(batches, Sized) else 0
    done = 0
    for done, batch in enumerate(() if batches is None else batches, 1):
        for parameter in model.parameters():
            parameter.grad = None
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
