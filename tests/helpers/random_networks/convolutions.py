"""Convolutions of all kinds."""

from helpers.random_networks._writer import UnfitError, Value, Writer, divisors, on


def _dims(x: Value) -> int:
    return len(x.shape) - 2


@on("image", weight=8, variants=6)
def convolution(net: Writer, x: Value) -> Value:
    kernel, stride, dilation = net.choose(3, 1, 2), net.choose(1, 1, 1, 2), net.choose(1, 1, 1, 2)
    padding = net.choose(dilation * (kernel // 2), 0, 1, "same", "valid")
    mode = net.choose("zeros", "zeros", "zeros", "reflect", "replicate", "circular")
    more = f", stride={stride}, padding={padding!r}, dilation={dilation}, bias={net.choose(True, False)}"
    more += "" if mode == "zeros" else f", padding_mode={mode!r}"
    return net.image(f"{net.conv(x, x.width, net.width(), kernel, more)}({x})")


@on("image")
def convolution_of_uneven_kernel(net: Writer, x: Value) -> Value:
    dim = net.choose(*range(_dims(x)))
    kernel, padding = [1] * _dims(x), [0] * _dims(x)
    kernel[dim], padding[dim] = 3, 1
    conv = f"nn.Conv{_dims(x)}d({x.width}, {net.width()}, {tuple(kernel)}, padding={tuple(padding)})"
    return net.image(f"{net.layer(conv, 'conv')}({x})")


@on("image", weight=2)
def grouped_convolution(net: Writer, x: Value) -> Value:
    groups = net.choose(*divisors(x.width))
    outs = groups * net.choose(1, 2, 3)
    return net.image(f"{net.conv(x, x.width, outs, net.choose(3, 1), f', groups={groups}')}({x})")


@on("image", weight=2)
def depthwise_convolution(net: Writer, x: Value) -> Value:
    outs, bias = x.width * net.choose(1, 1, 2), net.choose(True, False)
    return net.image(f"{net.conv(x, x.width, outs, 3, f', groups={x.width}, bias={bias}')}({x})")


@on("image")
def separable_convolution(net: Writer, x: Value) -> Value:
    inner = net.conv(x, x.width, x.width, 3, f", groups={x.width}, bias=False")
    return net.image(f"{net.conv(x, x.width, net.width())}({inner}({x}))")


@on("image")
def inverted_residual(net: Writer, x: Value) -> Value:
    inner = x.width * net.choose(2, 3)
    hidden = net.let(f"{net.conv(x, x.width, inner, 1, ', bias=False')}({x})")
    norm = net.layer(f"nn.BatchNorm{_dims(x)}d({inner})", "norm")
    hidden = net.let(f"F.relu6({norm}({hidden}))")
    hidden = net.let(f"{net.conv(x, inner, inner, 3, f', groups={inner}')}({hidden})")
    return net.image(f"{x} + {net.conv(x, inner, x.width)}({hidden})")


@on("image", weight=2)
def transposed_convolution(net: Writer, x: Value) -> Value:
    stride, kernel = net.choose(2, 1), net.choose(2, 3)
    groups = net.choose(1, 1, *divisors(x.width), x.width)
    outs = groups * net.choose(4, 1, 2, 3)
    extra = net.choose(0, 0, 1)
    more = f", stride={stride}, padding={net.choose(0, 1)}, output_padding={extra}, dilation={net.choose(1, 1, 2)}"
    conv = f"nn.ConvTranspose{_dims(x)}d({x.width}, {outs}, {kernel}{more}, groups={groups}, bias={net.chance()})"
    return net.image(f"{net.layer(conv, 'conv')}({x})")


@on("image")
def patch_embedding(net: Writer, x: Value) -> Value:
    size = net.choose(2, 3)
    conv = net.layer(f"nn.Conv{_dims(x)}d({x.width}, {net.width()}, {size}, stride={size})", "conv")
    return net.tokens(f"{conv}({x}).flatten(2).transpose(1, 2)")


@on("image")
def mixed_depthwise_convolution(net: Writer, x: Value) -> Value:
    """Kernels of several sizes, each for some channels; their numbers are stored (MixNet)."""
    first = net.choose(*range(1, x.width))
    sizes = [first, x.width - first]
    stored = net.layer(str(sizes) if net.chance() else str(tuple(sizes)), "sizes")
    convs = [net.conv(x, size, size, kernel, f", groups={size}") for size, kernel in zip(sizes, (3, 1), strict=True)]
    parts = net.let(f"{x}.split({stored}, 1)" if net.chance() else f"torch.split({x}, {stored}, dim=1)")
    if net.chance():
        listed = net.layer(f"nn.ModuleList([{', '.join(convs)}])", "convs")
        return net.image(f"torch.cat([conv(part) for conv, part in zip({listed}, {parts})], 1)")
    return net.image(f"torch.cat([{convs[0]}({parts}[0]), {convs[1]}({parts}[1])], 1)")


@on("image", variants=3)
def partial_convolution(net: Writer, x: Value) -> Value:
    """Some of the channels are convolved, and the others passed on (FasterNet)."""
    part = x.width // net.choose(2, 4)
    if not part:
        raise UnfitError("too few channels")
    conv, stored = net.conv(x, part, part, 3), net.layer(str(part), "part")
    how = net.choose("split", "slice", "write")
    if how == "split":
        rest = net.layer(str(x.width - part), "rest")
        first, second = net.name("t"), net.name("t")
        net.run(f"{first}, {second} = torch.split({x}, [{stored}, {rest}], dim=1)")
        return net.image(f"torch.cat([{conv}({first}), {second}], 1)")
    if how == "slice":
        return net.image(f"torch.cat([{conv}({x}[:, :{stored}]), {x}[:, {stored}:]], 1)")
    y = net.own(x)
    net.run(f"{y}[:, :{stored}] = {conv}({y}[:, :{stored}])")
    return net.image(f"{y} * 1.5")


@on("image", variants=4)
def blur(net: Writer, x: Value) -> Value:
    """A fixed kernel for every channel."""
    kernel = net.buffer(f"torch.rand(1, 1, {', '.join('3' * _dims(x))})")
    stored = net.buffer(f"torch.rand({x.width}, 1, {', '.join('3' * _dims(x))})")
    conv = f"F.conv{_dims(x)}d"
    how = net.choose("stored", "expand", "repeat", "one by one")
    if how == "one by one":
        merged = net.let(f"{x}.reshape(-1, 1, *{x}.shape[2:])")
        return net.image(f"{conv}({merged}, {kernel}, padding=1).reshape({x}.shape)")
    ones = ", ".join("1" * (_dims(x) + 1))
    weight = {
        "stored": stored,
        "expand": f"{kernel}.expand({x}.shape[1], {', '.join(['-1'] * (_dims(x) + 1))})",
        "repeat": f"{kernel}.repeat({x}.shape[1], {ones})",
    }[how]
    groups = net.choose(f"{x}.shape[1]", str(x.width))
    return net.image(f"{conv}({x}, {weight}, padding=1, groups={groups})")


@on("image")
def convolution_of_slices(net: Writer, x: Value) -> Value:
    """One spatial dimension is moved into the batch (factorized video convolutions)."""
    x = net.in_dims(x, 2, 3)
    moved = net.let(f"{x}.transpose(1, 2).flatten(0, 1)")
    made = net.let(f"{net.conv(moved, x.width, net.width(), 3)}({moved})")
    return net.image(f"{made}.unflatten(0, ({x}.shape[0], {x}.shape[2])).transpose(1, 2)")


@on("image")
def unfolded_convolution(net: Writer, x: Value) -> Value:
    """Windows as columns, times a weight, and back to an image."""
    x, outs = net.in_dims(x, 2), net.width()
    weight = net.parameter(outs, 9 * x.width)
    unfold = net.layer("nn.Unfold(3, padding=1)") if net.choose(True, False) else ""
    columns = net.let(f"{unfold}({x})" if unfold else f"F.unfold({x}, 3, padding=1)")
    return net.image(f"({weight} @ {columns}).unflatten(2, {x}.shape[2:])")


@on("image")
def columns_and_back(net: Writer, x: Value) -> Value:
    """`Fold` adds up the windows that `Unfold` takes apart."""
    x = net.in_dims(x, 2)
    columns = net.let(f"F.unfold({x}, 2, stride=2)")
    size = tuple(2 * (side // 2) for side in x.positions)
    fold = net.layer(f"nn.Fold({size}, 2, stride=2)") if net.chance() else ""
    return net.image(f"{fold}({columns} * 1.5)" if fold else f"F.fold({columns}.relu(), {size}, 2, stride=2)")


@on("image")
def linear_along_channels(net: Writer, x: Value) -> Value:
    """A linear layer on images whose channels come last (ConvNeXt)."""
    moved = net.let(f"{x}.movedim(1, -1)")
    norm = net.layer(f"nn.LayerNorm({x.width})", "norm") if net.chance() else ""
    inner = net.width()
    up, down = net.layer(f"nn.Linear({x.width}, {inner})"), net.layer(f"nn.Linear({inner}, {x.width})")
    made = net.let(f"{down}(F.gelu({up}({norm}({moved}))))")
    if net.chance():
        made = net.let(f"{net.layer(f'nn.Parameter(1e-1 * torch.ones({x.width}))', 'gamma')} * {made}")
    return net.image(f"{x} + {made}.movedim(-1, 1)")


@on("image")
def linear_along_positions(net: Writer, x: Value) -> Value:
    """A linear layer on the last spatial dimension."""
    return net.image(f"{net.layer(f'nn.Linear({x.shape[-1]}, {net.choose(4, 3, 5)})')}({x})")


@on("tokens")
def convolution_of_tokens(net: Writer, x: Value) -> Value:
    moved = net.let(f"{x}.transpose(1, 2)")
    conv = net.conv(moved, x.width, net.width(), 3)
    return net.tokens(f"{conv}({moved}).transpose(1, 2)")


@on("tokens", weight=3)
def linear(net: Writer, x: Value) -> Value:
    bias = net.choose(True, False)
    return net.tokens(f"{net.layer(f'nn.Linear({x.width}, {net.width()}, bias={bias})')}({x})")


@on("vector", weight=4)
def linear_of_vectors(net: Writer, x: Value) -> Value:
    bias = net.choose(True, False)
    return net.vector(f"{net.layer(f'nn.Linear({x.width}, {net.width()}, bias={bias})')}({x})")


@on("vector", "vector")
def bilinear(net: Writer, x: Value, y: Value) -> Value:
    return net.vector(f"{net.layer(f'nn.Bilinear({x.width}, {y.width}, {net.width()})')}({x}, {y})")
