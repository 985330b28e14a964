"""From the lines of all steps to the code of a network, whose first steps may be a module of their own."""

import re
from textwrap import indent

from helpers.random_networks._writer import HEADER, Writer

_STEM = {"plain": ("Stem()", "self.stem"), "list": ("nn.ModuleList([Stem()])", "self.stem[0]")}


def assemble(writer: Writer) -> str:
    """Code with a class `Net`, and functions `build` and `inputs`."""
    last = min(writer.options["stem"], len(writer.steps) - 2)
    taken, given = ", ".join(writer.inputs), _handed_on(writer, last)
    parts = [HEADER.strip(), *(text.strip() for text in writer.definitions)]
    init, forward = [text for _, text in writer.init], [text for _, text in writer.forward]
    if last > 0 and given:
        made, stem = _STEM.get(writer.options["call"], _STEM["plain"])
        inside = [text for number, text in writer.init if number <= last]
        body = [text for number, text in writer.forward if number <= last]
        parts.append(_module("Stem", taken, inside, [*body, f"return {', '.join(given)}"]))
        owned = _attributes(inside)
        call = f"{stem}({taken})"
        if writer.options["call"] == "checkpoint":
            call = f"checkpoint(self.stem, {taken}, use_reentrant=False)"
        init = [f"self.stem = {made}", *(text for number, text in writer.init if number > last)]
        later = [text for number, text in writer.forward if number > last]
        forward = [f"{', '.join(given)} = {call}", *(_moved(text, owned, stem) for text in later)]
        init = [init[0], *(_moved(text, owned, stem) for text in init[1:])]
    parts.append(_module("Net", taken, init, [*forward, *writer.returns]))
    parts.append(_functions(writer))
    return "\n\n\n".join(parts) + "\n"


def _handed_on(writer: Writer, last: int) -> list[str]:
    """Values of the first steps that later ones use."""
    later = " ".join(text for number, text in writer.forward if number > last)
    used = set(re.findall(r"\w+", later))
    made = [value.name for values in writer.values[: last + 1] for value in values]
    return [name for name in made if name in used and name not in writer.inputs]


def _attributes(lines: list[str]) -> set[str]:
    found = re.findall(r"^self\.(\w+) =|^self\.register_buffer\('(\w+)'", "\n".join(lines), re.MULTILINE)
    return {first or second for first, second in found}


def _moved(line: str, owned: set[str], stem: str) -> str:
    return re.sub(r"self\.(\w+)", lambda found: f"{stem}.{found[1]}" if found[1] in owned else found[0], line)


def _module(name: str, taken: str, init: list[str], forward: list[str]) -> str:
    setup = indent("\n".join(["super().__init__()", *init]), " " * 8)
    body = indent("\n".join(forward), " " * 8)
    return f"class {name}(nn.Module):\n    def __init__(self):\n{setup}\n\n    def forward(self, {taken}):\n{body}"


def _functions(writer: Writer) -> str:
    built = "    return Net()"
    if writer.options["layout"]:
        last = "channels_last" if writer.options["dims"] == 2 else "channels_last_3d"
        built = (
            f"    model = Net()\n    for layer in model.modules():\n"
            f"        if isinstance(layer, nn.Conv{writer.options['dims']}d):\n"
            f"            layer.to(memory_format=torch.{last})\n    return model"
        )
    items = [f"{name}={code}" for name, code in writer.inputs.items()]
    codes = [*writer.inputs.values()]
    together = f"({', '.join(codes)},)" if writer.options["form"] == "tuple" or len(codes) > 1 else codes[0]
    together = f"dict({', '.join(items)})" if writer.options["form"] == "dict" else together
    return (
        f"def build():\n{built}\n\n\n"
        f"def inputs():\n    generator = torch.Generator().manual_seed(1)\n    return {together}"
    )
