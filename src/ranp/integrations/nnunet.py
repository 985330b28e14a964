"""nnU-Net v2: a trainer that prunes nnU-Net's own network before training it.

Importing this needs nnU-Net. `ranp nnunet install` lets nnU-Net find the trainer by its name.
"""

import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ranp import Budget, Plan, prune
from ranp.deprecation import renamed_names
from ranp.files import write_bytes
from ranp.integrations.settings import NnUNetPruning
from ranp.integrations.state_dict import attach_plan, attached_plan, resize_to_state_dict, shrink_in_place
from ranp.optional import optional_import

_nnunet = optional_import("nnunetv2.training.nnUNetTrainer.nnUNetTrainer", "nnUNetTrainerRanp", extra="nnunet")
nnUNetTrainer: Any = _nnunet.nnUNetTrainer  # noqa: N816

__all__ = ["Budget", "NnUNetPruning", "nnUNetTrainerRanp"]


class nnUNetTrainerRanp(nnUNetTrainer):  # type: ignore[misc]  # noqa: N801
    """Trains as nnU-Net does, but prunes first: at the plans' patch size, on training batches, by nnU-Net's own loss.

    Checkpoints contain the plan among the weights. Whatever builds the network through this class, as nnU-Net's
    predictor does, gets the pruned network when it loads them; folds may have different plans.

    Attributes:
        ranp: How to prune; see `NnUNetPruning.changed_by` for a single run. Put other settings into a class of their
            own, `class nnUNetTrainerRanp25(nnUNetTrainerRanp): ranp = NnUNetPruning(Budget(macs=0.25))`, so that
            nnU-Net stores their results separately. To prune the network of another trainer, name that trainer as the
            second base: `class nnUNetTrainerRanpDA5(nnUNetTrainerRanp, nnUNetTrainerDA5)`.
    """

    ranp = NnUNetPruning()
    network: Any

    @classmethod
    def build_network_architecture(cls, plans_manager: Any, *args: Any, **kwargs: Any) -> nn.Module:
        """The full network, which is resized to the state dict that it loads.

        nnU-Net looks for the parameter name `plans_manager`; all other arguments are passed on unchanged.
        """
        network: nn.Module = super().build_network_architecture(plans_manager, *args, **kwargs)
        return attach_plan(network)

    def on_train_start(self) -> None:
        """Prune, unless training resumes from a checkpoint of a pruned network."""
        super().on_train_start()
        plan = attached_plan(self._bare_network())
        if plan is None:
            self._prune()
        else:
            self.print_to_log_file(f"ranp: the checkpoint holds a pruned network ({_summary(plan)})")

    def load_checkpoint(self, filename_or_checkpoint: Any) -> None:
        """Load a checkpoint, after the network and the optimizer have been resized to it."""
        if not self.was_initialized:
            self.initialize()
        # As nnU-Net itself loads it next: its checkpoints are pickles.
        stored = torch.load(filename_or_checkpoint, map_location="cpu", weights_only=False, mmap=True)
        if resize_to_state_dict(self._bare_network(), stored["network_weights"]):
            self._renew_optimizer()
        super().load_checkpoint(filename_or_checkpoint)

    def _prune(self) -> None:
        settings = vars(self.ranp.changed_by(os.environ)).copy()
        network = self._bare_network()
        example = torch.zeros(1, self.num_input_channels, *self.configuration_manager.patch_size, device=self.device)
        batches = islice(self.dataloader_train, settings.pop("batches"))
        group = torch.distributed.group.WORLD if self.is_ddp else None
        result = prune(network, example, batches, step=self._loss_of, process_group=group, **settings)
        shrink_in_place(network, result.model, result.plan)
        self._renew_optimizer()
        self.print_to_log_file(f"ranp: pruned on {result.scores.batches} batches ({_summary(result.plan)})")
        self.print_to_log_file(f"\n{result.report}", add_timestamp=False)
        if self.local_rank == 0:
            write_bytes(Path(self.output_folder) / "ranp_plan.json", result.plan.to_json().encode())

    def _loss_of(self, network: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        # Not nnU-Net's float16: without the scaler, which training adjusts step by step, gradients would underflow.
        on_cuda = self.device.type == "cuda"
        bfloat16 = on_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            return self.loss(network(batch["data"]), batch["target"])  # type: ignore[no-any-return]

    def _bare_network(self) -> nn.Module:
        """The network without the wrappers of `DistributedDataParallel` and `torch.compile`."""
        network = self.network.module if self.is_ddp else self.network
        return getattr(network, "_orig_mod", network)  # type: ignore[no-any-return]

    def _renew_optimizer(self) -> None:
        """Create the optimizer, and the wrapper for several processes, for the present parameters."""
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        if self.is_ddp:
            self.network = DistributedDataParallel(self.network.module, device_ids=[self.local_rank])


def _summary(plan: Plan) -> str:
    macs, params = plan.cost.macs / plan.full_cost.macs, plan.cost.params / plan.full_cost.params
    return f"{plan.criterion}, {macs:.1%} of the MACs and {params:.1%} of the parameters"


if not TYPE_CHECKING:
    __getattr__ = renamed_names(__name__, {"Settings": "NnUNetPruning"})
