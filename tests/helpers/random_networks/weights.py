"""Computed weights, parametrizations, and weights that several layers share."""

from helpers.random_networks._writer import UnfitError, Value, Writer, divisors, on

PARAMETRIZATIONS = {
    "LowRank": """
class LowRank(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.down = nn.Parameter(0.3 * torch.randn(2, weight[0].numel()))
        self.up = nn.Parameter(0.3 * torch.randn(weight.shape[0], 2))

    def forward(self, weight):
        return weight + (self.up @ self.down).view(weight.shape)
""",
    "Absolute": """
class Absolute(nn.Module):
    def forward(self, weight):
        return weight.abs() + 0.1
""",
    "Symmetric": """
class Symmetric(nn.Module):
    def forward(self, weight):
        return (weight + weight.transpose(0, 1)) / 2
""",
    "Standardized": """
class Standardized(nn.Module):
    def forward(self, weight):
        flat = weight.flatten(1)
        return ((flat - flat.mean(1, keepdim=True)) / (flat.std(1, correction=0, keepdim=True) + 0.1)).view_as(weight)
""",
    "Masked": """
class Masked(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.register_buffer("mask", (torch.rand(weight.shape) > 0.3).to(weight.dtype))

    def forward(self, weight):
        return weight * self.mask
""",
    "Scaled": """
class Scaled(nn.Module):
    def forward(self, weight):
        return weight * weight[0].numel() ** -0.5
""",
    "Gained": """
class Gained(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(weight.shape[0]))

    def forward(self, weight):
        return weight * self.gain.view(-1, *[1] * (weight.ndim - 1))
""",
    "Rounded": """
class Rounded(nn.Module):
    def forward(self, weight):
        return weight + ((weight * 4).round() / 4 - weight).detach()
""",
    "Unit": """
class Unit(nn.Module):
    def forward(self, weight):
        return F.normalize(weight.flatten(1), dim=1).view_as(weight)
""",
    "Softmaxed": """
class Softmaxed(nn.Module):
    def forward(self, weight):
        return weight.softmax(1)
""",
}
NEED_WEIGHT = ("LowRank", "Masked", "Gained")


def _layer(net: Writer, x: Value, width: int, *, square: bool = False) -> str:
    """Code of a convolution or linear layer."""
    dims = len(x.shape) - 2
    width = x.width if square else width
    if x.layout != "image":
        return f"nn.Linear({x.width}, {width})"
    kernel = net.choose(1, 3)
    groups = net.choose(1, 1, *divisors(x.width)) if not square and width % 2 == 0 else 1
    groups = groups if width % groups == 0 else 1
    return f"nn.Conv{dims}d({x.width}, {width}, {kernel}, padding={kernel // 2}, groups={groups})"


def _parametrized(net: Writer, x: Value) -> Value:
    name = net.choose(*PARAMETRIZATIONS)
    net.define(PARAMETRIZATIONS[name])
    layer = net.layer(_layer(net, x, net.width(), square=name == "Symmetric"))
    argument = f"{layer}.weight" if name in NEED_WEIGHT else ""
    net.setup(f"parametrize.register_parametrization({layer}, 'weight', {name}({argument}))")
    return net.like(x, f"{layer}({x})")


@on("image", weight=2, variants=10)
def parametrized_convolution(net: Writer, x: Value) -> Value:
    return _parametrized(net, x)


@on("tokens", variants=10)
def parametrized_linear(net: Writer, x: Value) -> Value:
    return _parametrized(net, x)


def _normalized(net: Writer, x: Value) -> Value:
    """Norms of weights that torch offers."""
    code = _layer(net, x, net.width())
    how = net.choose(
        "parametrizations.weight_norm({})",
        "torch.nn.utils.weight_norm({})",
        "parametrizations.weight_norm({}, dim=None)",
        "parametrizations.spectral_norm({})",
        "torch.nn.utils.spectral_norm({})",
        "parametrizations.orthogonal({})",
        "prune.l1_unstructured({}, 'weight', 0.3)",
        "prune.ln_structured({}, 'weight', 0.3, n=2, dim=0)",
    )
    return net.like(x, f"{net.layer(how.format(code))}({x})")


@on("image", weight=2, variants=8)
def norm_of_weights(net: Writer, x: Value) -> Value:
    return _normalized(net, x)


@on("tokens", variants=8)
def norm_of_linear_weights(net: Writer, x: Value) -> Value:
    return _normalized(net, x)


@on("vector", variants=8)
def norm_of_vector_weights(net: Writer, x: Value) -> Value:
    return _normalized(net, x)


@on("image")
def weight_standardization(net: Writer, x: Value) -> Value:
    dims, eps = len(x.shape) - 2, 1e-3
    net.define(f"""
class StandardizedConv{dims}d(nn.Conv{dims}d):
    def forward(self, x):
        dims = tuple(range(1, self.weight.ndim))
        var, mean = torch.var_mean(self.weight, dim=dims, keepdim=True, correction=0)
        weight = (self.weight - mean) * torch.rsqrt(var + {eps})
        return F.conv{dims}d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
""")
    return net.image(f"{net.layer(f'StandardizedConv{dims}d({x.width}, {net.width()}, 3, padding=1)')}({x})")


@on("image")
def weight_standardization_by_batch_norm(net: Writer, x: Value) -> Value:
    """Timm's: the weight goes through a batch norm."""
    dims = len(x.shape) - 2
    conv = net.layer(f"nn.Conv{dims}d({x.width}, {net.width()}, 3, padding=1)")
    weight = f"F.batch_norm({conv}.weight.reshape(1, {conv}.out_channels, -1), None, None, training=True, eps=1e-3)"
    return net.image(f"F.conv{dims}d({x}, {weight}.reshape_as({conv}.weight), {conv}.bias, padding=1)")


@on("image", weight=3, variants=11)
def computed_weight(net: Writer, x: Value) -> Value:
    """Weights that are sums, concatenations or products of parameters."""
    dims, width, ins = len(x.shape) - 2, net.width(), x.width
    ones, threes = ["1"] * dims, ["3"] * dims
    how = net.choose(
        "cat", "sum", "stack", "einsum", "factors", "pad", "cat inputs", "flip", "scaled", "expanded", "mean"
    )
    conv = f"F.conv{dims}d({x}, {{}}, padding=1)"
    if how == "cat":
        other = net.width()
        weight = f"torch.cat([{net.parameter(width, ins, *threes)}, {net.parameter(other, ins, *threes)}])"
    elif how == "cat inputs":
        if ins < 2:
            raise UnfitError("one channel")
        weight = f"torch.cat([{net.parameter(width, 1, *threes)}, {net.parameter(width, ins - 1, *threes)}], 1)"
    elif how == "sum":
        weight = f"{net.parameter(width, ins, *threes)} + {net.parameter(width, ins, *threes)}"
    elif how in ("stack", "mean"):
        listed = net.layer(
            f"nn.ParameterList([nn.Parameter(torch.randn({width}, {ins}, {', '.join(threes)})) for _ in 'abc'])"
        )
        weight = f"torch.stack([*{listed}]).{'sum' if how == 'stack' else 'mean'}(0)"
    elif how == "einsum":
        product = f"torch.einsum('or,ri->oi', {net.parameter(width, 2)}, {net.parameter(2, ins)})"
        weight = f"{product}[..., {', '.join(['None'] * dims)}]"
        conv = f"F.conv{dims}d({x}, {{}})"
    elif how == "factors":
        weight = f"{net.parameter(width, 1, *threes)} * {net.parameter(1, ins, *ones)}"
    elif how == "pad":
        weight = f"{net.parameter(width, ins, *threes)} + F.pad({net.parameter(width, ins, *ones)}, {(1,) * 2 * dims})"
    elif how == "flip":
        weight = f"{net.parameter(width, ins, *threes)}.flip(-1)"
    elif how == "scaled":
        weight = f"{net.parameter(width, ins, *threes)} * {net.parameter(width)}.view(-1, 1, {', '.join(ones)})"
    else:
        weight = f"{net.parameter(width, ins, *ones)}.expand(-1, -1, {', '.join(threes)})"
    return net.image(conv.format(weight))


@on("tokens", variants=14)
def computed_linear_weight(net: Writer, x: Value) -> Value:
    width = net.width()
    code = net.choose(
        "F.linear({x}, {a})",
        "{x} @ {a}.t()",
        "torch.einsum('nlc,oc->nlo', {x}, {a})",
        "torch.matmul({x}, {a}.mT)",
        "F.linear({x}, {a} + {b})",
        "F.linear({x}, torch.cat([{a}, {b}]))",
        "F.linear({x}, {a}, {c})",
        "F.linear({x}, {a} * {c}[:, None])",
        "({x}.unsqueeze(-2) * {a}).sum(-1)",
        "torch.tensordot({x}, {a}, dims=([2], [1]))",
        "torch.addmm({c}, {x}.flatten(0, 1), {a}.t()).view({x}.shape[0], -1, {width})",
        "torch.bmm({x}, {a}.t().expand({x}.shape[0], -1, -1))",
        "torch.baddbmm({c}, {x}, {a}.t().expand({x}.shape[0], -1, -1))",
        "F.linear({x}, {a}) + F.linear({x}, {b}, {c})",
    )
    names = {"a": (width, x.width), "b": (width, x.width), "c": (width,)}
    made = {name: net.parameter(*shape) for name, shape in names.items() if f"{{{name}}}" in code}
    return net.tokens(code.format(x=x, width=width, **made))


@on("image")
def conditional_convolution(net: Writer, x: Value) -> Value:
    """CondConv: every sample mixes a bank of weights, and all samples are convolved at once, as groups."""
    dims, width = len(x.shape) - 2, net.width()
    bank = net.parameter(3, width, x.width, *["3"] * dims)
    route = net.layer(f"nn.Linear({x.width}, 3)")
    mix = net.let(f"{route}({x}.flatten(2).mean(2)).{net.choose('sigmoid()', 'softmax(1)')}")
    letters = "oiabc"[: dims + 2]
    weight = net.choose(
        f"({mix} @ {bank}.flatten(1)).view(-1, *{bank}.shape[2:])",
        f"torch.einsum('nk,k{letters}->n{letters}', {mix}, {bank}).flatten(0, 1)",
    )
    weight = net.let(weight)
    merged = f"{x}.reshape(1, -1, *{x}.shape[2:])"
    made = f"F.conv{dims}d({merged}, {weight}, padding=1, groups={x}.shape[0])"
    return net.image(f"{made}.view({x}.shape[0], -1, *{x}.shape[2:])")


@on("image", "vector")
def modulated_convolution(net: Writer, x: Value, y: Value) -> Value:
    """StyleGAN2: every sample scales the weight's inputs, and its outputs are normalized."""
    dims, width = len(x.shape) - 2, net.width()
    kernel = net.parameter(1, width, x.width, *["3"] * dims)
    style = net.let(f"{net.layer(f'nn.Linear({y.width}, {x.width})')}({y}) + 1")
    ones = ", ".join("1" * dims)
    weight = net.let(f"{kernel} * {style}.view({x}.shape[0], 1, -1, {ones})")
    if net.chance():
        net.run(
            f"{weight} = {weight} * ({weight}.square().sum({tuple(range(2, dims + 3))}, keepdim=True) + 1e-3).rsqrt()"
        )
    merged = f"{x}.reshape(1, -1, *{x}.shape[2:])"
    made = f"F.conv{dims}d({merged}, {weight}.flatten(0, 1), padding=1, groups={x}.shape[0])"
    return net.image(f"{made}.view({x}.shape[0], -1, *{x}.shape[2:])")


@on("image")
def dynamic_kernel(net: Writer, x: Value) -> Value:
    """Kernels that are themselves activations: involution, reduced to one number for each channel."""
    dims = len(x.shape) - 2
    made = net.let(f"{net.layer(f'nn.Linear({x.width}, {3**dims})')}({x}.flatten(2).mean(2)).softmax(1)")
    weight = f"{made}.view(-1, 1, {', '.join('3' * dims)})"
    merged = f"{x}.transpose(0, 1)"
    return net.image(f"F.conv{dims}d({merged}, {weight}, padding=1, groups={x}.shape[0]).transpose(0, 1)")


# -- sharing -----------------------------------------------------------------------------------------------------------


@on("image", "image")
def shared_convolution(net: Writer, x: Value, y: Value) -> Value:
    """One layer on two tensors."""
    if x.width != y.width or x is y:
        raise UnfitError("different widths")
    layer = net.conv(x, x.width, net.width(), 3)
    resized = f"F.interpolate({layer}({y}), size={x}.shape[2:])"
    join = net.choose("{} + {}", "torch.cat([{}, {}], 1)", "{} * {}.sigmoid()")
    return net.image(join.format(f"{layer}({x})", resized))


@on("image")
def repeated_convolution(net: Writer, x: Value) -> Value:
    """One layer after itself."""
    dims = len(x.shape) - 2
    layer, norm = net.conv(x, x.width, x.width, 3), net.layer(f"nn.BatchNorm{dims}d({x.width})")
    return net.image(f"{layer}({norm}({layer}({x})).relu())")


@on("image")
def module_under_two_names(net: Writer, x: Value) -> Value:
    first = net.layer(f"nn.Sequential({_layer(net, x, x.width)}, nn.ReLU())")
    second = net.layer(first)
    return net.image(f"{second}({first}({x}))")


@on("image")
def tied_parameters(net: Writer, x: Value) -> Value:
    """Two layers with the same weight, or only the same bias."""
    dims, width = len(x.shape) - 2, net.width()
    first, second = (net.layer(f"nn.Conv{dims}d({x.width}, {width}, 1)") for _ in range(2))
    net.setup(f"{second}.{(name := net.choose('weight', 'bias'))} = {first}.{name}")
    return net.image(f"torch.cat([{first}({x}), {second}({x}.tanh())], 1)")


@on("image")
def tied_norms(net: Writer, x: Value) -> Value:
    dims = len(x.shape) - 2
    norm = net.layer(f"nn.BatchNorm{dims}d({x.width})")
    return net.image(f"{norm}({x}) + {norm}({net.conv(x, x.width, x.width)}({x}))")


@on("image", variants=3)
def tied_transposed_convolution(net: Writer, x: Value) -> Value:
    """An autoencoder: the decoder's weight is the encoder's."""
    dims, width = len(x.shape) - 2, net.width()
    conv = net.layer(f"nn.Conv{dims}d({x.width}, {width}, 2, stride=2)")
    hidden = net.let(f"{conv}({x}).relu()")
    how = net.choose("function", "module", "transposed weight")
    if how == "module":
        back = net.layer(f"nn.ConvTranspose{dims}d({width}, {x.width}, 2, stride=2)")
        net.setup(f"{back}.weight = {conv}.weight")
        return net.image(f"{back}({hidden})")
    if how == "function":
        return net.image(f"F.conv_transpose{dims}d({hidden}, {conv}.weight, stride=2)")
    return net.image(f"F.conv{dims}d({hidden}, {conv}.weight.transpose(0, 1))")


@on("tokens")
def tied_transposed_linear(net: Writer, x: Value) -> Value:
    width = net.width()
    linear = net.layer(f"nn.Linear({x.width}, {width})")
    hidden = net.let(f"F.gelu({linear}({x}))")
    return net.tokens(net.choose(f"F.linear({hidden}, {linear}.weight.t())", f"{hidden} @ {linear}.weight"))


@on("tokens")
def tied_embedding(net: Writer, x: Value) -> Value:
    """Words that are predicted by the table that embeds them."""
    table = net.layer(f"nn.Embedding(5, {x.width})")
    embedded = net.let(f"{x} + {table}(torch.arange({x.shape[1]}) % 5)")
    return net.tokens(f"{embedded} @ {table}.weight.t()")
