"""Operators along positions: pooling, interpolation, padding, sorting, transforms."""

from helpers.random_networks._writer import Value, Writer, on


def _dims(x: Value) -> int:
    return len(x.shape) - 2


LAYERS = (
    "MaxPool{0}d(2)",
    "AvgPool{0}d(2)",
    "LPPool{0}d(1, 2)",
    "AdaptiveAvgPool{0}d(2)",
    "AdaptiveMaxPool{0}d(2)",
    "Upsample(scale_factor=2, mode='nearest-exact')",
    "Upsample(scale_factor=2, mode={1!r})",
    "ReflectionPad{0}d(1)",
    "ReplicationPad{0}d(1)",
    "CircularPad{0}d(1)",
    "ZeroPad{0}d(1)",
    "ConstantPad{0}d(1, 0.5)",
    "BatchNorm{0}d({2})",
    "InstanceNorm{0}d({2}, affine=True)",
    "Dropout{0}d(0.2)",
    "Conv{0}d({2}, {2}, 3, padding=1)",
    "ConvTranspose{0}d({2}, {2}, 2)",
)
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@on("image", variants=3 * len(LAYERS))
def layer_in_dimensions(net: Writer, x: Value) -> Value:
    """A layer that torch has for one, two and three dimensions."""
    number = net.choose(*range(3 * len(LAYERS)))
    dims, name = (2, 1, 3)[number // len(LAYERS)], LAYERS[number % len(LAYERS)]
    x = net.in_dims(x, dims)
    return net.image(f"{net.layer(f'nn.{name.format(dims, MODES[dims], x.width)}')}({x})")


# -- pooling -----------------------------------------------------------------------------------------------------------


@on("image", weight=3, variants=5)
def pooling(net: Writer, x: Value) -> Value:
    kernel = net.choose(2, 3)
    more = net.choose("", ", stride=1", ", stride=2", ", ceil_mode=True", f", padding={kernel // 2}")
    name = net.choose("Max", "Avg")
    if net.chance():
        return net.image(f"{net.layer(f'nn.{name}Pool{_dims(x)}d({kernel}{more})', 'pool')}({x})")
    return net.image(f"F.{name.lower()}_pool{_dims(x)}d({x}, {kernel}{more})")


@on("image")
def average_pooling_of_some(net: Writer, x: Value) -> Value:
    more = net.choose("count_include_pad=False", "divisor_override=2" if _dims(x) > 1 else "ceil_mode=True")
    return net.image(f"{net.layer(f'nn.AvgPool{_dims(x)}d(3, 2, 1, {more})', 'pool')}({x})")


@on("image")
def power_pooling(net: Writer, x: Value) -> Value:
    if net.chance():
        power = net.layer("nn.Parameter(torch.tensor(3.0))", "power")
        pooled = f"F.avg_pool{_dims(x)}d({x}.abs().clamp(min=0.1).pow({power}), 2)"
        return net.image(f"{pooled}.pow(1 / {power}.abs().clamp(min=1))")
    return net.image(f"{net.layer(f'nn.LPPool{_dims(x)}d({net.choose(2, 1)}, 2)', 'pool')}({x}.abs() + 0.1)")


@on("image", weight=2, variants=4)
def adaptive_pooling(net: Writer, x: Value) -> Value:
    name, size = net.choose("Avg", "Max"), net.choose(2, 1, 3, 5)
    if net.chance():
        return net.image(f"F.adaptive_{name.lower()}_pool{_dims(x)}d({x}, {size})")
    return net.image(f"{net.layer(f'nn.Adaptive{name}Pool{_dims(x)}d({size})', 'pool')}({x})")


@on("image")
def fractional_pooling(net: Writer, x: Value) -> Value:
    x = net.in_dims(x, 2, 3)
    dims = _dims(x)
    size = ", ".join(str((side + 1) // 2) for side in x.positions)
    layer = net.layer(f"nn.FractionalMaxPool{dims}d(2, output_size=({size}))", "pool")
    return net.image(f"{layer}({x})")


@on("image", variants=6)
def unpooling(net: Writer, x: Value) -> Value:
    number = net.choose(*range(6))
    dims = (2, 1, 3)[number // 2]
    x = net.in_dims(x, dims)
    pooled, places = net.name("t"), net.name("t")
    net.run(f"{pooled}, {places} = F.max_pool{dims}d({x}, 2, return_indices=True)")
    call = f"F.max_unpool{dims}d({pooled}, {places}, 2"
    if number % 2:
        call = f"{net.layer(f'nn.MaxUnpool{dims}d(2)', 'unpool')}({pooled}.relu(), {places}"
    return net.image(f"{call}, output_size={x}.shape[2:])")


@on("image", weight=2, variants=9)
def global_pooling(net: Writer, x: Value) -> Value:
    dims = tuple(range(2, len(x.shape)))
    code = net.choose(
        f"{x}.mean({dims})",
        f"{x}.amax({dims})",
        f"F.adaptive_avg_pool{_dims(x)}d({x}, 1).flatten(1)",
        f"F.adaptive_max_pool{_dims(x)}d({x}, 1)[{', '.join([':', ':', *['0'] * _dims(x)])}]",
        f"{x}.flatten(2).std(2)",
        f"{x}.flatten(2).logsumexp(2)",
        f"{x}.flatten(2).max(dim=2).values",
        f"{x}.view(*{x}.shape[:2], -1).sum(-1)",
        f"torch.linalg.vector_norm({x}, dim={dims})",
    )
    return net.vector(code)


@on("image", variants=21)
def statistics_of_positions(net: Writer, x: Value) -> Value:
    """One number for each channel, by all operators that reduce."""
    flat = net.let(f"{x}.flatten(2)")
    code = net.choose(
        "{}.median(-1).values",
        "{}.nanmedian(-1).values",
        "{}.kthvalue(2, -1).values",
        "{}.min(-1).values",
        "{}.amin(-1)",
        "{}.tanh().prod(-1)",
        "{}.var(-1)",
        "{}.var(-1, correction=0)",
        "torch.std_mean({}, -1)[0]",
        "torch.var_mean({}, -1)[1]",
        "{}.mean(-1) * ({} > 0).any(-1)",
        "{}.mean(-1) * ({} > 0).all(-1).type_as({})",
        "{}.mode(-1).values",
        "{}.mean(-1) * {}.argmax(-1)",
        "{}.mean(-1) * {}.argmin(-1)",
        "{}.norm(dim=-1)",
        "{}.norm(p=1, dim=-1)",
        "{}.quantile(0.3, dim=-1)",
        "torch.nanmean({}, -1)",
        "{}.aminmax(dim=-1).max",
        "{}.mean(-1) * torch.count_nonzero({} > 0, dim=-1)",
    )
    count = code.count("{}")
    pooled = net.let(code.format(*[flat] * count))
    return net.vector(f"{pooled}.type_as({x})")


@on("image")
def spatial_pyramid(net: Writer, x: Value) -> Value:
    """Pooled to several sizes and flattened."""
    parts = [f"F.adaptive_avg_pool{_dims(x)}d({x}, {size}).flatten(1)" for size in (1, 2)]
    features = net.let(f"torch.cat([{', '.join(parts)}], 1)")
    return net.vector(f"{net.layer(f'nn.Linear({net.shape(features)[1]}, {net.width()})')}({features})")


@on("image", variants=4)
def flatten_and_linear(net: Writer, x: Value) -> Value:
    code = net.choose("{}.flatten(1)", "{0}.view({0}.size(0), -1)", "{0}.reshape(len({0}), -1)", "module")
    flat = net.let(f"{net.layer('nn.Flatten()')}({x})" if code == "module" else code.format(x))
    return net.vector(f"{net.layer(f'nn.Linear({net.shape(flat)[1]}, {net.width()})')}({flat})")


# -- interpolation and padding -----------------------------------------------------------------------------------------


@on("image", weight=3, variants=5)
def upsampling(net: Writer, x: Value) -> Value:
    modes = {1: ("linear",), 2: ("bilinear", "bicubic"), 3: ("trilinear",)}[_dims(x)]
    mode = net.choose("nearest", "nearest-exact", *modes, "area")
    more = f", mode={mode!r}" if mode != "nearest" else ""
    if mode in modes:
        more += net.choose("", ", align_corners=True")
    if mode.startswith("bi"):
        more += net.choose("", ", antialias=True")
    size = net.choose("scale_factor=2", f"size={tuple(side + 1 for side in x.positions)}", "scale_factor=1.5")
    if "antialias" not in more and net.chance():
        return net.image(f"{net.layer(f'nn.Upsample({size}{more})')}({x})")
    return net.image(f"F.interpolate({x}, {size}{more})")


@on("image")
def upsampling_in_two_dimensions(net: Writer, x: Value) -> Value:
    x = net.in_dims(x, 2)
    layer = net.layer(f"nn.{net.choose('UpsamplingNearest2d', 'UpsamplingBilinear2d')}(scale_factor=2)")
    return net.image(f"{layer}({x})")


@on("image", weight=2, variants=6)
def padding(net: Writer, x: Value) -> Value:
    dims = _dims(x)
    amounts = tuple(net.choose(1, 0, 2) for _ in range(2 * dims))
    how = net.choose("Zero", "Constant", "Reflection", "Replication", "Circular", "function")
    if how == "function":
        mode = net.choose("constant", "reflect", "replicate", "circular")
        return net.image(f"F.pad({x}, {amounts}, mode={mode!r})")
    value = ", 0.5" if how == "Constant" else ""
    return net.image(f"{net.layer(f'nn.{how}Pad{dims}d({amounts}{value})', 'pad')}({x})")


@on("image", variants=7)
def cropping(net: Writer, x: Value) -> Value:
    """Slices, steps and negative padding."""
    code = net.choose(
        "{0}[..., 1:]",
        "{0}[..., ::2]",
        "{0}[..., :-1]",
        "F.pad({0}, (-1, 0))",
        "{0}.narrow(-1, 0, {0}.shape[-1] - 1)",
        "{0}[:, :, 1:]",
        "torch.cat([{0}[..., 1:], {0}[..., :1]], -1)",
    )
    return net.image(code.format(x))


@on("image")
def grid_sampling(net: Writer, x: Value) -> Value:
    """A spatial transformer."""
    x = net.in_dims(x, 2, 3)
    dims = _dims(x)
    pooled = f"{x}.mean({tuple(range(2, dims + 2))})"
    theta = net.let(f"{net.layer(f'nn.Linear({x.width}, {dims * (dims + 1)})')}({pooled}).view(-1, {dims}, {dims + 1})")
    grid = net.let(f"F.affine_grid({theta}, {x}.size(), align_corners=False)")
    mode, pad = net.choose("bilinear", "nearest"), net.choose("zeros", "border")
    return net.image(f"F.grid_sample({x}, {grid}, mode={mode!r}, padding_mode={pad!r}, align_corners=False)")


@on("image", variants=8)
def reordering(net: Writer, x: Value) -> Value:
    """Flips, rolls and turns, along positions or, which mixes them, channels."""
    code = net.choose(
        "{0}.flip(-1)",
        "torch.roll({0}, 1, dims=-1)",
        "{0}.roll(shifts=(1, 1), dims=(0, -1))",
        "{0} + {0}.flip(1)",
        "{0}.roll(1, dims=1)",
        "torch.rot90({0}, 1, (2, 3))",
        "{0}.transpose(2, 3)",
        "{0}.mT",
    )
    return net.image(code.format(net.in_dims(x, 2, 3) if "2, 3" in code or "mT" in code else x))


@on("image", variants=33)
def operators_along_positions(net: Writer, x: Value) -> Value:
    """Everything else that mixes positions and keeps the shape."""
    code = net.choose(
        "{0}.cumsum(-1)",
        "{0}.tanh().cumprod(-1)",
        "{0}.sort(-1).values",
        "{0}.cummax(-1).values",
        "{0}.cummin(-1).values",
        "{0}.logcumsumexp(-1)",
        "{0}.topk({0}.shape[-1] - 1, dim=-1).values",
        "{0}.gather(-1, {0}.argsort(-1))",
        "torch.zeros_like({0}).scatter(-1, {0}.argsort(-1), {0})",
        "torch.take_along_dim({0}, {0}.argsort(-1), -1)",
        "{0}[..., [1, 0]]",
        "{0}.index_select(-1, torch.tensor([1, 0, 1]))",
        "{0}[..., torch.arange({0}.shape[-1]).flip(0)]",
        "torch.zeros_like({0}).index_add(-1, torch.arange({0}.shape[-1]), {0})",
        "{0}.index_fill(-1, torch.tensor([0]), 0.0)",
        "{0}.unfold(-1, 2, 1).mean(-1)",
        "{0}.diff(dim=-1)",
        "{0}.renorm(2, 0, 1.0)",
        "{0} - {0}.quantile(0.5, dim=-1, keepdim=True)",
        "{0} * torch.bucketize({0}, torch.linspace(-1, 1, 5, dtype={0}.dtype))",
        "{0} * torch.linspace(0, 1, {0}.shape[-1], dtype={0}.dtype)",
        "{0}.repeat_interleave(2, dim=-1)",
        "{0}.repeat(*[1] * ({0}.ndim - 1), 2)",
        "{0}.tile((2,))",
        "torch.fft.irfft(torch.fft.rfft({0}), n={0}.shape[-1])",
        "torch.fft.fft({0}, dim=-1).real",
        "torch.fft.fftn({0}, dim=(-1,)).abs()",
        "torch.fft.ifft(torch.fft.fft({0})).real",
        "{0} @ {0}.transpose(-1, -2) if {0}.ndim > 3 else {0}",
        "{0}.as_strided({0}.size(), {0}.stride())",
        "{0}.movedim(-1, 2).swapaxes(2, -1)",
        "torch.einsum('nc...l,lm->nc...m', {0}, torch.eye({0}.shape[-1], dtype={0}.dtype))",
        "{0} - F.avg_pool1d({0}.flatten(1, -2), 3, 1, 1).view({0}.shape)",
    )
    return net.image(code.format(x))


@on("image", variants=13)
def numbered_positions(net: Writer, x: Value) -> Value:
    """Entries that are read or written by number along the last dimension."""
    code = net.choose(
        "{0}.index_copy(-1, torch.tensor([0]), {0}[..., 1:2])",
        "{0}.index_reduce(-1, torch.tensor([0]), {0}[..., 1:2], 'amax')",
        "{0}.scatter_add(-1, torch.zeros({0}.shape, dtype=torch.long)[..., :1], {0}[..., :1])",
        "{0}.scatter_reduce(-1, torch.zeros({0}.shape, dtype=torch.long)[..., :1], {0}[..., :1], 'sum')",
        "torch.ops.aten._unsafe_index({0}, [None] * ({0}.ndim - 1) + [torch.tensor([1, 0])])",
        "torch.ops.aten._unsafe_index_put({0}, [None] * ({0}.ndim - 1) + [torch.tensor([0])], {0}[..., 1:2])",
        "{0} * torch.searchsorted(torch.linspace(-1, 1, 5, dtype={0}.dtype), {0})",
        "{0}.masked_fill(torch.isin(torch.arange({0}.shape[-1]), torch.tensor([0])), 0.5)",
        "{0} * torch.arange({0}.shape[-1]).floor_divide(2)",
        "torch.view_as_real(torch.complex({0}, {0}.cos()).conj().resolve_conj())[..., 1]",
        "torch.polar({0}.abs(), {0}).conj().imag.resolve_neg()",
        "torch.view_as_complex(torch.stack([{0}, {0}.sin()], -1)).abs()",
        "{0} + torch.complex({0}, {0}).conj().imag",
    )
    return net.image(code.format(x))


@on("image", variants=9)
def draws(net: Writer, x: Value) -> Value:
    """Random numbers of other distributions than the normal and the uniform one."""
    code = net.choose(
        "torch.poisson({0}.sigmoid())",
        "torch._standard_gamma({0}.sigmoid() + 1)",
        "torch.empty_like({0}).cauchy_()",
        "torch.empty_like({0}).log_normal_()",
        "torch.empty_like({0}).geometric_(0.5)",
        "torch.randint_like({0}, 2)",
        "torch.empty_like({0}).random_(0, 2)",
        "torch.randn_like({0})",
        "torch.empty({0}.shape[0], 1, *{0}.shape[2:], dtype={0}.dtype).exponential_()",
    )
    return net.image(f"{x} + {code.format(x)}")


@on("image", variants=8)
def masks_of_positions(net: Writer, x: Value) -> Value:
    """Triangles, and single positions that are written."""
    if _dims(x) > 1 and net.chance():
        code = net.choose("{0}.tril()", "{0}.triu(1)", "{0} * torch.ones({0}.shape[-2:], dtype={0}.dtype).tril()")
        return net.image(code.format(x))
    y = net.own(x)
    code = net.choose(
        "{0}[..., 0] = 0",
        "{0}[..., 1:] *= 2",
        "{0}[..., 0].fill_(1.0)",
        "{0}[..., :1].zero_()",
        "{0}[:, :, 0] += 1",
        "{0}[..., -1:] = {0}[..., :1]",
        "{0}.index_fill_(-1, torch.tensor([0]), 0.5)",
        "{0}.select(-1, 0).copy_({0}.select(-1, 1))",
    )
    net.run(code.format(y))
    return net.image(f"{y} * 1.5")


@on("image")
def coordinates(net: Writer, x: Value) -> Value:
    """Positions as further channels (CoordConv)."""
    ramp = f"torch.linspace(-1, 1, {x}.shape[-1], dtype={x}.dtype, device={x}.device)"
    plane = net.let(f"{ramp}.expand({x}.shape[0], 1, *{x}.shape[2:])")
    return net.image(f"torch.cat([{x}, {plane}], 1)")


@on("image", variants=3)
def learned_positions(net: Writer, x: Value) -> Value:
    how = net.choose("whole", "rows", "none of channels")
    if how == "whole":
        return net.image(f"{x} + {net.parameter(1, *x.shape[1:])}")
    if how == "rows":
        return net.image(f"{x} + {net.parameter(x.width, *[1] * (_dims(x) - 1), x.shape[-1])}")
    return net.image(f"{x} + {net.parameter(1, 1, *x.positions)}")


@on("image")
def frequency_filter(net: Writer, x: Value) -> Value:
    """A product in the frequency domain (global filter networks); its weight is real or complex."""
    weight = net.parameter(x.width, *x.positions[:-1], x.shape[-1] // 2 + 1)
    spectrum = net.let(f"torch.fft.rfft({x}, norm='ortho')")
    return net.image(f"torch.fft.irfft({spectrum} * {weight}, n={x}.shape[-1], norm='ortho')")
