"""Rules for products of activations, above all attention: queries with keys, and attention maps with values.

A product sums over one dimension. Channels along it are removed from both sides together, and no result has them: where
they are removed, both sides have to be zero in the masked network, as a layer's weight is. Channels along all other
dimensions are channels of the result.
"""

from torch import Tensor, nn

from ranp.tracing._labels import Labels, along
from ranp.tracing._propagate import Tracer


def contract(tracer: Tracer, a: Tensor, b: Tensor, out: Tensor, *, inner: int, bias: Tensor | None = None) -> None:
    """A product of two matrices, or batches of matrices, of activations.

    Args:
        tracer: The tracer.
        a: The left side, of shape (..., rows, inner).
        b: The right side.
        out: The product, of shape (..., rows, columns).
        inner: The dimension of `b` over which the product sums.
        bias: What is added to the product.
    """
    left, right = tracer.vector(a, -1), tracer.vector(b, inner)
    tracer.meet(left, right)
    rows = [labels for labels in tracer.labels(a) if not along(labels, -1)]
    columns = [labels.swapaxes(inner, -2) for labels in tracer.labels(b) if not along(labels, inner)]
    shape = list(b.shape)
    shape[inner], shape[-2] = shape[-2], 1
    operands, shapes, labels = [a, b], [[*a.shape[:-1], 1], shape], [rows, columns]
    if bias is not None:
        operands, shapes, labels = [*operands, bias], [*shapes, [*bias.shape]], [*labels, [*tracer.labels(bias)]]
    tracer.set(out, tracer.merge(operands, shapes, out.ndim, labels))
    tracer.multiply_adds(out.numel() * a.shape[-1], [left, *tracer.labels(out)])


def multihead(tracer: Tracer, module: nn.MultiheadAttention, weight: Tensor, made: Labels | None) -> None:
    """An input projection of torch's multi-head attention, whose forward makes as many features as its queries have."""
    stored = module.in_proj_weight if module.q_proj_weight is None else module.q_proj_weight
    width = tracer.vector(stored, 1)
    if made is None or width is None or tracer.base_name(weight) == tracer.base_name(module.out_proj.weight):
        return
    rows = made.reshape(-1, width.size)
    tracer.tie(rows, width.reshape(1, -1))
    for name in ("embed_dim", *(("kdim", "vdim") if module.q_proj_weight is None else ())):
        tracer.attribute(name, width)
    tracer.attribute("head_dim", rows[0, : module.head_dim])
