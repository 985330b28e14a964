"""What every module of a network costs."""

from collections import Counter
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from torch import nn

from ranp.arguments import checked
from ranp.costs import Cost
from ranp.module_utils import Inputs
from ranp.tracing import operators

# Label, attribute, unit, digits.
_COLUMNS = (("parameters", "params", 1, 0), ("MACs (M)", "macs", 1e6, 2), ("MiB", "activation_bytes", 2**20, 3))


@dataclass(frozen=True)
class ModuleCost:
    """What one module costs by itself, without the modules in it; see `Cost`.

    Attributes:
        name: Its path; empty for the model itself.
        kind: Its class.
        params: Elements of its own parameters; one that is shared counts where it is met first.
        macs: Multiply-adds of the operators that run in its own forward.
        activation_bytes: Bytes that these operators allocate.
    """

    name: str
    kind: str
    params: int
    macs: int
    activation_bytes: int


@dataclass(frozen=True)
class Profile:
    """What a network costs; rich prints it as a table.

    Attributes:
        modules: All modules that cost anything, in the order in which they first run; those that never run last.
        total: Of the whole network, which is the sum over its modules.
    """

    modules: tuple[ModuleCost, ...]
    total: Cost

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """A row for every module; on terminals, bars are relative to the largest module of their column."""
        wide = options.max_width >= 110  # Narrower terminals get shorter bars and no column of kinds.
        bar = (8 if wide else 4) if console.is_terminal else 0
        table = Table(title="Cost of one forward pass, by module", box=SIMPLE_HEAD, show_footer=True, padding=0)
        table.add_column("module", footer="total", overflow="fold")
        if wide:
            table.add_column("kind")
        shares = []
        for label, name, unit, digits in _COLUMNS:
            whole = getattr(self.total, name)
            table.add_column(label, footer=f"{whole / unit:,.{digits}f}", justify="right", no_wrap=True)
            table.add_column("share", no_wrap=True)
            shares.append([getattr(module, name) / max(whole, 1) for module in self.modules])
        for row, module in enumerate(self.modules):
            cells = [module.name or "(model)", *([module.kind] if wide else [])]
            for (_, name, unit, digits), column in zip(_COLUMNS, shares, strict=True):
                length = round(bar * column[row] / max(*column, 1e-9))
                cells += [f"{getattr(module, name) / unit:,.{digits}f}", f"{column[row]:4.0%} {'█' * length}".rstrip()]
            table.add_row(*cells)
        yield table


@checked
def profile(model: nn.Module, example_inputs: Inputs) -> Profile:
    """Count what every module of a network costs in one forward pass, without computing it.

    Args:
        model: Any network; it is left as it is.
        example_inputs: A tensor, a tuple (positional) or a dict (keyword arguments).

    Raises:
        TraceError: The forward cannot be run on the example inputs.

    Example:
        >>> import torch
        >>> found = profile(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)), torch.zeros(1, 3, 6, 6))
        >>> [(module.name, module.params, module.macs, module.activation_bytes) for module in found.modules]
        [('0', 224, 3456, 512), ('1', 18, 256, 128)]
    """
    found, total = operators(model, example_inputs)
    params, macs, activation_bytes = Counter[str](), Counter[str](), Counter[str]()
    for name, parameter in model.named_parameters():
        params[name.rpartition(".")[0]] += parameter.numel()
    for operator in found:
        macs[operator.path] += operator.macs
        activation_bytes[operator.path] += operator.activation_bytes
    modules = dict(model.named_modules())
    rows = tuple(
        ModuleCost(name, type(modules[name]).__name__, params[name], macs[name], activation_bytes[name])
        for name in dict.fromkeys((*macs, *activation_bytes, *params))
        if params[name] or macs[name] or activation_bytes[name]
    )
    return Profile(rows, total)
