"""Recurrent layers."""

import torch

from helpers.random_networks._writer import UnfitError, Value, Writer, on

LONGEST = 12  # Every token is several operators.


def _require_few(x: Value) -> None:
    if torch.Size(x.positions).numel() > LONGEST:
        raise UnfitError("too many tokens")


@on("tokens", weight=2, variants=5)
def recurrent(net: Writer, x: Value) -> Value:
    _require_few(x)
    name, width = net.choose("LSTM", "GRU", "RNN"), net.choose(4, 3, 6)
    more = net.choose("", ", bidirectional=True", ", num_layers=2", ", bias=False", ", num_layers=2, dropout=0.1")
    more += ", proj_size=2" if name == "LSTM" and net.chance() else ""
    first = net.choose(True, False)
    layer = net.layer(f"nn.{name}({x.width}, {width}{more}, batch_first={first})", "recurrent")
    if first:
        return net.tokens(f"{layer}({x})[0]")
    return net.tokens(f"{layer}({x}.transpose(0, 1))[0].transpose(0, 1)")


@on("tokens", variants=3)
def last_state(net: Writer, x: Value) -> Value:
    _require_few(x)
    name, width = net.choose("GRU", "LSTM", "RNN"), net.choose(4, 3)
    layer = net.layer(f"nn.{name}({x.width}, {width}, batch_first=True)", "recurrent")
    state = net.let(f"{layer}({x})[1]{'[0]' if name == 'LSTM' else ''}")
    return net.vector(f"{state}[-1]")


@on("tokens", variants=3)
def recurrent_cell(net: Writer, x: Value) -> Value:
    """A loop over tokens."""
    _require_few(x)
    name, width = net.choose("GRUCell", "LSTMCell", "RNNCell"), net.choose(4, 3)
    cell = net.layer(f"nn.{name}({x.width}, {width})", "cell")
    state = net.let("None")
    states = net.let("[]")
    picked = "[0]" if name == "LSTMCell" else ""
    net.run(f"for token in {x}.unbind(1): {state} = {cell}(token, {state}); {states}.append({state}{picked})")
    return net.tokens(f"torch.stack({states}, dim=1)")


@on("image")
def convolutional_recurrence(net: Writer, x: Value) -> Value:
    """ConvLSTM or ConvGRU: gates are convolutions of input and state."""
    width = net.choose(4, 3, 6)
    state = net.let(f"{x}.new_zeros({x}.shape[0], {width}, *{x}.shape[2:])")
    if net.chance():
        gates, new = net.conv(x, x.width + width, 2 * width, 3), net.conv(x, x.width + width, width, 3)
        r, z = net.name("t"), net.name("t")
        for _ in range(2):
            net.run(f"{r}, {z} = {gates}(torch.cat([{x}, {state}], 1)).sigmoid().chunk(2, 1)")
            net.run(f"{state} = (1 - {z}) * {state} + {z} * {new}(torch.cat([{x}, {r} * {state}], 1)).tanh()")
        return net.image(f"{state} * 1.5")
    gates, memory = net.conv(x, x.width + width, 4 * width, 3), net.let(f"{state}.clone()")
    i, f, o, g = (net.name("t") for _ in range(4))
    for _ in range(2):
        net.run(f"{i}, {f}, {o}, {g} = {gates}(torch.cat([{x}, {state}], 1)).chunk(4, dim=1)")
        net.run(f"{memory} = {f}.sigmoid() * {memory} + {i}.sigmoid() * {g}.tanh()")
        net.run(f"{state} = {o}.sigmoid() * {memory}.tanh()")
    return net.image(f"{state} * 1.5")


@on("image")
def recurrence_over_positions(net: Writer, x: Value) -> Value:
    _require_few(x)
    layer = net.layer(f"nn.GRU({x.width}, {x.width}, batch_first=True)", "recurrent")
    made = net.let(f"{layer}({x}.flatten(2).transpose(1, 2))[0]")
    return net.image(f"{x} + {made}.transpose(1, 2).view({x}.shape)")


@on("tokens")
def state_space(net: Writer, x: Value) -> Value:
    """A linear recurrence with a decay for every channel."""
    _require_few(x)
    decay, state = net.parameter(x.width), net.let(f"torch.zeros_like({x}[:, 0])")
    states = net.let("[]")
    net.run(f"for token in {x}.unbind(1): {state} = {decay}.sigmoid() * {state} + token; {states}.append({state})")
    return net.tokens(f"torch.stack({states}, 1)")
