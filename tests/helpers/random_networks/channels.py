"""Reshapes, cuts, and writes of channels."""

from helpers.random_networks._writer import UnfitError, Value, Writer, divisors, on


def _dims(x: Value) -> int:
    return len(x.shape) - 2


def _even(x: Value) -> int:
    if x.width % 2 or x.width < 4:
        raise UnfitError("not an even number of channels")
    return x.width // 2


# -- layouts -----------------------------------------------------------------------------------------------------------


@on("image", weight=2, variants=4)
def image_to_tokens(net: Writer, x: Value) -> Value:
    code = net.choose(
        "{0}.flatten(2).transpose(1, 2)",
        "{0}.reshape(*{0}.shape[:2], -1).permute(0, 2, 1)",
        "{0}.view({0}.size(0), {0}.size(1), -1).mT.contiguous()",
        "{0}.movedim(1, -1).flatten(1, -2)",
    )
    return net.tokens(code.format(x))


@on("tokens", weight=2, variants=4)
def tokens_to_image(net: Writer, x: Value) -> Value:
    """As many positions as there are tokens, in two dimensions or one."""
    length = x.shape[1]
    rows = next((rows for rows in (3, 2, 5) if length % rows == 0 and length > rows), 1)
    shape = f"{rows}, {length // rows}" if rows > 1 and not net.chance() else str(length)
    code = net.choose(
        f"{{0}}.transpose(1, 2).reshape({{0}}.shape[0], -1, {shape})",
        f"{{0}}.transpose(1, 2).reshape({{0}}.shape[0], {{0}}.shape[2], {shape})",
        f"{{0}}.transpose(1, 2).unflatten(2, ({shape},))",
        f"{{0}}.mT.contiguous().view({x.shape[0]}, -1, {shape})",
    )
    return net.image(code.format(x))


@on("tokens", variants=5)
def tokens_to_vector(net: Writer, x: Value) -> Value:
    code = net.choose("{0}.mean(1)", "{0}[:, 0]", "{0}.amax(dim=1)", "{0}.select(1, -1)", "{0}.sum(1) / {0}.shape[1]")
    return net.vector(code.format(x))


@on("vector", variants=3)
def vector_to_tokens(net: Writer, x: Value) -> Value:
    """Features are split into tokens, or repeated."""
    how = net.choose("repeat", "tokens", "channels")
    if how == "repeat":
        return net.tokens(f"{x}[:, None].expand(-1, 4, -1) + {net.parameter(4, 1)}")
    width, linear = net.width(), net.layer
    if how == "tokens":
        return net.tokens(f"{linear(f'nn.Linear({x.width}, {4 * width})')}({x}).view(-1, 4, {width})")
    return net.tokens(f"{linear(f'nn.Linear({x.width}, {4 * width})')}({x}).unflatten(1, (-1, 4)).transpose(1, 2)")


@on("vector", variants=3)
def vector_to_image(net: Writer, x: Value) -> Value:
    """Features make the positions of every channel."""
    dims, width = net.options["dims"], net.width()
    sides = ", ".join("2" * dims)
    linear = net.layer(f"nn.Linear({x.width}, {width * 2**dims})")
    code = net.choose(
        f".view(-1, {width}, {sides})", f".view({x}.shape[0], -1, {sides})", f".unflatten(1, (-1, {sides}))"
    )
    return net.image(f"{linear}({x}){code}")


# -- blocks of channels ------------------------------------------------------------------------------------------------


@on("image", weight=2, variants=3)
def channel_shuffle(net: Writer, x: Value) -> Value:
    how, blocks = net.choose("by hand", "function", "module"), net.choose(*divisors(x.width))
    if how == "module":
        return net.image(f"{net.layer(f'nn.ChannelShuffle({blocks})')}({net.in_dims(x, 2)})")
    if how == "function":
        return net.image(f"F.channel_shuffle({x}, {blocks})")
    size = net.choose(f"{x}.shape[1] // {blocks}", "-1")
    split = net.let(f"{x}.reshape({x}.shape[0], {blocks}, {size}, *{x}.shape[2:])")
    return net.image(f"{split}.transpose(1, 2).reshape({x}.shape[0], -1, *{x}.shape[2:])")


@on("image", variants=3)
def pixel_shuffle(net: Writer, x: Value) -> Value:
    """Channels to positions; by torch in two dimensions, by hand in any."""
    how = net.choose("by hand", "function", "module")
    x = x if how == "by hand" else net.in_dims(x, 2)
    factor = 2 ** _dims(x)
    wide = net.let(f"{net.conv(x, x.width, factor * net.choose(2, 1, 4))}({x})")
    if how != "by hand":
        layer = net.layer("nn.PixelShuffle(2)") if how == "module" else ""
        return net.image(f"{layer}({wide})" if layer else f"F.pixel_shuffle({wide}, 2)")
    dims = _dims(x)
    twos = ", ".join("2" * dims)
    split = net.let(f"{wide}.view({wide}.shape[0], {wide}.shape[1] // {factor}, {twos}, *{wide}.shape[2:])")
    order = ", ".join(f"{2 + dims + dim}, {2 + dim}" for dim in range(dims))
    sides = ", ".join(str(2 * side) for side in x.positions)
    return net.image(f"{split}.permute(0, 1, {order}).reshape({wide}.shape[0], -1, {sides})")


@on("image", variants=3)
def pixel_unshuffle(net: Writer, x: Value) -> Value:
    """Positions to channels, by torch, by slices (YOLO's focus) or by a view."""
    how = net.choose("slices", "function", "module")
    x = x if how == "slices" else net.in_dims(x, 2)
    if any(side % 2 for side in x.positions):
        raise UnfitError("odd size")
    if how == "slices":
        return net.image(f"torch.cat([{x}[..., ::2], {x}[..., 1::2]], 1)")
    return net.image(f"F.pixel_unshuffle({x}, 2)" if how == "function" else f"{net.layer('nn.PixelUnshuffle(2)')}({x})")


@on("image")
def windows(net: Writer, x: Value) -> Value:
    """Positions are partitioned into windows, normalized there, and put back (Swin)."""
    x = net.in_dims(x, 2)
    if any(side % 2 for side in x.positions):
        raise UnfitError("odd size")
    split = net.let(f"{x}.view(*{x}.shape[:2], {x}.shape[2] // 2, 2, {x}.shape[3] // 2, 2)")
    moved = net.let(f"{split}.permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, {x}.shape[1])")
    mixed = net.let(f"{moved} + {net.layer(f'nn.Linear({x.width}, {x.width})')}({moved}).softmax(1)")
    back = f"{mixed}.view(-1, {x}.shape[2] // 2, {x}.shape[3] // 2, 2, 2, {x}.shape[1])"
    return net.image(f"{back}.permute(0, 5, 1, 3, 2, 4).reshape({x}.shape)")


@on("image")
def split_attention(net: Writer, x: Value) -> Value:
    """Branches are weighed against each other, channel by channel (selective kernels, ResNeSt)."""
    width, dims = net.width(), tuple(range(2, len(x.shape)))
    convs = [net.conv(x, x.width, width, kernel) for kernel in (3, 1)]
    both = net.let(f"torch.stack([{convs[0]}({x}), {convs[1]}({x})], 1)")
    squeeze, excite = net.layer(f"nn.Linear({width}, 3)"), net.layer(f"nn.Linear(3, {2 * width})")
    gate = net.let(f"{excite}({squeeze}({both}.sum(1).mean({dims})).relu()).view(-1, 2, {width}).softmax(1)")
    if net.chance():
        net.run(f"{gate} = {excite}({squeeze}({both}.sum(1).mean({dims})).relu()).unflatten(1, (2, -1)).softmax(1)")
    return net.image(f"({both} * {gate}[(...,) + (None,) * {_dims(x)}]).sum(1)")


# -- cuts --------------------------------------------------------------------------------------------------------------


@on("image", weight=2, variants=5)
def literal_slices(net: Writer, x: Value) -> Value:
    """Slices at a number of channels that the forward knows."""
    at = net.choose(*range(1, x.width))
    how = net.choose("cat", "one", "stored", "convolutions", "residual")
    if how == "one":
        return net.image(f"{x}[:, :{at}]" if net.chance() else f"{x}[:, {at}:]")
    if how == "convolutions":
        outs = net.width()
        left, right = net.conv(x, at, outs), net.conv(x, x.width - at, outs)
        return net.image(f"{left}({x}[:, :{at}]) + {right}({x}[:, {at}:])")
    if how == "residual":
        return net.image(f"{net.conv(x, x.width, at)}({x}) + {x}[:, :{at}]")
    place = net.layer(str(at), "at") if how == "stored" else at
    return net.image(f"torch.cat([{x}[:, :{place}].relu(), {x}[:, {place}:].tanh()], 1)")


@on("image", variants=5)
def slices_by_stored_layer(net: Writer, x: Value) -> Value:
    """Slices at the width of a layer, read from it (a variational encoder's mean)."""
    width = net.width()
    layer = net.conv(x, x.width, 2 * width)
    y = net.let(f"{layer}({x})")
    code = net.choose(
        f"{y}[:, :{layer}.out_channels // 2]",
        f"{y}[:, : {y}.shape[1] // 2] + {y}[:, {y}.shape[1] // 2 :].exp() * "
        f"torch.randn({y}.shape[0], 1, *{y}.shape[2:]).to({y})",
        f"{y}[:, ::2]",
        f"torch.cat([{y}[:, 0::2], {y}[:, 1::2]], 1)",
        f"{y}[:, :{width}]",
    )
    return net.image(code)


@on("image", variants=4)
def unequal_splits(net: Writer, x: Value) -> tuple[Value, ...]:
    """Parts of different sizes, each a result of its own."""
    at = net.choose(*range(1, x.width))
    a, b = net.name("t"), net.name("t")
    code = net.choose(
        f"{x}.split([{at}, {x.width - at}], 1)",
        f"torch.split({x}, ({at}, {x}.shape[1] - {at}), dim=1)",
        f"{x}.tensor_split([{at}], dim=1)",
        f"{x}.split_with_sizes([{at}, {x.width - at}], dim=1)",
    )
    net.run(f"{a}, {b} = {code}")
    return net.image(f"{a} * 1.5"), net.image(f"{b}.tanh()")


@on("image", weight=2, variants=3)
def equal_splits(net: Writer, x: Value) -> tuple[Value, ...]:
    """Two halves, each a result of its own (cross stage partial networks)."""
    half = _even(x)
    a, b = net.name("t"), net.name("t")
    code = net.choose(f"{x}.chunk(2, 1)", f"{x}.split({half}, 1)", f"{x}.split({x}.shape[1] // 2, dim=1)")
    net.run(f"{a}, {b} = {code}")
    return net.image(f"{a} * 1.5"), net.image(f"{b}.tanh()")


@on("image", variants=3)
def uneven_chunks(net: Writer, x: Value) -> Value:
    """More chunks than divide the channels, so that the last is smaller."""
    parts = net.let(f"{x}.chunk({net.choose(3, 2, 4)}, dim=1)")
    return net.image(f"torch.cat([part * (i + 1) for i, part in enumerate({parts})], 1)")


@on("image")
def channel_by_channel(net: Writer, x: Value) -> Value:
    parts = net.let(f"{x}.unbind(1)")
    code = net.choose(f"torch.stack({parts}[::-1], 1)", f"torch.stack([part.tanh() for part in {parts}], 1)")
    return net.image(code)


@on("image", variants=7)
def picked_channels(net: Writer, x: Value) -> Value:
    """Channels in another order, or some of them, by numbers."""
    order = [net.choose(*range(x.width)) for _ in range(net.choose(x.width, 2))]
    stored = net.buffer(f"torch.tensor({order})")
    code = net.choose(
        f"{x}[:, {order}]",
        f"{x}.index_select(1, {stored})",
        f"{x}[:, {stored}]",
        f"{x} + {x}[:, :1]",
        f"{x} * {x}[:, 0].unsqueeze(1).sigmoid()",
        f"{x}[:, [0]]",
        f"torch.gather({x}, 1, {x}.argsort(1))",
    )
    return net.image(code)


@on("image", variants=16)
def mixed_channels(net: Writer, x: Value) -> Value:
    """Operators along channels, none of which can lose any."""
    code = net.choose(
        "{0} * {0}.mean(1, keepdim=True)",
        "{0} + {0}.amax(1, keepdim=True)",
        "{0}.cumsum(1)",
        "{0}.sort(1).values",
        "{0}.logcumsumexp(1)",
        "{0}.flip(1)",
        "{0}.topk(1, dim=1).values",
        "{0} - {0}.median(1, keepdim=True).values",
        "{0}.sum(1, keepdim=True)",
        "{0}.norm(dim=1, keepdim=True) * {0}",
        "{0}.std(dim=(1, 2), keepdim=True) + {0}",
        "{0}.mean() + {0}",
        "torch.fft.fft({0}, dim=1).real",
        "{0} * {0}.argmax(1, keepdim=True)",
        "{0}.prod(1, keepdim=True).tanh() + {0}",
        "torch.cat([{0}.mean(1, keepdim=True), {0}.amax(1, keepdim=True)], 1)",
    )
    return net.image(code.format(x))


# -- writes ------------------------------------------------------------------------------------------------------------


@on("image", weight=2, variants=12)
def writes_into_channels(net: Writer, x: Value) -> Value:
    half, y = _even(x), net.own(x)
    code = net.choose(
        f"{y}[:, :{half}] *= 2",
        f"{y}[:, :{y}.shape[1] // 2] *= 2",
        f"{y}[:, 0] = 0",
        f"{y}[:, {half}:] = {y}[:, :{half}].tanh()",
        f"{y}[:, [0, 1]] = 1.0",
        f"{y}[:, ::2] += 1",
        f"{y}[:, -1:].fill_(0.5)",
        f"{y}[{y} < 0] = 0",
        f"{y}.masked_fill_({y} > 1, 1.0)",
        f"{y}.clamp_(-1, 1)",
        f"{y}.narrow(1, 0, {half}).mul_(3)",
        f"{y}[0] += 1",
    )
    net.run(code)
    return net.image(f"{y} * 1.5")


@on("image", variants=14)
def new_tensor_that_is_filled(net: Writer, x: Value) -> Value:
    made = net.choose(
        "torch.zeros_like({0})",
        "{0}.new_zeros({0}.shape)",
        "torch.empty_like({0})",
        "{0}.new_empty({0}.shape)",
        "torch.zeros({0}.shape, dtype={0}.dtype)",
        "{0}.new_full({0}.shape, 0.5)",
        "torch.full_like({0}, 2.0)",
        "torch.ones_like({0})",
        "{0}.new_ones({0}.shape)",
        "torch.ones({0}.shape, dtype={0}.dtype, device={0}.device)",
        "torch.full({0}.shape, 0.5, dtype={0}.dtype)",
        "torch.empty({0}.shape, dtype={0}.dtype)",
        "torch.empty_strided({0}.size(), {0}.stride(), dtype={0}.dtype)",
        "{0}.new_empty_strided({0}.size(), {0}.stride())",
    )
    y = net.let(made.format(x))
    if net.chance() and "empty" not in made:
        return net.image(f"{x} + {y}")
    code = net.choose(f"{y}[:] = {x}", f"{y}.copy_({x})", f"{y}[:, :{x.width}] = {x}", f"{y}[..., :] = {x}.relu()")
    net.run(code)
    return net.image(f"{y} * 1.5")


@on("image")
def temporal_shift(net: Writer, x: Value) -> Value:
    """A quarter of the channels moves one position on, a quarter one back."""
    fold = net.choose(f"{x}.shape[1] // 4", str(max(1, x.width // 4)))
    y, size = net.let(f"torch.zeros_like({x})"), net.let(fold)
    net.run(f"{y}[:, :{size}, 1:] = {x}[:, :{size}, :-1]")
    net.run(f"{y}[:, {size} : 2 * {size}, :-1] = {x}[:, {size} : 2 * {size}, 1:]")
    net.run(f"{y}[:, 2 * {size} :] = {x}[:, 2 * {size} :]")
    return net.image(f"{y} * 1.5")


@on("image", variants=8)
def padded_channels(net: Writer, x: Value) -> Value:
    """Zeros or copies as further channels (the shortcut of ResNet and PyramidNet)."""
    count = net.choose(2, 1, 4)
    zeros = ", ".join("0" * 2 * _dims(x))
    code = net.choose(
        f"F.pad({x}, ({zeros}, 0, {count}))",
        f"F.pad({x}, ({zeros}, {count}, {count}))",
        f"torch.cat([{x}, {x}.new_zeros({x}.shape[0], {count}, *{x}.shape[2:])], 1)",
        f"torch.cat([{x}, torch.zeros_like({x}[:, :1])], 1)",
        f"{x}.repeat(1, 2, {', '.join('1' * _dims(x))})",
        f"{x}.repeat_interleave(2, dim=1)",
        f"{x}.tile((1, 2, {', '.join('1' * _dims(x))}))",
        f"torch.cat([{x}] * 2, dim=1)",
    )
    return net.image(code)


@on("image", variants=4)
def literal_reshape(net: Writer, x: Value) -> Value:
    """A reshape to a number of channels that the forward knows."""
    shape = ", ".join(str(side) for side in x.positions)
    code = net.choose(
        f"{x}.reshape({x}.shape[0], {x.width}, -1).softmax(-1).view({x}.shape[0], {x.width}, {shape})",
        f"{x}.view(-1, {x.width}, {shape})",
        f"{x}.unflatten(1, ({x.width}, 1)).squeeze(2)",
        f"{x}.expand({x.shape[0]}, {x.width}, {shape}) + 0",
    )
    return net.image(code)
