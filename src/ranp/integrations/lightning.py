"""Lightning: a callback that prunes a network before it is trained."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from functools import partial
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn

from ranp import Budget, PruneResult, prune
from ranp.errors import InputError, PlanError, nearest
from ranp.integrations.state_dict import attach_plan, attached_plan, shrink_in_place
from ranp.module_utils import preserve_rng, preserve_state
from ranp.optional import optional_import

_needed = partial(optional_import, where="RanpPruning", extra="lightning")
pytorch: Any = _needed("lightning.pytorch")
move_data_to_device = _needed("lightning.fabric.utilities").move_data_to_device
strategies: Any = _needed("lightning.pytorch.strategies")
Metric: Any = _needed("torchmetrics").Metric

_OPTIONS = (
    *("criterion", "importance", "resource_weight", "policy", "min_width", "round_to", "seed", "weights"),
    *("setup", "times"),
)


class RanpPruning(pytorch.Callback):  # type: ignore[misc]
    """Prunes a network of a LightningModule when `fit` starts, before the first step of its optimizers.

    The loss is that of the module's `training_step`, the batches are the first ones of its training data. The network
    remains the same object, and `configure_optimizers` is called again for its new parameters. Checkpoints contain the
    plan among the weights, so `fit(ckpt_path=...)`, `validate`, `test` and `predict` load the pruned network; the plan
    is stored as a tensor, and loading it runs no code. In several processes (DDP) each scores its share of the batches,
    and all get the same plan.

    Args:
        budget: What the pruned network may cost.
        network: Path of the network in the module, such as `"net"`; if not given, the only child that has parameters.
            It must exist after the module's `__init__`.
        batches: How many training batches to score with, in each process; or batches to use instead.
        example_inputs: Inputs of the network; if not given, those of its first call on the first batch.
        options: As for `ranp.prune`: criterion, importance, resource_weight, policy, min_width, round_to, seed,
            weights, setup, times.

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
        for name in options.keys() - set(_OPTIONS):
            raise InputError("RanpPruning", f"has no option {name!r}", hint=nearest(name, _OPTIONS))
        self.options = {"budget": budget, **options}
        self.network, self.batches, self.example_inputs = network, batches, example_inputs
        self.result: PruneResult | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Have the network resized to the checkpoint, if one is loaded."""
        kind = type(trainer.strategy)
        # Not their subclasses: that of DeepSpeed, for example, distributes the optimizer over the processes.
        if stage == "fit" and kind not in (strategies.SingleDeviceStrategy, strategies.DDPStrategy):
            hint = "train on one device or with DDP"
            raise InputError("RanpPruning", f"does not support the strategy {kind.__name__}", hint=hint)
        attach_plan(self._network(pl_module))

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Prune, unless the network has been pruned before."""
        network = self._network(pl_module)
        if attached_plan(network) is not None:
            return
        if trainer.ckpt_path is not None:
            hint = "to prune trained weights, load them into the module and call fit without ckpt_path"
            raise PlanError("RanpPruning", f"the checkpoint {trainer.ckpt_path} is one of a full network", hint=hint)
        with _restored(pl_module):
            self.result = self._prune(trainer, pl_module, network)
        shrink_in_place(network, self.result.model, self.result.plan)
        # The optimizers, and the wrapper for several processes, have to be those of the present parameters.
        strategy = trainer.strategy
        if isinstance(strategy, strategies.DDPStrategy):
            strategy.model = pl_module
            strategy.configure_ddp()
        strategy.setup_optimizers(trainer)
        strategy.setup_precision_plugin()
        pytorch.utilities.rank_zero_info(str(self.result.report))

    def _prune(self, trainer: Any, pl_module: Any, network: nn.Module) -> PruneResult:
        def step(network: nn.Module, batch: Any) -> Tensor:
            with trainer.precision_plugin.train_step_context() if bfloat16 else nullcontext():
                out = pl_module.training_step(*(batch, 0)[:takes])
            return out["loss"] if isinstance(out, dict) else out  # type: ignore[no-any-return]

        if not pl_module.automatic_optimization:
            hint = "give a training_step that returns its loss"
            raise InputError("RanpPruning", "manual optimization is not supported", hint=hint)
        takes = len(inspect.signature(pl_module.training_step).parameters)
        # It halves the memory. Not float16: without a scaler, gradients would underflow.
        bfloat16 = trainer.precision == "bf16-mixed"
        batches = self._batches(trainer)
        example = move_data_to_device(self.example_inputs, pl_module.device)
        if example is None:
            first = next(batches, None)
            if first is None:
                raise InputError("RanpPruning", "there are no training batches to score with")
            example, batches = _inputs_of(network, lambda: step(network, first)), chain([first], batches)
        group = torch.distributed.group.WORLD if trainer.world_size > 1 else None
        return prune(network, example, batches, step=step, process_group=group, **self.options)

    def _batches(self, trainer: Any) -> Iterator[Any]:
        found = self.batches
        if isinstance(found, int):
            trainer.fit_loop.setup_data()
            found = islice(trainer.train_dataloader, found)
        return (trainer.strategy.batch_to_device(batch, dataloader_idx=0) for batch in found)

    def _network(self, pl_module: Any) -> nn.Module:
        names = [name for name, child in pl_module.named_children() if any(True for _ in child.parameters())]
        if self.network is None and len(names) != 1:
            children = f"{len(names)} children with parameters in {type(pl_module).__name__} ({', '.join(names)})"
            hint = "name the network to prune: RanpPruning(..., network=...)"
            raise InputError("RanpPruning", f"there are {children}, not one", hint=hint)
        path = names[0] if self.network is None else self.network
        try:
            return pl_module.get_submodule(path)  # type: ignore[no-any-return]
        except AttributeError as error:
            problem = f"{type(pl_module).__name__} has no module {path!r} after __init__"
            hint = nearest(path, [name for name, _ in pl_module.named_children()])
            raise InputError("RanpPruning", problem, hint=hint) from error


def _inputs_of(network: nn.Module, run: Callable[[], Any]) -> Any:
    """The inputs of the network when a function first calls it."""
    seen: list[tuple[Any, Any]] = []
    handle = network.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    try:
        # Pruning must see the buffers unchanged.
        with preserve_state(network), torch.no_grad():
            run()
    finally:
        handle.remove()
    if not seen or all(seen[0]):
        how = "calls the network with positional and keyword arguments" if seen else "does not call the network"
        raise InputError("RanpPruning", f"training_step {how}", hint="give example_inputs")
    args, kwargs = seen[0]
    return kwargs or args


@contextmanager
def _restored(pl_module: Any) -> Iterator[None]:
    """Restore a module after training steps, which meanwhile log nothing."""
    with preserve_rng(pl_module), preserve_state(pl_module):
        for module in pl_module.modules():
            for name, value in list(vars(module).items()):
                # Steps may append outputs to lists: here, to copies of them.
                if type(value) in (list, dict, set) and not name.startswith("_"):
                    vars(module)[name] = copy(value)
        pl_module.log = pl_module.log_dict = lambda *args, **kwargs: None
        try:
            yield
        finally:
            for module in pl_module.modules():
                if isinstance(module, Metric):
                    module.reset()
