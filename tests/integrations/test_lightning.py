"""The callback against `ranp.prune` on the same batches, and a resumed training against one that was not stopped."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

import ranp
from ranp.errors import InputError, PlanError
from ranp.integrations import attach_plan, attached_plan
from ranp.integrations.lightning import RanpPruning
from ranp.models import UNet3D

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.`"),
]
BUDGET = ranp.Budget(macs=0.3)


def batches(count: int = 4) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [
        (torch.randn(2, 1, 8, 8, 8, generator=generator), torch.randint(0, 3, (2, 8, 8, 8), generator=generator))
        for _ in range(count)
    ]


def loader(size: int = 2) -> Any:
    images, labels = (torch.cat(part) for part in zip(*batches(), strict=True))
    return DataLoader(TensorDataset(images, labels), batch_size=size)


class Segmenter(pl.LightningModule):
    """As people write them: it logs, keeps a metric, and collects outputs in a list."""

    def __init__(self, follows: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = UNet3D(1, 3, 4, levels=2)
        self.accuracy = MulticlassAccuracy(3)
        self.losses: list[Tensor] = []
        if follows:
            attach_plan(self.net)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.net(images)
        return out

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        out = self(batch[0])
        loss = nn.functional.cross_entropy(out, batch[1])
        self.losses.append(loss.detach())
        self.log("accuracy", self.accuracy(out, batch[1]))
        return {"loss": loss}

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def trainer(folder: Path, *callbacks: pl.Callback, epochs: int = 1, **options: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=list(callbacks),
        default_root_dir=folder,
        **{**quiet, **options},
    )


def expected_plan(**options: Any) -> ranp.Plan:
    net, loss = Segmenter().net, nn.functional.cross_entropy
    return ranp.prune(net, batches()[0][0], batches(), loss, budget=BUDGET, **options).plan


def assert_same_weights(first: nn.Module, second: nn.Module) -> None:
    pairs = first.state_dict(), second.state_dict()
    assert pairs[0].keys() == pairs[1].keys()
    assert all(torch.equal(value, pairs[1][name]) for name, value in pairs[0].items())


class AtStart(pl.Callback):
    """What is there when the first step is about to be taken."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        held = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
        assert held == {id(p) for p in pl_module.parameters()}
        assert pl_module.losses == []
        assert pl_module.accuracy._update_count == 0
        self.norm = {name: buffer.clone() for name, buffer in pl_module.net.named_buffers()}
        self.weights = {name: p.detach().clone() for name, p in pl_module.net.named_parameters()}


@pytest.mark.parametrize("options", [{}, {"criterion": "ranp-m", "importance": "neuron", "round_to": 2}])
def test_the_plan_is_that_of_prune_on_the_same_batches(options: Any, tmp_path: Path) -> None:
    module, start = Segmenter(), AtStart()
    trainer(tmp_path, RanpPruning(BUDGET, batches=4, **options), start).fit(module, loader())
    plan = expected_plan(**options)
    assert attached_plan(module.net) == plan
    assert module.net.get_submodule("head").in_channels < 4
    small = ranp.apply(Segmenter().net, plan)
    assert start.weights.keys() == dict(small.named_parameters()).keys()
    assert all(torch.equal(start.weights[name], p) for name, p in small.named_parameters())
    assert all(torch.equal(start.norm[name], buffer) for name, buffer in small.named_buffers())


def test_fewer_batches_and_batches_of_ones_own(tmp_path: Path) -> None:
    plans = []
    for given in (2, batches()[:2]):
        module = Segmenter()
        trainer(tmp_path, RanpPruning(BUDGET, batches=given)).fit(module, loader())
        plans.append(attached_plan(module.net))
    assert plans[0] == plans[1]
    callback = RanpPruning(BUDGET, batches=2, example_inputs=torch.zeros(1, 1, 16, 16, 16))
    trainer(tmp_path, callback).fit(Segmenter(), loader())
    assert callback.result is not None
    assert callback.result.scores.batches == 2
    assert plans[0] is not None
    assert callback.result.plan.full_cost.macs == 4 * plans[0].full_cost.macs  # eight times the positions, half a batch


def test_going_on_from_a_checkpoint_gives_the_weights_of_one_training(tmp_path: Path) -> None:
    whole = Segmenter()
    trainer(tmp_path, RanpPruning(BUDGET), epochs=3).fit(whole, loader())
    first = Segmenter()
    half = trainer(tmp_path / "parts", RanpPruning(BUDGET), epochs=1)
    half.fit(first, loader())
    half.save_checkpoint(tmp_path / "half.ckpt")
    second, callback = Segmenter(), RanpPruning(BUDGET)
    trainer(tmp_path / "parts", callback, AtResume(), epochs=3).fit(second, loader(), ckpt_path=tmp_path / "half.ckpt")
    assert callback.result is None  # nothing was scored again
    assert_same_weights(second, whole)


class AtResume(pl.Callback):
    """The optimizer goes on with the moments of the checkpoint."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        states = trainer.optimizers[0].state
        assert len(states) == len(list(pl_module.parameters()))
        assert all(states[p]["exp_avg"].shape == p.shape for p in pl_module.parameters())


def test_checkpoints_are_read_without_running_code(tmp_path: Path) -> None:
    module = Segmenter()
    run = trainer(tmp_path, RanpPruning(BUDGET))
    run.fit(module, loader())
    run.save_checkpoint(tmp_path / "last.ckpt")
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    plain = attach_plan(UNet3D(1, 3, 4, levels=2))
    plain.load_state_dict({name.removeprefix("net."): value for name, value in stored.items() if name[:4] == "net."})
    assert_same_weights(plain, module.net)

    read = Segmenter.load_from_checkpoint(tmp_path / "last.ckpt", follows=True, weights_only=True)
    assert_same_weights(read, module)

    tested = Segmenter()
    results = [
        trainer(tmp_path, RanpPruning(BUDGET)).test(tested, loader(), ckpt_path=tmp_path / "last.ckpt", verbose=False),
        trainer(tmp_path).test(module, loader(), verbose=False),
    ]
    assert results[0] == results[1]
    assert_same_weights(tested, module)


def test_a_second_fit_prunes_no_more(tmp_path: Path) -> None:
    module, callback = Segmenter(), RanpPruning(BUDGET)
    trainer(tmp_path, callback).fit(module, loader())
    plan = attached_plan(module.net)
    again = RanpPruning(ranp.Budget(macs=0.1))
    trainer(tmp_path, again).fit(module, loader())
    assert again.result is None
    assert attached_plan(module.net) == plan


class Draws(pl.Callback):
    """The state of torch's random numbers when it is this callback's turn to start."""

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self.state = torch.get_rng_state()


def test_random_numbers_are_those_of_a_training_without_it(tmp_path: Path) -> None:
    before, after = Draws(), Draws()
    images, labels = (torch.cat(part) for part in zip(*batches(), strict=True))
    shuffled: Any = DataLoader(TensorDataset(images, labels), batch_size=2, shuffle=True)
    trainer(tmp_path, before, RanpPruning(BUDGET), after).fit(Segmenter(), shuffled)
    assert torch.equal(before.state, after.state)


class Named(Segmenter):
    def training_step(self, batch: Any) -> Tensor:  # type: ignore[override]
        return nn.functional.cross_entropy(self.net(x=batch[0]), batch[1])


class Two(Segmenter):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(1, 1)


class Manual(Segmenter):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


def test_keyword_arguments_and_a_step_without_an_index(tmp_path: Path) -> None:
    module = Named()
    trainer(tmp_path, RanpPruning(BUDGET)).fit(module, loader())
    assert attached_plan(module.net) == expected_plan()


def test_one_of_several_networks(tmp_path: Path) -> None:
    module = Two()
    trainer(tmp_path, RanpPruning(BUDGET, network="net")).fit(module, loader())
    assert attached_plan(module.net) == expected_plan()
    with pytest.raises(InputError, match=r"2 children with parameters in Two \(net, other\)"):
        trainer(tmp_path, RanpPruning(BUDGET)).fit(Two(), loader())
    with pytest.raises(InputError, match="did you mean 'net'"):
        trainer(tmp_path, RanpPruning(BUDGET, network="nett")).fit(Two(), loader())


def test_what_cannot_be_pruned_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'criterion'"):
        RanpPruning(BUDGET, criterium="ranp-m")
    with pytest.raises(InputError, match="manual optimization"):
        trainer(tmp_path, RanpPruning(BUDGET)).fit(Manual(), loader())
    with pytest.raises(InputError, match="no training batches"):
        trainer(tmp_path, RanpPruning(BUDGET, batches=[])).fit(Segmenter(), loader())
    full = trainer(tmp_path)
    full.fit(Segmenter(), loader())
    full.save_checkpoint(tmp_path / "full.ckpt")
    with pytest.raises(PlanError, match="of a full network"):
        trainer(tmp_path, RanpPruning(BUDGET), epochs=2).fit(Segmenter(), loader(), ckpt_path=tmp_path / "full.ckpt")


# As torchrun would, but with the imports made once.
PAIR = """
import os, sys
import torch
torch.set_num_threads(1)
from pathlib import Path
import test_lightning as this
folder = Path(sys.argv[1])
world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[2]}
children = []
for rank in range(2):
    child = os.fork()
    if not child:
        os.environ.update(world, RANK=str(rank), LOCAL_RANK=str(rank), GROUP_RANK="0", TORCHELASTIC_RUN_ID="test")
        module = this.Segmenter()
        for p in module.parameters():
            p.data += rank  # The first process decides.
        this.trainer(folder, this.RanpPruning(this.BUDGET), devices=2, strategy="ddp").fit(module, this.loader(1))
        torch.save(module.state_dict(), folder / f"{rank}.pt")
        os._exit(0)
    children.append(child)
sys.exit(max(os.waitpid(child, 0)[1] for child in children) != 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_two_processes_make_the_plan_of_one(tmp_path: Path) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PAIR, str(tmp_path), port]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    pair = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert all(torch.equal(value, pair[1][name]) for name, value in pair[0].items() if "running" not in name)
    alone = Segmenter()
    trainer(tmp_path, RanpPruning(BUDGET)).fit(alone, loader(1))
    both = attach_plan(Segmenter().net)
    both.load_state_dict({name.removeprefix("net."): value for name, value in pair[0].items() if name[:4] == "net."})
    assert attached_plan(both) == attached_plan(alone.net)
    assert any(not torch.equal(p, q) for p, q in zip(both.parameters(), alone.net.parameters(), strict=True))
