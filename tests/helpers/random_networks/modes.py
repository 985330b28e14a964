"""What depends on the mode, on random numbers, on shapes, or on state; and checkpoints."""

from helpers.random_networks._writer import Value, Writer, on

DROP_PATH = """
class DropPath(nn.Module):
    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if not self.training:
            return x
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(1 - self.rate)
        return x * mask / (1 - self.rate)
"""


@on("image", weight=2)
def stochastic_depth(net: Writer, x: Value) -> Value:
    net.define(DROP_PATH)
    layer, drop = net.conv(x, x.width, x.width, 3), net.layer("DropPath(0.2)", "drop")
    if net.chance():
        keep = f"(0.8 + torch.rand({x}.shape[0], *[1] * ({x}.ndim - 1), dtype={x}.dtype)).floor_() / 0.8"
        y = net.let(f"{layer}({x})")
        net.run(f"if self.training: {y} = {y} * {keep}")
        return net.image(f"{x} + {y}")
    return net.image(f"{x} + {drop}({layer}({x}))")


@on("image", variants=3)
def layer_drop(net: Writer, x: Value) -> Value:
    """A residual branch that is skipped at random."""
    layer, y = net.conv(x, x.width, x.width, 3), net.let(f"{x} * 1.0")
    number = net.choose("torch.rand(()) < 0.6", "torch.rand(1).item() < 0.6", "random.random() < 0.6")
    net.run(f"if not self.training or {number}: {y} = {y} + {layer}({y}).relu()")
    return net.image(f"{y} * 1.0")


@on("image", variants=12)
def noise(net: Writer, x: Value) -> Value:
    """Random numbers of the shape of an activation."""
    code = net.choose(
        "torch.randn_like({0})",
        "torch.randn({0}.shape, dtype={0}.dtype)",
        "torch.rand({0}.shape, dtype={0}.dtype, device={0}.device)",
        "torch.rand_like({0})",
        "torch.randn({0}.shape[0], {0}.shape[1], *[1] * ({0}.ndim - 2), dtype={0}.dtype)",
        "torch.randn(*{0}.size(), dtype={0}.dtype)",
        "torch.empty_like({0}).normal_()",
        "{0}.new_empty({0}.shape).uniform_(-1, 1)",
        "torch.bernoulli({0}.sigmoid())",
        "torch.normal(0.0, 1.0, {0}.shape, dtype={0}.dtype)",
        "torch.randint_like({0}, 3)",
        "torch.randn({0}.shape[0], 1, *{0}.shape[2:], dtype={0}.dtype)",
    ).format(x)
    if net.chance():
        y = net.let(f"{x} * 1.0")
        net.run(f"if self.training: {y} = {y} + 0.1 * {code}")
        return net.image(f"{y} * 1.0")
    return net.image(f"{x} + 0.1 * {code}")


@on("image")
def learned_noise(net: Writer, x: Value) -> Value:
    """StyleGAN: noise for every position, with a weight for every channel."""
    weight = net.parameter(x.width, *[1] * (len(x.shape) - 2))
    return net.image(f"{x} + {weight} * torch.randn({x}.shape[0], 1, *{x}.shape[2:], dtype={x}.dtype)")


@on("image", variants=4)
def functional_dropout(net: Writer, x: Value) -> Value:
    dims = len(x.shape) - 2
    name = net.choose("dropout", f"dropout{dims}d", "alpha_dropout", "feature_alpha_dropout")
    return net.image(f"F.{name}({x}, 0.2, training={net.choose('self.training', 'self.training', 'True')})")


@on("image", variants=3)
def branch_of_a_mode(net: Writer, x: Value) -> Value:
    """Layers that run in training mode only, or in eval mode only."""
    layer, y = net.conv(x, x.width, x.width, 3), net.let(f"{x} * 1.0")
    condition = net.choose("self.training", "not self.training", "torch.is_grad_enabled()")
    net.run(f"if {condition}: {y} = {y} + {layer}({y}).relu()")
    return net.image(f"{y} * 1.0")


@on("image")
def norm_of_a_mode(net: Writer, x: Value) -> Value:
    """`F.batch_norm` and dropout by the mode of the network."""
    mean, var = net.buffer(f"torch.zeros({x.width})"), net.buffer(f"torch.ones({x.width})")
    weight, bias = net.parameter(x.width), net.parameter(x.width)
    return net.image(f"F.batch_norm({x}, {mean}, {var}, {weight}, {bias}, training=self.training)")


@on("image")
def reparametrized_convolution(net: Writer, x: Value) -> Value:
    """RepVGG: three branches in training, and as many in eval."""
    dims, width = len(x.shape) - 2, net.width()
    branches = [f"{net.conv(x, x.width, width, kernel, ', bias=False')}({x})" for kernel in (3, 1)]
    normed = [f"{net.layer(f'nn.BatchNorm{dims}d({width})', 'norm')}({code})" for code in branches]
    if width == x.width:
        normed.append(f"{net.layer(f'nn.BatchNorm{dims}d({width})', 'norm')}({x})")
    return net.image(f"({' + '.join(normed)}).relu()")


@on("image", weight=2)
def checkpointed(net: Writer, x: Value) -> Value:
    """A part that is computed again in the backward pass."""
    width = net.width()
    first, second = net.conv(x, x.width, width, 3), net.conv(x, width, width)
    reentrant = net.choose(False, True)
    source = net.let(f"{net.conv(x, x.width, x.width)}({x})")  # So that it needs a gradient, as `reentrant` demands.
    if net.chance():
        block = net.layer(f"nn.Sequential({first}, nn.ReLU(), {second})")
        return net.image(f"checkpoint({block}, {source}, use_reentrant={reentrant})")
    return net.image(f"checkpoint(lambda x: {second}({first}(x).relu()), {source}, use_reentrant={reentrant})")


@on("image", weight=2, variants=8)
def numbers_from_shapes(net: Writer, x: Value) -> Value:
    """Factors that depend on a number of channels or positions."""
    number = net.choose(
        "{0}.shape[1] ** -0.5",
        "1 / {0}.size(1)",
        "math.sqrt({0}.shape[1])",
        "{0}.shape[-1] ** -0.5",
        "float({0}.shape[1])",
        "math.log({0}.shape[1] + 1)",
        "1 / {0}[0].numel()",
        "({0}.numel() // {0}.shape[0]) ** -0.5",
    )
    return net.image(f"{x} * ({number.format(x)})")


@on("image", variants=7)
def asserts_on_shapes(net: Writer, x: Value) -> Value:
    """Checks of the number of channels against a number, an attribute or a weight."""
    layer = net.conv(x, x.width, x.width, 3)
    stored = net.layer(str(x.width), "channels")
    check = net.choose(
        f"assert {x}.shape[1] == {stored}",
        f"assert {x}.shape[1] == {layer}.in_channels, 'channels'",
        f"assert {x}.size(1) == {x.width}",
        f"assert {x}.shape[1:] == torch.Size({list(x.shape[1:])})",
        f"assert {layer}.weight.shape[1] == {x}.shape[1]",
        f"assert {x}.shape[1] % {net.choose(1, 2)} == 0 or True",
        f"if {x}.shape[1] != {stored}: raise ValueError({x}.shape)",
    )
    net.run(check)
    return net.image(f"{x} + {layer}({x})")


@on("image", variants=4)
def sizes_that_are_stored(net: Writer, x: Value) -> Value:
    """A reshape by the width of a layer, read from it or stored beside it."""
    width = net.width()
    layer, stored = net.conv(x, x.width, width), net.layer(str(width), "width")
    y = net.let(f"{layer}({x})")
    size = net.choose(f"{layer}.out_channels", stored, f"{layer}.weight.shape[0]", f"{layer}.weight.size(0)")
    return net.image(f"{y}.reshape({x}.shape[0], {size}, *{x}.shape[2:])")


@on("image")
def branches_on_shapes(net: Writer, x: Value) -> Value:
    """A forward that looks at shapes to decide what to do."""
    y = net.let(f"{net.conv(x, x.width, x.width, 3)}({x})")
    net.run(f"if {y}.shape == {x}.shape: {y} = {y} + {x}")
    return net.image(f"{y} * 1.0")


@on("image", variants=3)
def plain_tensor_attribute(net: Writer, x: Value) -> Value:
    """A tensor that is neither parameter nor buffer."""
    ones = ", ".join("1" * (len(x.shape) - 2))
    table = net.layer(f"torch.linspace(0.5, 1.5, {x.width}).view(1, -1, {ones})", "table")
    code = net.choose(
        f"{x} * {table}.to({x})", f"{x} + {table}.type_as({x})", f"{x} * {table}[:, :{x}.shape[1]].to({x})"
    )
    return net.image(code)


@on("image")
def buffers_of_channels(net: Writer, x: Value) -> Value:
    """Statistics that the forward itself updates."""
    mean = net.buffer(f"torch.zeros({x.width})")
    count = net.buffer("torch.zeros(())")
    dims = (0, *range(2, len(x.shape)))
    net.run(f"if self.training: {mean}.lerp_({x}.detach().mean({dims}).to({mean}), 0.1); {count}.add_(1)")
    return net.image(f"{x} - {mean}.view(1, -1, {', '.join('1' * (len(x.shape) - 2))})")


@on("image")
def remembered_sizes(net: Writer, x: Value) -> Value:
    """A forward that stores something between runs."""
    window = net.layer("99", "window")
    net.run(f"{window} = min({window}, {x}.shape[-1])")
    return net.image(f"{x}[..., :{window}] * 1.5")


@on("image")
def cached_tensor(net: Writer, x: Value) -> Value:
    """A table that the first forward makes, and later ones reuse while its size fits."""
    cache = net.layer("None", "cache")
    table = f"torch.arange({x}.shape[-1], dtype={x}.dtype, device={x}.device)"
    net.run(f"if {cache} is None or len({cache}) != {x}.shape[-1] or {cache}.dtype != {x}.dtype: {cache} = {table}")
    return net.image(f"{x} + {cache}.to({x}.device)")


@on("image", variants=3)
def without_gradients(net: Writer, x: Value) -> Value:
    layer, y = net.conv(x, x.width, x.width), net.name("t")
    net.run(f"with torch.no_grad(): {y} = {layer}({x})")
    return net.image(net.choose(f"{x} + {y}", f"{x} * {y}.sigmoid()", f"{x} + {layer}({x}.detach())"))


@on("image")
def frozen_layer(net: Writer, x: Value) -> Value:
    layer = net.conv(x, x.width, net.width(), 3)
    net.setup(f"{layer}.requires_grad_(False)")
    return net.image(f"{layer}({x})")


@on("image")
def own_function(net: Writer, x: Value) -> Value:
    """A custom autograd function."""
    net.define("""
class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad
""")
    return net.image(f"Double.apply({x})")


@on("image")
def embedded_numbers(net: Writer, x: Value) -> Value:
    """Sinusoids of a time step, as in diffusion."""
    width = net.choose(4, 8)
    steps = net.let(f"torch.arange({x}.shape[0], dtype={x}.dtype)")
    angles = net.let(f"{steps}[:, None] * torch.exp(torch.linspace(0, -2, {width // 2}, dtype={x}.dtype))")
    embedded = net.let(f"torch.cat([{angles}.sin(), {angles}.cos()], 1)")
    linear = net.layer(f"nn.Linear({width}, {x.width})")
    return net.image(f"{x} + {linear}({embedded})[(...,) + (None,) * {len(x.shape) - 2}]")


@on("image", variants=3)
def bag_of_words(net: Writer, x: Value) -> Value:
    """A vector from several rows of a table."""
    mode = net.choose("mean", "sum", "max")
    bag = net.layer(f"nn.EmbeddingBag(5, {x.width}, mode={mode!r})", "bag")
    words = net.let(f"torch.arange(2 * {x}.shape[0]).view({x}.shape[0], 2) % 5")
    return net.image(f"{x} + {bag}({words})[(...,) + (None,) * {len(x.shape) - 2}]")


@on("image")
def distances(net: Writer, x: Value) -> Value:
    """Distances from prototypes: `PairwiseDistance`, `cdist`."""
    flat = net.let(f"{x}.flatten(2).mean(2)")
    prototypes = net.parameter(3, x.width)
    if net.chance():
        layer = net.layer("nn.PairwiseDistance()", "distance")
        return net.vector(f"torch.stack([{layer}({flat}, {prototypes}[i]) for i in range(3)], 1)")
    return net.vector(f"torch.cdist({flat}, {prototypes})")


@on("image", variants=3)
def several_precisions(net: Writer, x: Value) -> Value:
    return net.image(f"{x}.{net.choose('float()', 'half()', 'bfloat16()')}.to({x}.dtype)")
