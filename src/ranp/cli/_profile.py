"""`ranp profile`."""

from typing import TYPE_CHECKING

from ranp.cli._options import Arguments, AsJson, Model, Shapes
from ranp.cli._output import print_json, stdout, working

if TYPE_CHECKING:
    from rich.table import Table

    from ranp.profile import Profile

# Label, attribute, unit, digits.
_COLUMNS = (("parameters", "params", 1, 0), ("MACs (M)", "macs", 1e6, 2), ("MiB", "activation_bytes", 2**20, 3))
# Narrower terminals get shorter bars and no kinds.
_WIDE = 110


def profile(model: Model, arguments: Arguments = None, shapes: Shapes = None, as_json: AsJson = False) -> None:
    """Tell what every module of a network costs: parameters, multiply-adds (MACs), activation memory.

    Costs are those of one forward pass in eval mode, which is not computed.
    """
    from dataclasses import asdict

    from ranp.cli._figures import say
    from ranp.cli._parse import parse_arguments, parse_inputs
    from ranp.import_by_name import build_network
    from ranp.profile import profile

    inputs = parse_inputs(model, shapes)
    with working():
        found = profile(build_network(model, parse_arguments(arguments), seed=0), inputs)
    if as_json:
        given = {"model": model, "input": [list(tensor.shape) for tensor in inputs]}
        print_json("profile", {**given, **asdict(found)})
    else:
        console = stdout()
        wide = console.width >= _WIDE
        console.print(_table(found, kinds=wide, bar=(8 if wide else 4) if console.is_terminal else 0))
        say(console, "MiB: activation memory, what the operators of the forward pass allocate.")


def _table(found: "Profile", *, kinds: bool, bar: int) -> "Table":
    """A row for every module; the longest bar of a column, of so many characters, marks its largest module."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="Cost of one forward pass, by module", box=SIMPLE_HEAD, show_footer=True, padding=0)
    table.add_column("module", footer="total", overflow="fold")
    if kinds:
        table.add_column("kind")
    shares = []
    for label, name, unit, digits in _COLUMNS:
        whole = getattr(found.total, name)
        table.add_column(label, footer=f"{whole / unit:,.{digits}f}", justify="right", no_wrap=True)
        table.add_column("share", no_wrap=True)
        shares.append([getattr(module, name) / max(whole, 1) for module in found.modules])
    for row, module in enumerate(found.modules):
        cells = [module.name or "(model)", *([module.kind] if kinds else [])]
        for (_, name, unit, digits), column in zip(_COLUMNS, shares, strict=True):
            length = round(bar * column[row] / max(*column, 1e-9))
            cells += [f"{getattr(module, name) / unit:,.{digits}f}", f"{column[row]:4.0%} {'█' * length}".rstrip()]
        table.add_row(*cells)
    return table
