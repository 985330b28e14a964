"""Lightning: a callback that prunes a network before it is trained."""

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn

from ranp import Budget, PruneResult, prune
from ranp.errors import InputError, PlanError, nearest
from ranp.integrations._state_dict import attach_plan, attached_plan, shrink_in_place
from ranp.module_utils import preserve_rng, preserve_state
from ranp.optional import optional_import

pytorch: Any = optional_import("lightning.pytorch", "RanpPruning", extra="lightning")
move_data_to_device = optional_import(
    "lightning.fabric.utilities", "RanpPruning", extra="lightning"
).move_data_to_device
strategies: Any = optional_import("lightning.pytorch.strategies", "RanpPruning", extra="lightning")
Metric: Any = optional_import("torchmetrics", "RanpPruning", extra="lightning").Metric

_OPTIONS = ("criterion", "importance", "resource_weight", "min_width", "round_to", "seed", "weights")


class RanpPruning(pytorch.Callback):  # type: ignore[misc]
    """Prunes a network of a LightningModule when `fit` starts, before the first step of its optimizers.

    The loss is that of the module's `training_step`, the batches are the first ones of its training data. The network
    stays the same object, and `configure_optimizers` is called again with its new parameters. Checkpoints hold the plan
    among the weights, so that `fit(ckpt_path=...)`, `validate`, `test` and `predict` take the pruned network from them;
    what the callback adds to a checkpoint is a tensor, which runs no code. In several processes (DDP) each scores its
    share of the batches, and all get the same plan.

    Args:
        budget: What the pruned network may cost.
        network: Where the module keeps it, such as `"net"`; if not given, the only child that has parameters. It has to
            be there once the module's `__init__` is done.
        batches: How many training batches to score with, in each process; or batches to use instead.
        example_inputs: What the network is called with; if not given, this is seen on the first batch.
        options: As for `ranp.prune`: criterion, importance, resource_weight, min_width, round_to, seed, weights.

    Attributes:
        result: What `ranp.prune` returned, if it ran.

    Raises:
        InputError: An unknown option.

    Example:
        >>> callback = RanpPruning(Budget(macs=0.1), batches=50, criterion="ranp-m")
        >>> trainer = pytorch.Trainer(callbacks=[callback], logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        budget: Budget,
        *,
        network: str | None = None,
        batches: int | Iterable[Any] = 20,
        example_inputs: Any = None,
        **options: Any,
    ) -> None:
        for name in options:
            if name not in _OPTIONS:
                raise InputError(
                    "RanpPruning", got=f"option {name!r}", expected="one of ranp.prune's", hint=nearest(name, _OPTIONS)
                )
        self.budget, self.network, self.batches, self.options = budget, network, batches, options
        self.example_inputs = example_inputs
        self.result: PruneResult | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Have the network follow the plan of the checkpoint, if one is loaded."""
        kind = type(trainer.strategy)
        # Exactly these: DeepSpeed's strategy, say, derives from that of DDP and shares out the optimizer.
        if stage == "fit" and kind not in (strategies.SingleDeviceStrategy, strategies.DDPStrategy):
            raise InputError("RanpPruning", got=f"the strategy {kind.__name__}", expected="one device, or DDP")
        attach_plan(self._network(pl_module))

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Prune, unless the network has been pruned before."""
        network = self._network(pl_module)
        if attached_plan(network) is not None:
            return
        if trainer.ckpt_path is not None:
            raise PlanError(
                "RanpPruning",
                got=f"the checkpoint {trainer.ckpt_path} of a full network",
                expected="one of a training that was pruned",
                hint="to prune trained weights, load them into the module and call fit without ckpt_path",
            )
        with _as_it_was(pl_module):
            self.result = self._prune(trainer, pl_module, network)
        shrink_in_place(network, self.result.model, self.result.plan)
        _hold_new_parameters(trainer, pl_module)
        pytorch.utilities.rank_zero_info(str(self.result.report))

    def _prune(self, trainer: Any, pl_module: Any, network: nn.Module) -> PruneResult:
        def step(network: nn.Module, batch: Any) -> Tensor:
            with trainer.precision_plugin.train_step_context() if short else nullcontext():
                out = pl_module.training_step(*(batch, 0)[:takes])
            return out["loss"] if isinstance(out, dict) else out  # type: ignore[no-any-return]

        if not pl_module.automatic_optimization:
            raise InputError("RanpPruning", got="manual optimization", expected="a training_step that returns its loss")
        takes = len(inspect.signature(pl_module.training_step).parameters)
        # Half the memory. Not so float16: without a scaler, gradients would underflow.
        short = trainer.precision == "bf16-mixed"
        batches = self._batches(trainer)
        example = move_data_to_device(self.example_inputs, pl_module.device)
        if example is None:
            first = next(batches, None)
            if first is None:
                raise InputError("RanpPruning", got="no training batches", expected="at least one")
            example, batches = _seen_by(network, lambda: step(network, first)), chain([first], batches)
        return prune(network, example, batches, budget=self.budget, step=step, **self.options)

    def _batches(self, trainer: Any) -> Iterator[Any]:
        found = self.batches
        if isinstance(found, int):
            trainer.fit_loop.setup_data()
            found = islice(trainer.train_dataloader, found)
        return (trainer.strategy.batch_to_device(batch, dataloader_idx=0) for batch in found)

    def _network(self, pl_module: Any) -> nn.Module:
        if self.network is not None:
            try:
                found: nn.Module = pl_module.get_submodule(self.network)
                return found
            except AttributeError as error:
                raise InputError(
                    "RanpPruning",
                    got=f"no module {self.network!r} in {type(pl_module).__name__}",
                    expected="a network that is there after __init__",
                    hint=nearest(self.network, [name for name, _ in pl_module.named_children()]),
                ) from error
        names = [name for name, child in pl_module.named_children() if any(True for _ in child.parameters())]
        if len(names) != 1:
            raise InputError(
                "RanpPruning",
                got=f"{len(names)} children with parameters in {type(pl_module).__name__} ({', '.join(names)})",
                expected="one",
                hint="name the network to prune: RanpPruning(..., network=...)",
            )
        only: nn.Module = pl_module.get_submodule(names[0])
        return only


def _seen_by(network: nn.Module, run: Any) -> Any:
    """What the network is called with while something runs."""
    seen: list[tuple[Any, Any]] = []
    handle = network.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    try:
        # Pruning is to see the buffers as they were.
        with preserve_state(network), torch.no_grad():
            run()
    finally:
        handle.remove()
    if not seen or all(seen[0]):
        raise InputError(
            "RanpPruning",
            got="a network called with positional and keyword arguments" if seen else "a network that is not called",
            expected="training_step to call it with one kind of arguments",
            hint="give example_inputs",
        )
    args, kwargs = seen[0]
    return kwargs or args


@contextmanager
def _as_it_was(pl_module: Any) -> Iterator[None]:
    """Undo what training steps do to a module, and have them log nothing."""
    with preserve_rng(pl_module), preserve_state(pl_module):
        for module in pl_module.modules():
            for name, value in list(vars(module).items()):
                # Steps collect outputs in lists: in copies of them here.
                if type(value) in (list, dict, set) and not name.startswith("_"):
                    vars(module)[name] = copy(value)
        pl_module.log = pl_module.log_dict = lambda *args, **kwargs: None
        try:
            yield
        finally:
            for module in pl_module.modules():
                if isinstance(module, Metric):
                    module.reset()


def _hold_new_parameters(trainer: Any, pl_module: Any) -> None:
    """Have the optimizers, and the wrapper for several processes, hold the parameters as they are now."""
    strategy = trainer.strategy
    if isinstance(strategy, strategies.DDPStrategy):
        strategy.model = pl_module
        strategy.configure_ddp()
    strategy.setup_optimizers(trainer)
    strategy.setup_precision_plugin()
