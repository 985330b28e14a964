"""A pruned model in shape alone: what tracing tries its labels out on."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from ranp.graph import ChannelGraph, Ints
from ranp.plan import SizeChange
from ranp.surgery._apply import set_size


@contextmanager
def resized(
    modules: Mapping[str, nn.Module], tensors: Mapping[str, Tensor], graph: ChannelGraph, widths: Ints
) -> Iterator[None]:
    """Give a model without values, for a while, the shapes that it has at other widths.

    No copy is made, and no channel is chosen: a model without values only has shapes.

    Args:
        modules: All modules of a model of meta or fake tensors.
        tensors: All its parameters and buffers.
        graph: Its channels.
        widths: Channels to keep of each group, of shape (groups,).
    """
    shapes: dict[str, list[int]] = {}
    for group, width in zip(graph.groups, widths.tolist(), strict=True):
        for member in group.members if width < group.width else ():
            shape = shapes.setdefault(member.parameter, list(graph.shapes[member.parameter]))
            shape[member.dim] -= (group.width - width) * member.positions.shape[1]
    whole = {name: tensors[name].data for name in shapes}
    held = {module: dict(vars(module)) for module in {modules[entry.module] for entry in graph.attributes}}
    sizes = graph.costs.axes_at(widths)
    try:
        for name, shape in shapes.items():
            tensors[name].data = whole[name].new_empty(shape)
        for entry in graph.attributes:
            set_size(modules, SizeChange(entry.module, entry.name, int(sizes[entry.axis])))
        yield
    finally:
        for name, data in whole.items():
            tensors[name].data = data
        for module, attributes in held.items():
            vars(module).update(attributes)
