"""Attention in all forms, and what comes with it."""

from helpers.random_networks._writer import UnfitError, Value, Writer, divisors, on

SCALES = ("{q}.shape[-1] ** -0.5", "self.scale", "math.sqrt(1 / {q}.size(-1))", "number", "learned", "none")


def _heads(net: Writer, width: int) -> int:
    return int(net.choose(1, *divisors(width)))


def _scale(net: Writer, q: str) -> str:
    """Code of the factor before the softmax."""
    how = net.choose(*SCALES)
    width = net.shape(q)[-1]
    if how == "self.scale":
        return net.layer(f"{width} ** -0.5", "scale")
    if how == "learned":
        return net.layer("nn.Parameter(torch.tensor(0.5))", "scale")
    return {"number": f"{width**-0.5:.6f}", "none": "1"}.get(how, how.format(q=q))


def _mask(net: Writer, scores: str) -> str:
    """Statements that mask, shift or drop scores; returns code of the result."""
    how = net.choose("none", "none", "causal", "bias", "table", "dropout", "fill")
    length, keys = net.shape(scores)[-2:]
    if how == "causal":
        mask = f"torch.ones({length}, {keys}, dtype=torch.bool).tril()"
        return f"{scores}.masked_fill(~{mask}, float('-inf'))"
    if how == "bias":
        return f"({scores} + {net.parameter(length, keys)})"
    if how == "table":
        places = net.buffer(f"torch.arange({length})[:, None] - torch.arange({keys})[None] + {keys - 1}")
        heads = net.shape(scores)[1]
        table = net.parameter(length + keys - 1, heads)
        return f"({scores} + {table}[{places}.view(-1)].view({length}, {keys}, -1).permute(2, 0, 1))"
    if how == "fill":
        mask = net.buffer(f"torch.full(({length}, {keys}), float('-inf')).triu(1)")
        return f"({scores} + {mask})"
    return f"F.dropout({scores}, 0.1, self.training)" if how == "dropout" else scores


def _attend(net: Writer, q: str, k: str, v: str) -> str:
    """Code of attention of (N, heads, L, D) tensors."""
    how = net.choose("function", "matmul", "einsum", "bmm", "baddbmm", "scaled first", "function with scale", "masked")
    if how.startswith("function"):
        more = ", scale=" + _scale(net, q) if how.endswith("scale") else net.choose("", ", is_causal=True")
        return f"F.scaled_dot_product_attention({q}, {k}, {v}{more})"
    if how == "masked":
        length, keys = net.shape(q)[-2], net.shape(k)[-2]
        mask = f"torch.ones({length}, {keys}, dtype=torch.bool).tril()"
        return f"F.scaled_dot_product_attention({q}, {k}, {v}, attn_mask={mask})"
    if how == "einsum":
        scores = net.let(f"torch.einsum('nhid,nhjd->nhij', {q}, {k}) * {_scale(net, q)}")
        return f"torch.einsum('nhij,nhjd->nhid', {_mask(net, scores)}.softmax(-1), {v})"
    if how in ("bmm", "baddbmm"):
        heads = net.shape(q)[1]
        flat = [net.let(f"{name}.flatten(0, 1)") for name in (q, k, v)]
        scores = f"torch.bmm({flat[0]}, {flat[1]}.transpose(1, 2)) * {_scale(net, q)}"
        if how == "baddbmm":
            sizes = f"{flat[0]}.shape[0], {flat[0]}.shape[1], {flat[1]}.shape[1]"
            empty = f"torch.empty({sizes}, dtype={q}.dtype)"
            operands = f"{empty}, {flat[0]}, {flat[1]}.transpose(-1, -2)"
            scores = f"torch.baddbmm({operands}, beta=0, alpha={net.shape(q)[-1]} ** -0.5)"
        scores = net.let(scores)
        return f"torch.bmm({scores}.softmax(-1), {flat[2]}).unflatten(0, (-1, {heads}))"
    if how == "scaled first":
        net.run(f"{q} = {q} * {_scale(net, q)}")
        scores = net.let(f"{q} @ {k}.transpose(-2, -1)")
        return f"{_mask(net, scores)}.softmax(dim=-1) @ {v}"
    scores = net.let(f"({q} @ {k}.transpose(-2, -1)) * {_scale(net, q)}")
    masked = net.let(f"{_mask(net, scores)}.softmax(dim=-1)")
    return f"torch.matmul({masked}, {v})"


def _split_heads(net: Writer, code: str, heads: int, size: int) -> str:
    """A variable of shape (N, heads, L, D) from code of shape (N, L, heads * D)."""
    base = net.let(code)
    view = net.choose(
        f"{base}.view({base}.shape[0], -1, {heads}, {size}).transpose(1, 2)",
        f"{base}.view({base}.shape[0], -1, {heads}, {base}.shape[-1] // {heads}).transpose(1, 2)",
        f"{base}.reshape(*{base}.shape[:2], {heads}, -1).permute(0, 2, 1, 3)",
        f"{base}.unflatten(-1, ({heads}, -1)).transpose(1, 2)",
    )
    return net.let(view)


@on("tokens", weight=4, variants=8)
def attention(net: Writer, x: Value) -> Value:
    """Self-attention by hand, whose inner width need not be that of the tokens."""
    heads = _heads(net, x.width)
    size, out_size = x.width // heads, net.choose(x.width // heads, 4, 8, 6)
    if net.chance():
        size = net.choose(4, 2, 6, 8)
    bias = net.choose("", ", bias=False")
    how = net.choose("apart", "together", "chunk", "split")
    if how == "apart":
        widths = (heads * size, heads * size, heads * out_size)
        made = [f"{net.layer(f'nn.Linear({x.width}, {width}{bias})')}({x})" for width in widths]
        sizes = (size, size, out_size)
        q, k, v = (_split_heads(net, code, heads, one) for code, one in zip(made, sizes, strict=True))
    else:
        out_size = size
        joint = net.let(f"{net.layer(f'nn.Linear({x.width}, {3 * heads * size}{bias})')}({x})")
        q, k, v = (net.name("t") for _ in range(3))
        if how == "together":
            shape = net.choose(f"3, {heads}, {size}", f"3, {heads}, {x.width} // {heads}", f"3, {heads}, -1")
            net.run(f"{q}, {k}, {v} = {joint}.reshape(*{x}.shape[:2], {shape}).permute(2, 0, 3, 1, 4).unbind(0)")
        else:
            parts = f"{joint}.chunk(3, dim=-1)" if how == "chunk" else f"{joint}.split({heads * size}, dim=2)"
            net.run(f"{q}, {k}, {v} = {parts}")
            q, k, v = (_split_heads(net, name, heads, size) for name in (q, k, v))
    made = net.let(_attend(net, q, k, v))
    merge = net.choose(".transpose(1, 2).flatten(2)", ".transpose(1, 2).reshape(*{x}.shape[:2], -1)")
    out = net.layer(f"nn.Linear({heads * out_size}, {x.width})")
    y = net.let(f"{out}({made}{merge.format(x=x)})")
    return net.tokens(net.choose(f"{x} + {y}", f"{y} * 1.0"))


@on("tokens", "tokens", variants=8)
def cross_attention(net: Writer, x: Value, y: Value) -> Value:
    heads = _heads(net, x.width)
    size = x.width // heads
    q, k, v = (
        _split_heads(net, f"{net.layer(f'nn.Linear({z.width}, {x.width})')}({z})", heads, size) for z in (x, y, y)
    )
    made = net.let(_attend(net, q, k, v))
    return net.tokens(f"{x} + {net.layer(f'nn.Linear({x.width}, {x.width})')}({made}.transpose(1, 2).flatten(2))")


@on("tokens")
def multi_query_attention(net: Writer, x: Value) -> Value:
    """All heads share keys and values."""
    heads, size = net.choose(2, 3), net.choose(4, 2, 6)
    query = _split_heads(net, f"{net.layer(f'nn.Linear({x.width}, {heads * size})')}({x})", heads, size)
    k, v = (net.let(f"{net.layer(f'nn.Linear({x.width}, {size})')}({x})[:, None]") for _ in range(2))
    made = net.let(f"({query} @ {k}.mT * {size} ** -0.5).softmax(-1) @ {v}")
    return net.tokens(f"{x} + {net.layer(f'nn.Linear({heads * size}, {x.width})')}({made}.transpose(1, 2).flatten(2))")


@on("tokens", variants=8)
def rotary_attention(net: Writer, x: Value) -> Value:
    """Queries and keys are rotated by their positions."""
    heads, size = net.choose(1, 2), net.choose(4, 8)
    q, k, v = (
        _split_heads(net, f"{net.layer(f'nn.Linear({x.width}, {heads * size})')}({x})", heads, size) for _ in "qkv"
    )
    angles = net.buffer(f"torch.outer(torch.arange({x.shape[1]}).float(), torch.rand({size // 2})).repeat(1, 2)")
    net.define("""
def rotate_half(x):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([-b, a], dim=-1)
""")
    for name in (q, k):
        net.run(f"{name} = {name} * {angles}.cos() + rotate_half({name}) * {angles}.sin()")
    made = net.let(_attend(net, q, k, v))
    return net.tokens(f"{x} + {net.layer(f'nn.Linear({heads * size}, {x.width})')}({made}.transpose(1, 2).flatten(2))")


@on("tokens")
def linear_attention(net: Writer, x: Value) -> Value:
    """Keys and values are contracted first."""
    heads, size = net.choose(1, 2), net.choose(4, 6)
    q, k, v = (
        _split_heads(net, f"{net.layer(f'nn.Linear({x.width}, {heads * size})')}({x})", heads, size) for _ in "qkv"
    )
    feature = net.choose("F.elu({}) + 1", "{}.softmax(-1)", "{}.relu()")
    context = net.let(f"({feature.format(k)}).transpose(-2, -1) @ {v} / {x}.shape[1]")
    made = net.let(f"({feature.format(q)}) @ {context}")
    return net.tokens(f"{x} + {net.layer(f'nn.Linear({heads * size}, {x.width})')}({made}.transpose(1, 2).flatten(2))")


@on("image")
def channel_attention(net: Writer, x: Value) -> Value:
    """Channels attend to each other (XCiT, Restormer, dual attention)."""
    heads = _heads(net, x.width)
    joint = net.conv(x, x.width, 3 * x.width, 1, ", bias=False")
    q, k, v = (net.name("t") for _ in range(3))
    net.run(f"{q}, {k}, {v} = {joint}({x}).chunk(3, dim=1)")
    q, k, v = (net.let(f"{name}.reshape({x}.shape[0], {heads}, -1, {x}[0, 0].numel())") for name in (q, k, v))
    scores = net.let(f"F.normalize({q}, dim=-1) @ F.normalize({k}, dim=-1).transpose(-2, -1)")
    temperature = net.parameter(heads, 1, 1)
    made = net.let(f"({scores} * {temperature}).softmax(-1) @ {v}")
    return net.image(f"{x} + {net.conv(x, x.width, x.width)}({made}.reshape({x}.shape))")


@on("image")
def non_local_block(net: Writer, x: Value) -> Value:
    """Attention of positions, by convolutions; channels come before positions."""
    inner = net.width()
    values = net.choose(inner, x.width)
    widths = (inner, inner, values)
    q, k, v = (net.let(f"{net.conv(x, x.width, width)}({x}).flatten(2)") for width in widths)
    norm = net.choose(".softmax(-1)", " / {x}.shape[-1]")
    scores = net.let(f"({q}.transpose(1, 2) @ {k}){norm.format(x=x)}")
    made = net.choose(f"({v} @ {scores}.transpose(1, 2))", f"torch.bmm({v}, {scores}.permute(0, 2, 1))")
    back = net.let(f"{made}.view({x}.shape[0], -1, *{x}.shape[2:])")
    return net.image(f"{x} + {net.conv(x, values, x.width)}({back})")


@on("image")
def global_context(net: Writer, x: Value) -> Value:
    """One weight for each position, the same for all channels (GCNet)."""
    weights = net.let(f"{net.conv(x, x.width, 1)}({x}).flatten(2).softmax(-1)")
    context = net.let(f"{x}.flatten(2) @ {weights}.transpose(1, 2)")
    inner = net.width()
    down, up = net.layer(f"nn.Linear({x.width}, {inner})"), net.layer(f"nn.Linear({inner}, {x.width})")
    return net.image(f"{x} + {up}({down}({context}[..., 0]).relu())[(...,) + (None,) * {len(x.shape) - 2}]")


@on("image", variants=8)
def axial_attention(net: Writer, x: Value) -> Value:
    """Along the last dimension of positions."""
    moved = net.let(f"{x}.movedim(1, -1)")
    tokens = net.let(f"{moved}.reshape(-1, *{moved}.shape[-2:])")
    q, k, v = (net.let(f"{net.layer(f'nn.Linear({x.width}, {x.width})')}({tokens})[:, None]") for _ in "qkv")
    made = net.let(_attend(net, q, k, v))
    return net.image(f"{x} + {made}.reshape({moved}.shape).movedim(-1, 1)")


@on("image", variants=8)
def reduced_attention(net: Writer, x: Value) -> Value:
    """Keys and values have fewer positions (Segformer, PVT)."""
    if min(x.positions) < 2:
        raise UnfitError("too small")
    heads = _heads(net, x.width)
    size = x.width // heads
    reduced = net.let(f"{net.conv(x, x.width, x.width, 2, ', stride=2, padding=0')}({x}).flatten(2).transpose(1, 2)")
    norm = net.layer(f"nn.LayerNorm({x.width})", "norm")
    q = _split_heads(net, f"{net.layer(f'nn.Linear({x.width}, {x.width})')}({x}.flatten(2).mT)", heads, size)
    both = net.let(f"{net.layer(f'nn.Linear({x.width}, {2 * x.width})')}({norm}({reduced}))")
    k, v = net.name("t"), net.name("t")
    net.run(f"{k}, {v} = {both}.view({x}.shape[0], -1, 2, {heads}, {size}).permute(2, 0, 3, 1, 4)")
    made = net.let(f"{_attend(net, q, k, v)}.transpose(1, 2).flatten(2)")
    return net.image(f"{net.layer(f'nn.Linear({x.width}, {x.width})')}({made}).mT.reshape({x}.shape)")


# -- torch's own -------------------------------------------------------------------------------------------------------


@on("tokens", weight=3, variants=5)
def multihead_attention(net: Writer, x: Value) -> Value:
    heads, first = _heads(net, x.width), net.choose(True, False)
    more = net.choose("", ", bias=False", ", add_bias_kv=True", ", add_zero_attn=True", ", dropout=0.1")
    layer = net.layer(f"nn.MultiheadAttention({x.width}, {heads}{more}, batch_first={first})", "attention")
    weights = net.choose("", ", need_weights=False", ", average_attn_weights=False")
    if not first:
        y = net.let(f"{x}.transpose(0, 1)")
        return net.tokens(f"{x} + {layer}({y}, {y}, {y}{weights})[0].transpose(0, 1)")
    mask = net.choose("", f", attn_mask=torch.ones({x.shape[1]}, {x.shape[1]}, dtype=torch.bool).triu(1)")
    return net.tokens(f"{x} + {layer}({x}, {x}, {x}{weights}{mask})[0]")


@on("tokens", "tokens")
def multihead_cross_attention(net: Writer, x: Value, y: Value) -> Value:
    more = f", kdim={y.width}, vdim={y.width}"
    layer = net.layer(f"nn.MultiheadAttention({x.width}, {_heads(net, x.width)}{more}, batch_first=True)", "attention")
    return net.tokens(f"{x} + {layer}({x}, {y}, {y})[0]")


@on("tokens", variants=4)
def transformer_layer(net: Writer, x: Value) -> Value:
    more = net.choose("", ", norm_first=True", ", activation='gelu'", ", bias=False")
    code = f"nn.TransformerEncoderLayer({x.width}, {_heads(net, x.width)}, {net.width()}, batch_first=True{more})"
    if net.chance():
        norm = net.choose("None", f"nn.LayerNorm({x.width})")
        code = f"nn.TransformerEncoder({code}, 2, norm={norm}, enable_nested_tensor=False)"
    return net.tokens(f"{net.layer(code, 'encoder')}({x})")


@on("tokens", "tokens")
def transformer_decoder(net: Writer, x: Value, y: Value) -> Value:
    memory = net.let(net.project(y, x.width))
    code = f"nn.TransformerDecoderLayer({x.width}, {_heads(net, x.width)}, {net.width()}, batch_first=True)"
    if net.chance():
        code = f"nn.TransformerDecoder({code}, 1)"
    return net.tokens(f"{net.layer(code, 'decoder')}({x}, {memory})")


@on("tokens", "tokens")
def transformer(net: Writer, x: Value, y: Value) -> Value:
    memory = net.let(net.project(y, x.width))
    code = f"nn.Transformer({x.width}, {_heads(net, x.width)}, 1, 1, {net.width()}, batch_first=True)"
    return net.tokens(f"{net.layer(code, 'transformer')}({memory}, {x})")


# -- the rest of a transformer -----------------------------------------------------------------------------------------


@on("tokens", weight=3)
def mlp(net: Writer, x: Value) -> Value:
    inner = net.width()
    up, down = net.layer(f"nn.Linear({x.width}, {inner})"), net.layer(f"nn.Linear({inner}, {x.width})")
    norm = net.layer(f"nn.LayerNorm({x.width})", "norm") if net.chance() else ""
    return net.tokens(f"{x} + {down}(F.gelu({up}({norm}({x}))))")


@on("tokens")
def token_mixing(net: Writer, x: Value) -> Value:
    """An MLP along tokens (MLP-Mixer), or a gate along them (gMLP)."""
    mix = net.layer(f"nn.Linear({x.shape[1]}, {x.shape[1]})")
    if net.chance() and x.width % 2 == 0:
        a, b = net.name("t"), net.name("t")
        net.run(f"{a}, {b} = {x}.chunk(2, dim=-1)")
        return net.tokens(f"{a} * {mix}({b}.transpose(1, 2)).transpose(1, 2)")
    return net.tokens(f"{x} + {mix}({x}.transpose(1, 2)).transpose(1, 2)")


@on("tokens", weight=2, variants=5)
def position_embedding(net: Writer, x: Value) -> Value:
    """Learned, sinusoids in a buffer or in a plain attribute, or a table of embeddings."""
    length, width = x.shape[1], x.width
    how = net.choose("parameter", "buffer", "attribute", "embedding", "truncated")
    if how == "embedding":
        table = net.layer(f"nn.Embedding({length}, {width})", "table")
        return net.tokens(f"{x} + {table}(torch.arange({x}.shape[1]))")
    if how in ("parameter", "truncated"):
        longer = length + (how == "truncated")
        return net.tokens(f"{x} + {net.parameter(1, longer, width)}[:, :{x}.shape[1]]")
    code = f"torch.sin(torch.arange({length})[:, None] / 10 ** torch.linspace(0, 1, {width}))"
    held = net.buffer(code) if how == "buffer" else net.layer(code, "positions")
    return net.tokens(f"{x} + {held}.to({x}.dtype)")


@on("tokens", weight=2, variants=3)
def class_token(net: Writer, x: Value) -> Value:
    token = net.parameter(1, 1, x.width)
    how = net.choose("expand", "repeat", "added")
    if how == "added":
        return net.tokens(f"{x} + {token}")
    code = f"{token}.expand({x}.shape[0], -1, -1)" if how == "expand" else f"{token}.repeat({x}.shape[0], 1, 1)"
    return net.tokens(f"torch.cat([{code}, {x}], dim=1)")


@on("tokens")
def mask_token(net: Writer, x: Value) -> Value:
    token = net.parameter(x.width)
    mask = net.let(f"(torch.arange({x}.shape[1]) % 2).to({x}.dtype)[None, :, None]")
    return net.tokens(f"{x} * (1 - {mask}) + {token} * {mask}")


@on("tokens", variants=18)
def some_tokens(net: Writer, x: Value) -> Value:
    code = net.choose(
        "{0}[:, 1:]",
        "{0}[:, ::2]",
        "{0}.flip(1)",
        "{0}.roll(1, 1)",
        "{0}.gather(1, {0}.argsort(1))",
        "{0}.gather(1, {0}[..., :1].argsort(1).expand(-1, -1, {0}.shape[-1]))",
        "{0}[:, torch.arange({0}.shape[1]).flip(0)]",
        "{0}.cumsum(1)",
        "{0}.softmax(1)",
        "{0}.log_softmax(dim=1)",
        "{0} * {0}.softmax(-1)",
        "{0}.topk(2, dim=1).values",
        "torch.cat([{0}[:, :1], {0}[:, 1:].tanh()], 1)",
        "{0}[:, :, :2]",
        "torch.fft.fft({0}, dim=1).real",
        "torch.fft.fft2({0}).real",
        "{0}.index_select(1, torch.tensor([1, 0]))",
        "{0}.unfold(1, 2, 1).amax(-1)",
    )
    return net.tokens(code.format(x))


@on("tokens")
def merged_tokens(net: Writer, x: Value) -> Value:
    """Pairs of tokens become one with twice as many channels (patch merging)."""
    if x.shape[1] % 2:
        raise UnfitError("odd number of tokens")
    code = net.choose(
        f"{x}.reshape({x}.shape[0], {x}.shape[1] // 2, 2 * {x}.shape[2])",
        f"torch.cat([{x}[:, 0::2], {x}[:, 1::2]], -1)",
        f"{x}.unflatten(1, (-1, 2)).flatten(2)",
    )
    return net.tokens(f"{net.layer(f'nn.Linear({2 * x.width}, {net.width()}, bias=False)')}({code})")
