"""Tracing changes nothing that other threads could observe, not even while it runs."""

import gc
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.modules.module as module_state
from torch import Tensor, nn

import ranp
from helpers.networks import Net, image
from ranp.errors import TraceError

X = image(2, 3, 7, 7)()
LOGGER = logging.getLogger("torch._subclasses.fake_tensor")


def process_state() -> tuple[Any, ...]:
    """What tracing might be tempted to change for the whole process."""
    hooks = [value for name, value in sorted(vars(module_state).items()) if name.startswith("_global_")]
    return (
        vars(nn.Module).get("training"),
        tuple(tuple(entry) if isinstance(entry, dict) else entry for entry in hooks),
        torch.backends.mha.get_fastpath_enabled(),
        (LOGGER.level, LOGGER.disabled, len(LOGGER.filters), logging.root.manager.disable),
        gc.isenabled(),
        # Other packages may be imported meanwhile; a class that tracing makes is of this package.
        sum(kind.__module__.startswith("ranp") for kind in nn.Conv2d.__subclasses__()),
        nn.Module._call_impl,
    )


@contextmanager
def watched() -> Iterator[set[tuple[Any, ...]]]:
    """Collect all states of the process that another thread sees."""
    seen, done = {process_state()}, threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add(process_state())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


class StochasticDepth(nn.Module):
    """Drops samples in training."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rand(len(x), 1, 1, 1).round() if self.training else x


def stochastic_depth() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), StochasticDepth(), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 1))


def head_for_training() -> nn.Module:
    def run(net: Any, x: Tensor) -> Any:
        y = net.body(x).relu()
        return (net.head(y), net.side(y)) if net.training else net.head(y)

    return Net(run, body=nn.Conv2d(3, 6, 3), side=nn.Conv2d(6, 3, 1), head=nn.Conv2d(6, 2, 1))


def attention(block: Callable[[], nn.Module], *, depends_on_device: bool, **options: Any) -> Callable[[], nn.Module]:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x).flatten(2).transpose(1, 2)
        if depends_on_device:  # A real tensor: only fake tensors can run this.
            y = y + torch.zeros(y.shape[-1], device="cpu")
        given = {name: torch.zeros(value, dtype=torch.bool, device=y.device) for name, value in options.items()}
        y = net.block(y, y, y)[0] if isinstance(net.block, nn.MultiheadAttention) else net.block(y, **given)
        return net.head(y)

    return lambda: Net(run, body=nn.Conv2d(3, 8, 3), block=block(), head=nn.Linear(8, 2)).eval()


def multihead() -> nn.Module:
    return nn.MultiheadAttention(8, 2, batch_first=True)


def layer(**options: Any) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, **options)


ATTENTION: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "multi-head attention": (multihead, {}),
    "encoder layer": (layer, {}),
    "encoder layer, norm first": (lambda: layer(norm_first=True, activation="gelu"), {}),
    "encoder": (lambda: nn.TransformerEncoder(layer(), 2), {}),
    "encoder with mask": (lambda: nn.TransformerEncoder(layer(), 2), {"src_key_padding_mask": (2, 25)}),
}

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "stochastic depth": stochastic_depth,
    "head for training": head_for_training,
    **{name: attention(block, depends_on_device=False, **given) for name, (block, given) in ATTENTION.items()},
    "attention on its device": attention(multihead, depends_on_device=True),
}


def failing() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.body(x)[:, :-1])

    return Net(run, body=nn.Conv2d(3, 6, 3), head=nn.Conv2d(6, 2, 1))


def found(model: nn.Module) -> dict[str, Any]:
    """What a trace finds, in a form that can be compared."""
    graph = ranp.trace(model, X)
    return {
        "groups": [(group.name, group.width, len(group.members)) for group in graph.groups],
        "unprunable": graph.unprunable,
        "nodes": graph.nodes,
        "cost": graph.cost(),
        "missed": graph.untraced_training_mode,
    }


def test_traces_of_several_threads_change_no_state_of_the_process() -> None:
    expected = {name: found(build()) for name, build in NETWORKS.items()}
    models = {name: build() for name, build in NETWORKS.items()}  # Before watching: these make no subclasses either.

    def fail() -> None:
        with pytest.raises(TraceError, match="forward of head"):
            ranp.trace(failing(), X)

    fail()  # Some versions of torch import modules on the first error, and those hold subclasses of layers.
    with watched() as seen, ThreadPoolExecutor(4) as pool:
        results = [(name, pool.submit(found, model)) for _ in range(3) for name, model in models.items()]
        failures = [pool.submit(fail) for _ in range(6)]
        for name, result in results:
            assert result.result() == expected[name], name
        for failure in failures:
            failure.result()
    assert len(seen) == 1


def test_the_state_of_the_process_is_seen_to_change() -> None:
    """Without this, the test above could watch nothing."""
    with watched() as seen:
        torch.backends.mha.set_fastpath_enabled(False)
        threading.Event().wait(0.1)
        torch.backends.mha.set_fastpath_enabled(True)
    assert len(seen) == 2


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_traced_as_ordinary_operators(name: str) -> None:
    """In eval mode without gradients it would run as one operator on a device, of which no rule knows."""
    block, given = ATTENTION[name]
    on_meta, fake = (
        ranp.trace(attention(block, depends_on_device=flag, **given)().requires_grad_(False), X)
        for flag in (False, True)
    )
    assert [group.width for group in fake.groups] == [group.width for group in on_meta.groups]
    for graph in (on_meta, fake):
        ran = {allocation.operator for allocation in graph.costs.outputs}
        assert not ran & {"_native_multi_head_attention", "_transformer_encoder_layer_fwd", "_nested_tensor_from_mask"}
        assert ran & {"bmm", "baddbmm", "addmm", "mm"}


def test_nothing_is_logged_where_a_width_turns_out_to_be_relied_on() -> None:
    """Fake tensors log the error of every operator that fails, although the trial expects that."""
    records: list[logging.LogRecord] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x + torch.zeros(3, 1, 1, device="cpu")).relu()
        return net.head(y.movedim(1, -1) @ torch.ones(6, 4, device="cpu"))

    handler = Collect()
    LOGGER.addHandler(handler)
    try:
        graph = ranp.trace(Net(run, body=nn.Conv2d(3, 6, 3), head=nn.Linear(4, 2)), X)
        with pytest.raises(TraceError):
            ranp.trace(Net(run, body=nn.Conv2d(3, 5, 3), head=nn.Linear(4, 2)), X)
    finally:
        LOGGER.removeHandler(handler)
    assert not graph.groups
    assert not records
