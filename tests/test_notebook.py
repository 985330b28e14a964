"""What a notebook and rich show of a result: well-formed, escaped, and the numbers of the report."""

from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import ranp
from ranp.report import LayerRow
from ranp.tables import Table

HOSTILE = '<script>alert("1")</script>&'


class Reader(HTMLParser):
    """Rows of texts, by table; fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert tag in {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "p"}, tag
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        else:
            self.texts.append(data)


@pytest.fixture(scope="module")
def result() -> ranp.PruneResult:
    model = nn.Sequential(nn.Conv3d(1, 8, 3), nn.ReLU(), nn.Conv3d(8, 2, 3))
    x, y = torch.randn(2, 1, 8, 8, 8), torch.randn(2, 2, 4, 4, 4)
    return ranp.prune(model, x, [(x, y)], nn.functional.mse_loss, budget=ranp.Budget(macs=0.5))


def test_numbers_in_html_are_those_of_the_plan(result: ranp.PruneResult) -> None:
    plan = result.plan
    for shown in (result, result.report, plan):
        costs, widths = Reader(shown._repr_html_()).tables
        assert costs[0] == ["", "full", "pruned", "kept"]
        assert costs[-1] == ["neurons", "10", "6", "60.00%"]
        assert costs[1][-1] == f"{plan.cost.macs / plan.full_cost.macs:.2%}"
        assert [row[:3] for row in widths] == [["layer", "neurons", "kept"], ["0", "8", "4"], ["2", "2", "2"]]
    assert "Verification: exact." in Reader(result._repr_html_()).texts
    assert "Plan by ranp-f, budget macs=0.5, seed 0" in Reader(plan._repr_html_()).texts


def test_names_and_warnings_are_escaped(result: ranp.PruneResult) -> None:
    report = replace(result.report, layers=(LayerRow(HOSTILE, 2, 1, 0.5),), warnings=(HOSTILE,))
    plan = replace(result.plan, criterion=HOSTILE, widths={HOSTILE: 1}, full_widths={HOSTILE: 2})
    for shown in (report, plan):
        html = shown._repr_html_()
        assert "<script" not in html
        read = Reader(html)
        assert read.tables[1][1][:3] == [HOSTILE, "2", "1"]
        assert any(HOSTILE in text for text in read.texts)
    assert Reader(Table(HOSTILE, [HOSTILE], []).html()).tables == [[[HOSTILE]]]


def test_rich_prints_a_result_as_its_report(result: ranp.PruneResult) -> None:
    report = replace(result.report, warnings=("[bold]kept[/bold] as it is",))
    for shown in (report, replace(result, report=report)):
        console = Console(width=100, color_system=None)
        with console.capture() as captured:
            console.print(shown)
        assert captured.get() == str(report)
    assert "warning: [bold]kept[/bold] as it is" in str(report)


def test_a_table_is_the_same_in_every_form() -> None:
    table = Table("Sizes", ("a|b", "[bold]n[/bold]"), [("x|y", "1"), ("two\nlines", "[2]")])
    assert table.markdown().splitlines() == [
        "| a\\|b | [bold]n[/bold] |",
        "| --- | ---: |",
        "| x\\|y | 1 |",
        "| two lines | [2] |",
    ]
    assert Reader(table.html()).tables == [[["a|b", "[bold]n[/bold]"], ["x|y", "1"], ["two\nlines", "[2]"]]]
    assert Reader(table.html()).texts == ["Sizes"]
    assert table.html().count("text-align:left") == 1 + 3
    console = Console(width=60, color_system=None)
    with console.capture() as captured:
        console.print(table)
    shown = captured.get()
    assert all(text in shown for text in ("Sizes", "a|b", "[bold]n[/bold]", "x|y", "[2]"))
    assert "│ x|y   │              1 │" in shown


def test_columns_of_text_are_aligned_to_the_left() -> None:
    table = Table("", ("a", "b", "c"), [("1", "2", "3")], text_columns=2)
    assert table.markdown().splitlines()[1] == "| --- | --- | ---: |"
    assert "<caption" not in table.html()
    assert table.html().endswith('<td style="text-align:left">2</td><td>3</td></tr></tbody></table>')
    assert [column.justify for column in table.rich().columns] == ["left", "left", "right"]
