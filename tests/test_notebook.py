"""What a notebook and rich show of a result: well-formed, escaped, and the figures of the report."""

from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import ranp
from ranp.report import LayerRow
from ranp.tables import html_table

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
        assert tag in {"table", "caption", "thead", "tbody", "tr", "th", "td", "p"}, tag
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


def test_figures_in_html_are_those_of_the_plan(result: ranp.PruneResult) -> None:
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
    assert Reader(html_table(HOSTILE, [HOSTILE], [])).tables == [[[HOSTILE]]]


def test_rich_prints_a_result_as_its_report(result: ranp.PruneResult) -> None:
    report = replace(result.report, warnings=("[bold]kept[/bold] as it is",))
    for shown in (report, replace(result, report=report)):
        console = Console(width=100, color_system=None)
        with console.capture() as captured:
            console.print(shown)
        assert captured.get() == str(report)
    assert "warning: [bold]kept[/bold] as it is" in str(report)
