"""Activations and gates."""

from helpers.random_networks._writer import UnfitError, Value, Writer, on

MODULES = (
    "ReLU()",
    "PReLU()",
    "ELU()",
    "CELU()",
    "SELU()",
    "GELU()",
    "GELU(approximate='tanh')",
    "SiLU()",
    "Mish()",
    "ReLU6()",
    "LeakyReLU(0.1)",
    "RReLU()",
    "Sigmoid()",
    "LogSigmoid()",
    "Tanh()",
    "Tanhshrink()",
    "Softplus()",
    "Softsign()",
    "Softshrink(0.1)",
    "Hardshrink(0.1)",
    "Hardsigmoid()",
    "Hardswish()",
    "Hardtanh()",
    "Threshold(0.1, 0.2)",
    "Identity()",
    "Dropout(0.2)",
    "AlphaDropout(0.2)",
)
IN_PLACE = (
    "ReLU(inplace=True)",
    "LeakyReLU(0.1, inplace=True)",
    "ELU(inplace=True)",
    "CELU(inplace=True)",
    "SELU(inplace=True)",
    "SiLU(inplace=True)",
    "Mish(inplace=True)",
    "ReLU6(inplace=True)",
    "RReLU(inplace=True)",
    "Hardsigmoid(inplace=True)",
    "Hardswish(inplace=True)",
    "Hardtanh(inplace=True)",
    "Threshold(0.1, 0.2, inplace=True)",
    "Dropout(0.2, inplace=True)",
)
FUNCTIONS = (
    "{}.relu()",
    "{}.sigmoid()",
    "{}.tanh()",
    "{}.abs()",
    "{}.exp().log1p()",
    "{}.square()",
    "{}.neg()",
    "{}.sin()",
    "{}.clamp(-1, 1)",
    "{}.clamp(min=0)",
    "{}.pow(2)",
    "{}.erf()",
    "{}.atan()",
    "F.relu({}) ** 2",
    "{}.sign() * {}.abs().sqrt()",
    "{0} * torch.sigmoid(1.702 * {0})",
    "{0} * F.relu6({0} + 3) / 6",
    "torch.where({0} > 0, {0}, 0.1 * {0})",
    "{0}.masked_fill({0} < 0, 0.0)",
    "torch.maximum({0}, 0.2 * {0})",
    "{0}.lerp({0}.tanh(), 0.3)",
    "torch.addcdiv({0}, {0}.tanh(), {0}.abs() + 1)",
    "2 * {0} - 1",
    "1 - {0}",
    "{0} / (1 + {0}.abs())",
    "torch.logaddexp({0}, -{0})",
    "{0}.detach() * 0.5 + {0}",
    "F.threshold({0}, 0.0, 0.0)",
    "{0}.mul(0.5).add_(1.0)",
    "F.rrelu({0}, training=False)",
    "{0}.contiguous() + {0}.clone()",
    "torch.special.expit({0})",
    "{0}.float().to({0}.dtype)",
    "{0}.type_as({0}) + 0 * {0}",
)
DROPOUTS = {"image": "Dropout{dims}d(0.2)", "tokens": "Dropout1d(0.2)", "vector": "FeatureAlphaDropout(0.2)"}


def _activation(net: Writer, x: Value) -> Value:
    how = net.choose("module", "in place", "slopes", "dropout")
    if how == "in place":
        layer = net.layer(f"nn.{net.choose(*IN_PLACE)}", "act")
        return net.like(x, f"{layer}({net.own(x)})")
    if how == "dropout":
        name = DROPOUTS[x.layout].format(dims=len(x.shape) - 2)
        return net.like(x, f"{net.layer(f'nn.{name}', 'dropout')}({x})")
    if how == "slopes":
        if x.layout == "tokens":
            raise UnfitError("slopes are for the second dimension")
        return net.like(x, f"{net.layer(f'nn.PReLU({x.width})', 'act')}({x})")
    return net.like(x, f"{net.layer(f'nn.{net.choose(*MODULES)}', 'act')}({x})")


@on("image", weight=4, variants=4)
def activation(net: Writer, x: Value) -> Value:
    return _activation(net, x)


@on("tokens", weight=3, variants=4)
def activation_of_tokens(net: Writer, x: Value) -> Value:
    return _activation(net, x)


@on("vector", weight=3, variants=4)
def activation_of_vectors(net: Writer, x: Value) -> Value:
    return _activation(net, x)


@on("image", weight=4, variants=len(FUNCTIONS))
def elementwise_function(net: Writer, x: Value) -> Value:
    return net.image(net.choose(*FUNCTIONS).format(x, x))


@on("tokens")
def elementwise_function_of_tokens(net: Writer, x: Value) -> Value:
    return net.tokens(net.choose(*FUNCTIONS).format(x, x))


def each_activation(names: tuple[str, ...], label: str) -> None:
    """Register a kind of step for every activation, so that each is featured in turn."""
    for name in names:
        plain = "".join(letter if letter.isalnum() else "_" for letter in name.split("(")[0].lower())

        def write(net: Writer, x: Value, name: str = name) -> Value:
            return net.image(f"{net.layer(f'nn.{name}', 'act')}({net.own(x) if label else x})")

        write.__name__ = f"{plain}{label}" + ("_tanh" if "approximate" in name else "")
        on("image", weight=0.1)(write)


each_activation(MODULES, "")
each_activation(IN_PLACE, "_in_place")


@on("image", variants=8)
def softmax(net: Writer, x: Value) -> Value:
    """Over channels, which mixes them, or over positions."""
    how = net.choose(
        "{}.softmax(-1)",
        "{}.softmax(1)",
        "{}.log_softmax(-1)",
        "{0} * {0}.flatten(2).softmax(-1).view_as({0})",
        "F.gumbel_softmax({}, dim=-1)",
        "Softmin(dim=-1)",
        "Softmax(dim=1)",
        "LogSoftmax(dim=1)",
    )
    return net.image(how.format(x) if "{" in how else f"{net.layer(f'nn.{how}')}({x})")


@on("image")
def softmax_2d(net: Writer, x: Value) -> Value:
    x = net.in_dims(x, 2)
    return net.image(f"{x} * {net.layer('nn.Softmax2d()')}({x})")


@on("image", variants=8)
def gated_halves(net: Writer, x: Value) -> Value:
    """One half of the channels times a gate from the other."""
    wide = net.image(f"{net.conv(x, x.width, 2 * net.width(), 3)}({x})")
    how = net.choose("chunk", "glu", "module", "slices", "split", "unflatten", "narrow", "tensor_split")
    a, b = net.name("t"), net.name("t")
    half = f"{wide}.shape[1] // 2"
    codes = {
        "chunk": f"{wide}.chunk(2, dim=1)",
        "slices": f"{wide}[:, :{half}], {wide}[:, {half}:]",
        "split": f"{wide}.split({half}, dim=1)",
        "unflatten": f"{wide}.unflatten(1, (2, -1)).unbind(1)",
        "narrow": f"{wide}.narrow(1, 0, {half}), {wide}.narrow(1, {half}, {half})",
        "tensor_split": f"{wide}.tensor_split(2, dim=1)",
    }
    if how in ("glu", "module"):
        return net.image(f"F.glu({wide}, 1)" if how == "glu" else f"{net.layer('nn.GLU(1)')}({wide})")
    net.run(f"{a}, {b} = {codes[how]}")
    gate = net.choose(f"{b}.sigmoid()", f"F.gelu({b})", str(b))
    return net.image(f"{a} * {gate}")


@on("tokens")
def gated_mlp(net: Writer, x: Value) -> Value:
    """SwiGLU, with one layer or two."""
    inner = net.width()
    down = net.layer(f"nn.Linear({inner}, {x.width})")
    if net.chance():
        up, gate = (net.layer(f"nn.Linear({x.width}, {inner}, bias=False)") for _ in range(2))
        return net.tokens(f"{x} + {down}(F.silu({gate}({x})) * {up}({x}))")
    wide = net.layer(f"nn.Linear({x.width}, {2 * inner})")
    if net.chance():
        return net.tokens(f"{x} + {down}(F.glu({wide}({x})))")
    a, b = net.name("t"), net.name("t")
    net.run(f"{a}, {b} = {wide}({x}).chunk(2, dim=-1)")
    return net.tokens(f"{x} + {down}({a} * F.silu({b}))")


@on("image")
def maxout(net: Writer, x: Value) -> Value:
    """The largest of two channels."""
    wide = net.let(f"{net.conv(x, x.width, 2 * net.width())}({x})")
    code = net.choose(f"{wide}.unflatten(1, (2, -1)).amax(1)", f"{wide}.unflatten(1, (-1, 2)).max(2).values")
    return net.image(code)


@on("image")
def concatenated_relu(net: Writer, x: Value) -> Value:
    return net.image(f"torch.cat([{x}, -{x}], 1).relu()")
