"""Norms."""

from helpers.random_networks._writer import Value, Writer, divisors, on


def _dims(x: Value) -> int:
    return len(x.shape) - 2


@on("image", weight=4, variants=6)
def batch_norm(net: Writer, x: Value) -> Value:
    more = net.choose("", "", "", ", affine=False", ", track_running_stats=False", ", momentum=None")
    return net.image(f"{net.layer(f'nn.BatchNorm{_dims(x)}d({x.width}{more})', 'norm')}({x})")


@on("vector")
def batch_norm_of_vectors(net: Writer, x: Value) -> Value:
    more = net.choose("", ", affine=False")
    return net.vector(f"{net.layer(f'nn.BatchNorm1d({x.width}{more})', 'norm')}({x})")


@on("tokens")
def batch_norm_of_tokens(net: Writer, x: Value) -> Value:
    norm = net.layer(f"nn.BatchNorm1d({x.width})", "norm")
    if net.chance():
        return net.tokens(f"{norm}({x}.flatten(0, 1)).view({x}.shape)")
    return net.tokens(f"{norm}({x}.transpose(1, 2)).transpose(1, 2)")


@on("image", weight=2, variants=4)
def instance_norm(net: Writer, x: Value) -> Value:
    more = net.choose("", ", affine=True", ", track_running_stats=True", ", affine=True, track_running_stats=True")
    norm = net.layer(f"nn.InstanceNorm{_dims(x)}d({x.width}{more})", "norm")
    return net.image(f"F.instance_norm({x})" if net.choose(*(False,) * 4, True) else f"{norm}({x})")


@on("image", weight=3)
def group_norm(net: Writer, x: Value) -> Value:
    groups, affine = net.choose(1, *divisors(x.width), x.width), net.choose(True, True, False)
    return net.image(f"{net.layer(f'nn.GroupNorm({groups}, {x.width}, affine={affine})', 'norm')}({x})")


@on("image")
def group_norm_of_a_number(net: Writer, x: Value) -> Value:
    """The function, which is told nothing but the number of groups."""
    return net.image(f"F.group_norm({x}, {net.choose(1, *divisors(x.width), x.width)})")


@on("tokens", weight=3, variants=5)
def layer_norm(net: Writer, x: Value) -> Value:
    more = net.choose("", ", elementwise_affine=False", ", bias=False")
    how = net.choose("channels", "channels", "channels", "both", "function")
    if how == "function":
        return net.tokens(f"F.layer_norm({x}, {x}.shape[-1:])")
    shape = x.width if how == "channels" else f"({x.shape[1]}, {x.width})"
    return net.tokens(f"{net.layer(f'nn.LayerNorm({shape}{more})', 'norm')}({x})")


@on("image", weight=2, variants=4)
def layer_norm_of_images(net: Writer, x: Value) -> Value:
    """Over channels, over channels and positions, or over positions only."""
    how = net.choose("channels", "all", "positions", "function")
    if how == "channels":
        norm = net.layer(f"nn.LayerNorm({x.width})", "norm")
        return net.image(f"{norm}({x}.movedim(1, -1)).movedim(-1, 1)")
    if how == "function":
        return net.image(f"F.layer_norm({x}, {x}.shape[1:])")
    shape = x.shape[1:] if how == "all" else x.positions
    return net.image(f"{net.layer(f'nn.LayerNorm({shape})', 'norm')}({x})")


@on("image", variants=3)
def layer_norm_by_hand(net: Writer, x: Value) -> Value:
    """Channels first, as in ConvNeXt and Restormer."""
    ones = ", ".join("1" * _dims(x))
    weight = net.layer(f"nn.Parameter(torch.ones({x.width}, {ones}))", "weight")
    how = net.choose("mean", "var_mean", "std")
    if how == "std":
        return net.image(f"{weight} * {x} / ({x}.std(1, correction=0, keepdim=True) + 1e-3)")
    mean = net.let(f"{x}.mean(1, keepdim=True)")
    var = net.let(f"({x} - {mean}).pow(2).mean(1, keepdim=True)")
    if how == "var_mean":
        net.run(f"{var}, {mean} = torch.var_mean({x}, 1, keepdim=True, correction=0)")
    return net.image(f"({x} - {mean}) / torch.sqrt({var} + 1e-5) * {weight}")


@on("tokens", variants=3)
def rms_norm(net: Writer, x: Value) -> Value:
    how = net.choose("module", "hand", "function")
    if how == "module":
        return net.tokens(f"{net.layer(f'nn.RMSNorm({x.width})', 'norm')}({x})")
    if how == "function":
        return net.tokens(f"F.rms_norm({x}, {x}.shape[-1:])")
    weight = net.layer(f"nn.Parameter(torch.ones({x.width}))", "weight")
    return net.tokens(f"{x} * torch.rsqrt({x}.pow(2).mean(-1, keepdim=True) + 1e-6) * {weight}")


@on("image", variants=4)
def local_response_norm(net: Writer, x: Value) -> Value:
    """Neighboring channels divide each other."""
    how = net.choose("module", "module", "function", "cross map")
    if how == "function":
        return net.image(f"F.local_response_norm({x}, 2)")
    x = net.in_dims(x, 2) if how == "cross map" else x
    name = "CrossMapLRN2d" if how == "cross map" else "LocalResponseNorm"
    return net.image(f"{net.layer(f'nn.{name}({net.choose(3, 2)})', 'norm')}({x})")


@on("image", variants=4)
def unit_length(net: Writer, x: Value) -> Value:
    """Divided by the length along channels or positions."""
    how = net.choose("channels", "positions", "norm", "cosine")
    if how == "norm":
        return net.image(f"{x} / ({x}.norm(dim=1, keepdim=True) + 1)")
    if how == "cosine":
        prototype = net.layer(f"nn.Parameter(torch.randn(1, {x.width}, {', '.join('1' * _dims(x))}))", "prototype")
        similarity = net.layer("nn.CosineSimilarity(dim=1)") if net.chance() else "F.cosine_similarity"
        return net.image(f"{x} * {similarity}({x}, {prototype}).unsqueeze(1)")
    return net.image(f"F.normalize({x}, dim={1 if how == 'channels' else -1})")


@on("image")
def global_response_norm(net: Writer, x: Value) -> Value:
    """ConvNeXt V2: the length of every channel, relative to the mean of all."""
    ones = ", ".join("1" * _dims(x))
    gamma, beta = (net.layer(f"nn.Parameter(torch.randn(1, {x.width}, {ones}))", "weight") for _ in range(2))
    length = net.let(f"{x}.norm(2, {tuple(range(2, len(x.shape)))}, keepdim=True)")
    relative = net.let(f"{length} / ({length}.mean(1, keepdim=True) + 1e-6)")
    return net.image(f"{gamma} * ({x} * {relative}) + {beta} + {x}")


@on("image", weight=2, variants=5)
def scale_and_shift(net: Writer, x: Value) -> Value:
    """Parameters for every channel, or one for all."""
    ones = ", ".join("1" * _dims(x))
    shape = net.choose(f"{x.width}, {ones}", f"1, {x.width}, {ones}", "1", "()")
    weight = net.layer(f"nn.Parameter(torch.ones({shape}))", "weight")
    how = net.choose("*", "+", "-", "/", "addcmul")
    if how == "addcmul":
        shift = net.layer(f"nn.Parameter(torch.zeros({shape}))", "shift")
        return net.image(f"torch.addcmul({shift}, {x}, {weight})")
    return net.image(f"{x} {how} {weight}")


@on("image")
def actnorm(net: Writer, x: Value) -> Value:
    """Vectors that are stored without dimensions of positions."""
    index = f"None, :, {', '.join(['None'] * _dims(x))}"
    log_scale, shift = (net.parameter(x.width) for _ in range(2))
    return net.image(f"{x} * {log_scale}[{index}].exp() + {shift}.view(1, -1, {', '.join('1' * _dims(x))})")


@on("image", "vector", variants=3)
def adaptive_norm(net: Writer, x: Value, y: Value) -> Value:
    """Scale and shift are computed from a vector (FiLM, AdaIN, AdaGN)."""
    linear = net.layer(f"nn.Linear({y.width}, {2 * x.width})")
    index = f":, :, {', '.join(['None'] * _dims(x))}"
    scale, shift = net.name("t"), net.name("t")
    net.run(f"{scale}, {shift} = {linear}({y}).chunk(2, dim=1)")
    norm = net.choose(str(x), f"F.instance_norm({x})", f"F.group_norm({x}, {net.choose(1, *divisors(x.width))})")
    return net.image(f"{norm} * (1 + {scale}[{index}]) + {shift}[{index}]")
