"""A user's folder, with networks, batches and losses of their own, good and bad."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from ranp.cli import app

Ranp = Callable[..., Result]

NETS = """
import os
import signal

import torch
from torch import nn

print("nets is imported")


def build(width=8, classes=3):
    if width % 2:
        raise ValueError(f"width must be even, not {width}")
    first, last = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, classes, 1)
    return nn.Sequential(first, nn.BatchNorm2d(width), nn.ReLU(), last)


def needs(in_channels, *, act="relu"):
    return nn.Conv2d(in_channels, 3, 1)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.one, self.two = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 2, 1), nn.Conv2d(8, 1, 1)

    def forward(self, x):
        x = self.body(x)
        return self.one(x), self.two(x)


def one_class():
    return build(classes=1)


def fails_in_torch():
    return nn.Conv2d("one", 3, 1)


def leaves():
    raise SystemExit(3)


def number():
    return 5


def batches():
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        yield torch.randn(2, 1, 8, 8, generator=generator), torch.randint(3, (2, 8, 8), generator=generator)


def interrupted():
    yield from list(batches())[:1]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background processes may inherit none
    os.kill(os.getpid(), signal.SIGINT)


def broken():
    yield from list(batches())[:1]
    raise OSError("no such disk")


def no_pairs():
    return [torch.zeros(2, 1, 8, 8)]


def none():
    return []


def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets)


class Loss(nn.CrossEntropyLoss):
    pass


def vector(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


def failing(outputs, targets):
    return outputs.nothing
"""


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    (folder / "nets.py").write_text(NETS)
    (folder / "syntax.py").write_text("def build(:\n")
    (folder / "imports.py").write_text("import nothing_of_that_name\n")
    inputs, targets = torch.randn(5, 1, 8, 8), torch.randint(3, (5, 8, 8))
    np.savez(folder / "good.npz", inputs=inputs.numpy().astype(np.float64), targets=targets.numpy().astype(np.uint8))
    np.savez(folder / "half.npz", inputs=inputs.numpy())
    np.savez(folder / "odd.npz", inputs=inputs.numpy(), targets=targets.numpy()[:3])
    np.savez(folder / "code.npz", inputs=np.array([Path("/")], dtype=object), targets=targets.numpy())
    save_file({"inputs": inputs, "targets": targets}, folder / "good.safetensors")
    torch.save({"inputs": inputs, "targets": targets}, folder / "good.pt")
    torch.save(Path("/"), folder / "code.pt")
    (folder / "damaged.npz").write_bytes(b"PK\x03\x04 no archive")
    (folder / "taken").mkdir()
    (folder / "words.json").write_text('{"format": "shopping-list"}')
    (folder / "words.yaml").write_text("just words")
    return folder


@pytest.fixture
def user(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, as working directory."""
    monkeypatch.chdir(made)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    return made


@pytest.fixture
def ranp(user: Path) -> Ranp:
    """Runs a command line there."""
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])
