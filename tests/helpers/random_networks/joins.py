"""Joins of several tensors, and blocks that are made of them."""

from helpers.random_networks._writer import UnfitError, Value, Writer, divisors, on


def _dims(x: Value) -> int:
    return len(x.shape) - 2


def _norm(net: Writer, width: int, dims: int) -> str:
    """Code of a norm of images."""
    groups = net.choose(1, *divisors(width))
    code = net.choose(f"BatchNorm{dims}d({width})", f"InstanceNorm{dims}d({width})", f"GroupNorm({groups}, {width})")
    return net.layer(f"nn.{code}", "norm")


# -- joins -------------------------------------------------------------------------------------------------------------


@on("image", "image", weight=4, variants=17)
def join(net: Writer, x: Value, y: Value) -> Value:
    """An elementwise operator on two branches, the second of which is made to fit."""
    other = net.fitted(y, x)
    code = net.choose(
        "{0} + {1}",
        "{0} * {1}",
        "{0} - {1}",
        "{0} * {1}.sigmoid()",
        "torch.maximum({0}, {1})",
        "torch.minimum({0}, {1})",
        "torch.add({0}, {1}, alpha=0.5)",
        "torch.lerp({0}, {1}, 0.3)",
        "torch.where({0} > 0, {0}, {1})",
        "torch.stack([{0}, {1}]).sum(0)",
        "torch.stack([{0}, {1}], dim=-1).mean(-1)",
        "torch.stack([{0}, {1}], 1).amax(1)",
        "torch.atan2({0}, {1}.abs() + 1)",
        "torch.addcmul({0}, {1}, {0}, value=0.5)",
        "sum([{0}, {1}])",
        "torch.hypot({0} + 3, {1})",
        "{0} / (1 + {1}.abs())",
    )
    return net.image(code.format(x, other))


@on("tokens", "tokens", weight=2, variants=3)
def join_of_tokens(net: Writer, x: Value, y: Value) -> Value:
    return net.tokens(f"{x} {net.choose('+', '*', '-')} {net.fitted(y, x)}")


@on("vector", "vector", variants=4)
def join_of_vectors(net: Writer, x: Value, y: Value) -> Value:
    how = net.choose("+", "*", "cat", "outer")
    if how == "cat":
        return net.vector(f"torch.cat([{x}, {y}], 1)")
    if how == "outer":
        return net.vector(f"torch.einsum('ni,nj->nij', {x}, {y}).flatten(1)")
    return net.vector(f"{x} {how} {net.project(y, x.width)}")


@on("image", "image", variants=6)
def join_in_place(net: Writer, x: Value, y: Value) -> Value:
    own, other = net.own(x), net.fitted(y, x)
    code = net.choose(
        "{0} += {1}",
        "{0}.mul_({1})",
        "{0}.add_({1}, alpha=0.5)",
        "{0}.copy_({1})",
        "{0}.sub_({1}).relu_()",
        "{0}.lerp_({1}, 0.5)",
    )
    net.run(code.format(own, other))
    return net.image(f"{own} * 1.5")


@on("image", "image", weight=4, variants=4)
def concatenation(net: Writer, x: Value, y: Value) -> Value:
    code = str(y) if x.positions == y.positions else f"F.interpolate({y}, size={x}.shape[2:])"
    third = net.choose("", "", f", {x}.tanh()")
    name = net.choose("cat", "cat", "concat", "hstack")
    return net.image(f"torch.{name}([{x}, {code}{third}]{', 1' if name != 'hstack' else ''})")


@on("tokens", "tokens")
def concatenation_of_tokens(net: Writer, x: Value, y: Value) -> Value:
    if x.shape[1] == y.shape[1] and net.chance():
        return net.tokens(f"torch.cat([{x}, {y}], -1)")
    return net.tokens(f"torch.cat([{x}, {net.project(y, x.width)}], 1)")


@on("image", variants=3)
def concatenation_of_positions(net: Writer, x: Value) -> Value:
    code = net.choose(
        "torch.cat([{0}, {0}.tanh()], -1)", "torch.cat([{0}, {0}.relu()], dim=2)", "{0}.repeat_interleave(2, 2)"
    )
    return net.image(code.format(x))


@on("image", "vector")
def vector_beside_image(net: Writer, x: Value, y: Value) -> Value:
    """A vector at every position, added or concatenated."""
    nones = ", ".join(["None"] * _dims(x))
    wide = net.let(f"{y}[:, :, {nones}].expand(-1, -1, *{x}.shape[2:])")
    if net.chance():
        return net.image(f"torch.cat([{x}, {wide}], 1)")
    return net.image(f"{x} + {net.conv(x, y.width, x.width)}({wide})")


@on("image", "vector", weight=2, variants=6)
def gate_by_vector(net: Writer, x: Value, y: Value) -> Value:
    linear = net.layer(f"nn.Linear({y.width}, {x.width})")
    gate = net.let(f"{linear}({y})")
    ones = ", ".join("1" * _dims(x))
    view = net.choose(
        f"{gate}.view(*{gate}.shape, {ones})",
        f"{gate}.reshape({x}.shape[0], {x}.shape[1], {ones})",
        f"{gate}[(...,) + (None,) * {_dims(x)}]",
        f"{gate}.unflatten(1, (-1, {ones}))",
        f"{gate}.view({x.shape[0]}, {x.width}, {ones})",
        f"{gate}.unsqueeze(-1).view({x}.shape[0], -1, {ones}).expand_as({x})",
    )
    return net.image(f"{x} * {view}.sigmoid()")


# -- blocks ------------------------------------------------------------------------------------------------------------


@on("image", weight=4, variants=5)
def residual(net: Writer, x: Value) -> Value:
    inner = net.width()
    first, second = net.conv(x, x.width, inner, 3), net.conv(x, inner, x.width, 3)
    norm = net.choose("", _norm(net, inner, _dims(x)))
    hidden = net.let(f"F.relu({norm}({first}({x})))")
    y = net.let(f"{second}({hidden})")
    code = net.choose(
        f"{x} + {y}", f"({x} + {y}).relu()", f"{y}.add_({x})", f"{x} + 0.1 * {y}", f"F.relu({y} + {x}, inplace=True)"
    )
    return net.image(code)


@on("image", variants=5)
def module_of_layers(net: Writer, x: Value) -> Value:
    """A Sequential, or a list or dict of modules."""
    width, dims = net.width(), _dims(x)
    first, last = f"nn.Conv{dims}d({x.width}, {width}, 1)", f"nn.Conv{dims}d({width}, {x.width}, 1)"
    layers = f"{first}, nn.BatchNorm{dims}d({width}), nn.ReLU(), {last}"
    how = net.choose("Sequential", "ModuleList", "ModuleDict", "parameters", "unflattened")
    if how == "parameters":
        made = net.layer(f"nn.ParameterDict(dict(a=torch.randn({x.width}), b=torch.randn(1)))")
        return net.image(f"{x} * {made}['a'].view(-1, {', '.join('1' * dims)}) + {made}['b']")
    if how == "unflattened":
        layer = net.layer(f"nn.Sequential(nn.Flatten(2), nn.Unflatten(2, {x.positions}), nn.Identity())")
        return net.image(f"{layer}({x})")
    if how == "ModuleDict":
        made = net.layer(
            f"nn.ModuleDict(dict(a=nn.Conv{dims}d({x.width}, {width}, 1), b=nn.Conv{dims}d({width}, 3, 1)))"
        )
        return net.image(f"{made}['b']({made}['a']({x}).relu())")
    if how == "ModuleList":
        y = net.let(f"{x} + 0")
        made = net.layer(f"nn.ModuleList([{layers}])")
        net.run(f"for layer in {made}: {y} = layer({y})")
        return net.image(f"{x} + {y}")
    return net.image(f"{net.layer(f'nn.Sequential({layers})')}({x}) + {x}")


@on("image")
def dense_block(net: Writer, x: Value) -> Value:
    growth = net.choose(2, 1, 3)
    y = str(x)
    width = x.width
    for _ in range(net.choose(2, 3)):
        norm = net.layer(f"nn.BatchNorm{_dims(x)}d({width})", "norm")
        y = net.let(f"torch.cat([{y}, {net.conv(x, width, growth, 3)}({norm}({y}).relu())], 1)")
        width += growth
    return net.image(f"{y} * 1.5")


@on("image", weight=2, variants=3)
def squeeze_and_excite(net: Writer, x: Value) -> Value:
    inner, dims = net.choose(2, 1, 3), tuple(range(2, len(x.shape)))
    if net.chance():
        squeeze, excite = net.layer(f"nn.Linear({x.width}, {inner})"), net.layer(f"nn.Linear({inner}, {x.width})")
        gate = net.let(f"{excite}({squeeze}({x}.mean({dims})).relu()).sigmoid()")
        return net.image(f"{x} * {gate}.view({x}.size(0), -1, {', '.join('1' * _dims(x))})")
    pooled = net.let(f"F.adaptive_avg_pool{_dims(x)}d({x}, 1)")
    squeeze, excite = net.conv(x, x.width, inner), net.conv(x, inner, x.width)
    return net.image(f"{x} * F.hardsigmoid({excite}(F.silu({squeeze}({pooled}))))")


@on("image")
def efficient_channel_attention(net: Writer, x: Value) -> Value:
    """A convolution along channels (ECA)."""
    conv = net.layer("nn.Conv1d(1, 1, 3, padding=1, bias=False)")
    gate = net.let(f"{conv}({x}.flatten(2).mean(2)[:, None])[:, 0].sigmoid()")
    return net.image(f"{x} * {gate}[(...,) + (None,) * {_dims(x)}]")


@on("image")
def spatial_gate(net: Writer, x: Value) -> Value:
    """From the mean and the maximum over channels (CBAM)."""
    both = net.let(f"torch.cat([{x}.mean(1, keepdim=True), {x}.amax(1, keepdim=True)], 1)")
    return net.image(f"{x} * {net.conv(x, 2, 1, 3)}({both}).sigmoid()")


@on("image", "image")
def attention_gate(net: Writer, x: Value, y: Value) -> Value:
    """Attention U-Net: a map of weights for a skip connection."""
    inner = net.width()
    left, right = net.conv(x, x.width, inner), net.conv(x, y.width, inner)
    other = f"F.interpolate({right}({y}), size={x}.shape[2:])"
    return net.image(f"{x} * {net.conv(x, inner, 1)}(({left}({x}) + {other}).relu()).sigmoid()")


@on("image", variants=3)
def u_net(net: Writer, x: Value) -> Value:
    """Down, up, and a skip connection."""
    if min(x.positions) < 4:
        raise UnfitError("too small")
    deep, dims = net.width(), _dims(x)
    down = net.let(f"{net.conv(x, x.width, deep, 3, ', stride=2')}({x}).relu()")
    how = net.choose("interpolate", "transposed", "pad")
    if how == "interpolate":
        up = net.let(f"F.interpolate({down}, size={x}.shape[2:])")
    else:
        up = net.let(f"{net.layer(f'nn.ConvTranspose{dims}d({deep}, {deep}, 2, stride=2)', 'conv')}({down})")
        pads = [f"0, {x}.shape[{dim}] - {up}.shape[{dim}]" for dim in reversed(range(2, dims + 2))]
        up = net.let(f"F.pad({up}, ({', '.join(pads)}))")
    return net.image(f"{net.conv(x, x.width + deep, net.width(), 3)}(torch.cat([{x}, {up}], 1))")


@on("image")
def feature_pyramid(net: Writer, x: Value) -> tuple[Value, ...]:
    """Two levels with the same number of channels."""
    if min(x.positions) < 4:
        raise UnfitError("too small")
    width = net.width()
    deep = net.let(f"{net.conv(x, x.width, net.width(), 3, ', stride=2')}({x}).relu()")
    top = net.image(f"{net.conv(x, net.shape(deep)[1], width)}({deep})")
    side = f"{net.conv(x, x.width, width)}({x})"
    return net.image(f"{side} + F.interpolate({top}, size={x}.shape[2:])"), top


@on("image")
def unused_layers(net: Writer, x: Value) -> Value:
    """Layers and parameters that no forward uses, and a result that nothing reads."""
    net.conv(x, x.width, 3)
    net.parameter(3, 2)
    net.let(f"{net.conv(x, x.width, net.width())}({x})")
    return net.image(f"{net.conv(x, x.width, net.width())}({x})")
