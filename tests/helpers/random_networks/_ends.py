"""What a network takes, and what it returns."""

from helpers.random_networks._writer import UnfitError, Value, Writer, on

SIDES = {1: (9, 12, 16), 2: (6, 8, 9), 3: (4, 5, 6)}
MAIN = {"image": "image", "words": "tokens", "tokens": "tokens", "vector": "vector"}


@on(weight=0)
def inputs(net: Writer) -> tuple[Value, ...]:
    """One or two tensors."""
    dims = net.options["dims"] = net.choose(2, 2, 1, 3)
    root = net.choose("image", "image", "image", "image", "image", "image", "tokens", "words", "vector")
    batch, channels = net.choose(2, 1, 3), net.choose(3, 1, 2, 4)
    sides = [net.choose(*SIDES[dims]) for _ in range(dims)]
    shapes = {"image": [channels, *sides], "tokens": [net.choose(5, 8, 9), 4 * channels], "vector": [4 * channels]}
    if root == "words":
        net.inputs["words"] = f"torch.randint(10, ({batch}, 6), generator=generator)"
    else:
        net.inputs["x0"] = _noise(batch, *shapes[root])
    extra = net.choose(None, None, None, "image", "vector")
    net.options["form"] = net.choose("tensor", "tuple", "dict")
    if extra == "image":
        net.inputs["other"] = _noise(batch, 2, *sides)
    elif extra == "vector":
        net.inputs["other"] = _noise(batch, 6)
    exec("generator = torch.Generator().manual_seed(1)", net.scope)
    for name, code in net.inputs.items():
        exec(f"{name} = {code}", net.scope)
    made = []
    if root == "words":
        table = net.layer(f"nn.Embedding(10, {4 * channels})", "table")
        made.append(net.tokens(f"{table}(words)"))
    else:
        made.append(Value("x0", root, net.shape("x0")))
    if extra:
        made.append(Value("other", extra, net.shape("other")))
    return tuple(made)


def _noise(*shape: int) -> str:
    return f"torch.randn({', '.join(map(str, shape))}, generator=generator)"


CONTAINERS = {
    "list": "[{}]",
    "tuple": "({},)",
    "dict": "dict({})",
    "nested": '{{"outputs": [{}], "extra": None}}',
    "dataclass": "Outputs([{}])",
}
OUTPUTS = """
@dataclass
class Outputs:
    tensors: list[Tensor]
"""


@on(weight=0)
def outputs(net: Writer, *sources: Value) -> tuple[Value, ...]:
    """A head on every source; in some networks those after the first run in training mode only."""
    found = [_head(net, source) for source in sources]
    form = net.choose("tensor" if len(found) == 1 else "list", *CONTAINERS)
    if net.choose(*(False,) * 7, True):
        found.append(str(sources[-1]))  # Features are returned too, and therefore unprunable.
    if form == "tensor" and len(found) > 1:
        form = "list"
    code = CONTAINERS.get(form, "{}")
    items = [f"out{number}={name}" for number, name in enumerate(found)] if form == "dict" else found
    if form == "dataclass":
        net.define(OUTPUTS)
    everything = f"return {code.format(', '.join(items))}"
    if len(found) > 1 and net.chance():
        net.returns.append("if self.training:")
        net.returns.append("    " + everything)
        everything = f"return {found[0]}"
    net.returns.append(everything)
    net.options["stem"] = net.choose(0, 0, 0, 1, 2, 3, 4)  # steps that are a module of their own
    net.options["call"] = net.choose("plain", "plain", "plain", "checkpoint", "list")
    net.options["layout"] = net.choose("", "", "", "channels_last") if net.options["dims"] > 1 else ""
    return ()


# Most heads have a layer before the last; without it, a network may have no channel that can be removed.
HIDDEN = (0, *(4, 6, 8, 5) * 8)


def _head(net: Writer, x: Value) -> str:
    """A variable with an output of two channels."""
    if x.name in net.inputs:
        raise UnfitError("an input is not an output")
    width, hidden, y = x.width, net.choose(*HIDDEN), str(x)
    if x.layout != "image":
        y = net.choose("{}", "{}.mean(1)", "{}[:, 0]").format(x) if x.layout == "tokens" else y
        if hidden:
            y, width = net.let(f"{net.layer(f'nn.Linear({width}, {hidden})', 'linear')}({y}).relu()"), hidden
        return net.let(f"{net.layer(f'nn.Linear({width}, 2)', 'linear')}({y})", "y")
    if hidden:
        y, width = net.let(f"{net.conv(x, width, hidden)}({y}).relu()"), hidden
    how = net.choose("conv", "conv", "pooled", "flat")
    if how == "conv":
        return net.let(f"{net.conv(x, width, 2, net.choose(1, 3))}({y})", "y")
    features = net.let(f"{y}.mean({tuple(range(2, len(x.shape)))})" if how == "pooled" else f"{y}.flatten(1)")
    return net.let(f"{net.layer(f'nn.Linear({net.shape(features)[1]}, 2)', 'linear')}({features})", "y")
