"""The command lines in the documentation are ones that ranp understands, and make and recipes have what they name."""

import re
from collections.abc import Iterator

import pytest
from typer.main import get_command

from helpers.command_lines import parse
from helpers.documents import PAGES, ROOT, blocks
from ranp.cli import app


def lines() -> Iterator[tuple[str, str]]:
    """Where each command line stands, and what it says."""
    for page in PAGES:
        for block in blocks(page, "sh"):
            # A line that ends in a backslash goes on in the next.
            for number, line in enumerate(block.text.replace("\\\n", " ").splitlines()):
                yield f"{page}:{block.line + number}", re.split(r" [|>] ", line)[0]


ALL = dict(lines())
# Also behind variables (`CUDA_VISIBLE_DEVICES=0 ranp ...`) and behind torchrun's own options.
OF_RANP = re.compile(r"^(?:\w+=\S+ +)*(?:torchrun +(?:-\S+ +)*-m +)?ranp +(.*)$")
RANP = {place: found[1] for place, line in ALL.items() if (found := OF_RANP.match(line))}


@pytest.mark.parametrize("place", RANP)
def test_the_command_line_is_understood(place: str) -> None:
    parse(RANP[place])


@pytest.mark.parametrize("place", [place for place, line in RANP.items() if "recipes/" in line])
def test_its_recipe_is_there(place: str) -> None:
    for recipe in re.findall(r"recipes/[\w-]+\.yaml", RANP[place]):
        assert (ROOT / recipe).is_file()


def test_targets_of_make_are_there() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {found[1] for line in ALL.values() if (found := re.match(r"make (\w+)", line))}
    assert named
    assert named <= targets


def test_placeholders_are_not_taken_for_command_lines() -> None:
    assert not OF_RANP.match("pip install ranp")
    assert OF_RANP.match("torchrun --nproc-per-node=2 -m ranp train x.yaml").group(1) == "train x.yaml"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", sorted(get_command(app).commands))
def test_the_page_on_the_command_line_lists_the_command(name: str) -> None:
    table = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8").partition("##")[0]
    assert f"`ranp {name}" in table
