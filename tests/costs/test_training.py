"""A training setup takes the step that it states, and refuses what it cannot mean."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from ranp import TrainingSetup
from ranp.errors import InputError


def _network() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 2, 1))


_BATCH = torch.randn(2, 1, 4, 4, 4), torch.randint(0, 2, (2, 4, 4, 4))


def _train(setup: TrainingSetup, model: nn.Module, batch: Any = _BATCH, steps: int = 2) -> list[float]:
    trained = setup.prepare(model)
    optimizer = setup.make_optimizer(trained)
    batch = setup.prepare_batch(batch, torch.device("cpu"))
    return [float(setup.run_step(trained, batch, optimizer)) for _ in range(steps)]


def test_a_step_is_what_a_plain_loop_does() -> None:
    model, same = _network(), _network()
    same.load_state_dict(model.state_dict())
    losses = _train(TrainingSetup(loss_fn=nn.functional.cross_entropy), model)
    optimizer, expected = AdamW(same.train().parameters(), lr=1e-3), []
    for _ in range(2):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(same(_BATCH[0]), _BATCH[1])
        loss.backward()
        optimizer.step()
        expected.append(float(loss.detach()))
    assert losses == expected
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))


def test_without_a_loss_it_is_the_mean_square_of_every_output() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1, bias=False)

        def forward(self, x: Tensor) -> dict[str, Any]:
            return {"a": self.layer(x), "b": [2 * self.layer(x), x.long()]}

    model, x = Two(), torch.tensor([[1.0, 2.0, 3.0]])
    setup = TrainingSetup()
    expected = 5 * float((model.layer.weight.detach() @ x[0]).square())
    assert float(setup.loss(model, setup.example_batch(x)).detach()) == pytest.approx(expected)


def test_step_computes_the_loss_of_any_batch() -> None:
    setup = TrainingSetup(step=lambda model, batch: model(batch["image"]).mean(), batch={"image": _BATCH[0]})
    assert len(_train(setup, _network(), setup.example_batch())) == 2


@pytest.mark.parametrize(
    ("precision", "weights", "activations"),
    [
        ("float32", torch.float32, torch.float32),
        ("bf16-mixed", torch.float32, torch.bfloat16),
        ("bfloat16", torch.bfloat16, torch.bfloat16),
    ],
)
def test_precision(precision: Any, weights: torch.dtype, activations: torch.dtype) -> None:
    model, seen = _network(), []
    model[0].register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    _train(TrainingSetup(precision=precision), model)
    assert {parameter.dtype for parameter in model.parameters()} == {weights}
    assert set(seen) == {activations}


def test_the_gradient_scaler_changes_no_step() -> None:
    # On the CPU, autocast in float16 runs convolutions of few torch versions; a linear layer runs in all.
    model, same = nn.Linear(3, 2), nn.Linear(3, 2)
    same.load_state_dict(model.state_dict())
    batch = torch.randn(4, 3), None
    _train(TrainingSetup(precision="16-mixed"), model, batch)
    _train(TrainingSetup(precision="float32"), same, batch)
    assert model.weight.detach().numpy() == pytest.approx(same.weight.detach().numpy(), abs=1e-4)
    assert not torch.equal(model.weight, nn.Parameter(torch.zeros_like(model.weight)))


def test_lightning_names_its_precisions_in_another_way() -> None:
    assert TrainingSetup(precision="bf16-true") == TrainingSetup(precision="bfloat16")  # type: ignore[arg-type]
    assert TrainingSetup(precision="32-true") == TrainingSetup()  # type: ignore[arg-type]


def test_channels_last_weights_make_channels_last_activations() -> None:
    model, seen = _network(), []
    model[2].register_forward_hook(lambda module, args, out: seen.append(out))
    _train(TrainingSetup(channels_last=True), model, steps=1)
    assert seen[0].is_contiguous(memory_format=torch.channels_last_3d)
    assert not seen[0].is_contiguous()


def test_optimizers_by_name_and_by_factory() -> None:
    model = _network()
    model[0].requires_grad_(False)
    named = TrainingSetup(optimizer="sgd").make_optimizer(model)
    assert isinstance(named, SGD)
    assert named.param_groups[0]["momentum"] == 0.9
    assert len(named.param_groups[0]["params"]) == 4
    made = TrainingSetup(optimizer=partial(SGD, lr=1e-4, nesterov=True, momentum=0.5)).make_optimizer(model)
    assert made.param_groups[0]["nesterov"]


def test_threads_are_limited_and_restored() -> None:
    before = torch.get_num_threads()
    with TrainingSetup(threads=before + 1).limit_threads():
        assert torch.get_num_threads() == before + 1
    with TrainingSetup().limit_threads():
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before


def test_the_key_is_data_and_tells_setups_apart() -> None:
    import json

    device = torch.device("cpu")
    setups = [
        TrainingSetup(),
        TrainingSetup(precision="bf16-mixed"),
        TrainingSetup(channels_last=True),
        TrainingSetup(compile=True),
        TrainingSetup(threads=3),
        TrainingSetup(optimizer="sgd"),
        TrainingSetup(loss_fn=nn.functional.mse_loss),
    ]
    assert len({json.dumps(setup.key(device), sort_keys=True) for setup in setups}) == len(setups)
    assert TrainingSetup().key(device) == TrainingSetup(threads=torch.get_num_threads()).key(device)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "fp16"}, r"precision: 'fp16' is unknown; .*known: 16-mixed, bf16-mixed, bfloat16, float32"),
        ({"optimizer": "addamw"}, r"optimizer: 'addamw' is unknown; did you mean 'adamw'\?"),
        ({"device": "gpu"}, r"device: 'gpu' is not a device of torch"),
        ({"threads": 0}, r"threads: got 0; expected an integer of at least 1"),
        ({"loss_fn": "dice"}, r"loss_fn: got 'dice'; expected a function"),
        ({"loss_fn": len, "step": len}, r"both loss_fn and step are given"),
    ],
)
def test_what_it_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"TrainingSetup.*{message}"):
        TrainingSetup(**arguments)


def test_a_loss_needs_targets() -> None:
    with pytest.raises(InputError, match=r"batch: got None; expected an example of a pair \(inputs, targets\)"):
        TrainingSetup(loss_fn=nn.functional.cross_entropy).example_batch(_BATCH[0])


def test_outputs_without_a_number_have_no_default_loss() -> None:
    class Classes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.long()

    with pytest.raises(InputError, match=r"loss: got a tensor of shape \(1,\); expected outputs with a floating-point"):
        TrainingSetup().loss(Classes(), (torch.ones(1), None))
