"""The report in a real browser: by keyboard, in both themes, on a phone, and with hostile names."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ranp
from helpers.report_pages import model
from ranp.explorer import read_survey, survey, write_report, write_survey
from ranp.storage import load_plan

Pruned = tuple[Path, ranp.PruneResult]
Open = Callable[..., Any]
RESOURCES = ("macs", "params", "activation_bytes", "neurons")


@pytest.fixture
def open_page(chromium: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens the report of a folder; in the end it must not have logged an error or sent a network request."""
    contexts, problems = [], []

    def open_(folder: Path, **settings: Any) -> Any:
        path = write_report(folder, tmp_path / "report.html")
        contexts.append(chromium.new_context(**settings))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: problems.append(request.url) if not _local(request.url) else None)
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert problems == []


def _local(url: str) -> bool:
    return url.startswith(("file:", "blob:", "data:"))


def costs(page: Any) -> dict[str, int]:
    return {name: int(page.get_attribute(f"#at-{name}", "data-value")) for name in RESOURCES}


def widths_in_table(page: Any) -> dict[str, int]:
    rows = page.eval_on_selector_all(
        "#widths-table tbody tr", "rows => rows.map(row => [row.cells[0].textContent, row.cells[3].textContent])"
    )
    return {name: int(text) for name, text in rows}


def test_the_slider_follows_the_keyboard_and_the_costs_follow_the_slider(pruned: Pruned, open_page: Open) -> None:
    folder, result = pruned
    steps, chosen = result.survey()["steps"], result.survey()["chosen"]
    page = open_page(folder)
    assert costs(page) == {name: getattr(result.plan.cost, name) for name in RESOURCES}
    assert widths_in_table(page) == result.plan.widths
    assert "the chosen plan" in page.inner_text("#where")
    page.focus("#step")
    for key, step in (("ArrowRight", chosen + 1), ("ArrowRight", chosen + 2), ("Home", 0), ("End", len(steps) - 1)):
        page.keyboard.press(key)
        given = {name: value for name, value in steps[step]["budget"].items() if value is not None}
        plan = ranp.allocate(result.graph, result.scores, ranp.Budget(**given))
        assert costs(page) == {name: getattr(plan.cost, name) for name in RESOURCES}
        assert widths_in_table(page) == plan.widths
        assert page.eval_on_selector_all("#network-plot .count", "all => all.map(each => +each.textContent)") == list(
            plan.widths.values()
        )
        assert "the chosen plan" not in page.inner_text("#where")
        assert page.get_attribute("#step", "aria-valuetext") in page.inner_text("#where")
    page.locator("#announcement", has_text="100% of the multiply-adds: ").wait_for(state="attached")
    page.click("#back")
    assert costs(page) == {name: getattr(result.plan.cost, name) for name in RESOURCES}


def test_time_and_memory_of_training_follow_the_slider(
    timed: tuple[Path, Any, Any], pruned: Pruned, open_page: Open
) -> None:
    folder, graph, chosen = timed
    steps, full = read_survey(folder / "survey.json")["steps"], graph.cost()
    page = open_page(folder, accept_downloads=True)
    assert page.eval_on_selector_all("#explorer .tile .name", "all => all.map(each => each.textContent)")[:3] == [
        "Training step",
        "Training memory",
        "Multiply-adds",
    ]
    table = page.eval_on_selector_all(
        "#explorer table",
        "all => [...all[1].rows].slice(1).map(row => [...row.cells].slice(1).map(e => e.textContent))",
    )
    page.focus("#step")
    page.keyboard.press("Home")
    for number, step in enumerate(steps):
        plan = ranp.allocate(graph, pruned[1].scores, ranp.Budget(**_given(step["budget"])))
        cost = graph.cost([len(kept) for kept in plan.keep.values()])
        for name, value in cost.known().items():
            assert float(page.get_attribute(f"#at-{name}", "data-value")) == value
        # Python has written the table.
        shown = page.eval_on_selector_all("#explorer .tile .big", "all => all.map(each => each.textContent)")
        assert shown == table[number]
        parts = re.findall(
            r"([0-9.]+)% of the (training step|training memory|multiply-adds)", page.inner_text("#where")
        )
        assert [name for _, name in parts] == ["training step", "training memory", "multiply-adds"]
        shares = [100 * getattr(cost, name) / getattr(full, name) for name in ("step_seconds", "train_bytes", "macs")]
        assert [float(text) for text, _ in parts] == pytest.approx(shares, rel=0.05)
        assert ("the chosen plan" in page.inner_text("#where")) == (plan == chosen)
        if number in (0, len(steps) - 1):
            with page.expect_download() as download:
                page.click("#download")
            assert json.loads(Path(download.value.path()).read_text()) == json.loads(plan.to_json())
            page.focus("#step")
        page.keyboard.press("ArrowRight")
    drawn = page.evaluate("document.getElementById('costs-plot').data.map(trace => [trace.name, trace.y])")
    for (name, shares), field in zip(drawn[:2], ("step_seconds", "train_bytes"), strict=True):
        assert name == {"step_seconds": "training step", "train_bytes": "training memory"}[field]
        assert shares == pytest.approx([100 * step["cost"][field] / getattr(full, field) for step in steps])


def _given(budget: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in budget.items() if value is not None}


def test_plots_show_the_plan_at_the_slider(pruned: Pruned, open_page: Open) -> None:
    folder, result = pruned
    page = open_page(folder)
    page.focus("#step")
    page.keyboard.press("Home")
    narrowest = result.survey()["steps"][0]
    plan = ranp.allocate(result.graph, result.scores, ranp.Budget(**narrowest["budget"]))
    drawn = page.evaluate("document.getElementById('widths-plot').data[1].y")
    assert drawn == pytest.approx([100 * plan.widths[name] / full for name, full in plan.full_widths.items()])
    memory = page.evaluate("document.getElementById('memory-plot').data.map(trace => trace.y.reduce((a, b) => a + b))")
    expected = [plan.full_cost.activation_bytes, plan.cost.activation_bytes, result.plan.cost.activation_bytes]
    assert memory == pytest.approx([value / 2**20 for value in expected])
    boxes = page.evaluate("document.getElementById('importance-plot').data.map(trace => [trace.name, trace.median])")
    stages = result.survey()["stages"]
    assert [name for name, _ in boxes] == [stage["name"] for stage in stages]
    for (_, medians), stage in zip(boxes, stages, strict=True):
        assert medians == pytest.approx([stage["layers"][name]["quartiles"][2] for name in plan.widths])


def test_the_plan_at_the_slider_can_be_downloaded_and_applied(pruned: Pruned, open_page: Open, tmp_path: Path) -> None:
    folder, result = pruned
    page = open_page(folder, accept_downloads=True)
    for key, step in ((None, result.survey()["chosen"]), ("Home", 0)):
        if key:
            page.focus("#step")
            page.keyboard.press(key)
        with page.expect_download() as download:
            page.click("#download")
        path = tmp_path / "plan.json"
        download.value.save_as(path)
        assert download.value.suggested_filename == "plan.json"
        given = {name: value for name, value in result.survey()["steps"][step]["budget"].items() if value is not None}
        expected = ranp.allocate(result.graph, result.scores, ranp.Budget(**given))
        assert json.loads(path.read_text()) == json.loads(expected.to_json())
        plan = ranp.Plan.from_json(path.read_text())
        assert (plan == result.plan) == (key is None)
        assert load_plan(folder) == result.plan
        small = ranp.apply(model(), plan)
        assert sum(parameter.numel() for parameter in small.parameters()) == costs(page)["params"]
        assert small(torch.zeros(1, 1, 16, 16, 16)).shape == (1, 3, 16, 16, 16)


def test_measured_time_follows_the_slider(pruned: Pruned, open_page: Open, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pruned[0], tmp_path / "net"))
    found = pruned[1].survey()
    for step, seconds in ((0, 0.001), (2, 0.003), (-1, 0.01)):
        found["steps"][step]["forward_seconds"] = seconds
    write_survey(folder, found)
    page = open_page(folder)
    page.focus("#step")
    for key, big, small in (
        ("Home", "1.0 ms", "10% of the full network's time"),
        ("ArrowRight", "1.0 to 3.0 ms", "measured at the nearest two steps"),
        ("ArrowRight", "3.0 ms", "30% of the full network's time"),
        ("ArrowRight", "3.0 to 10.0 ms", "measured at the nearest two steps"),
    ):
        page.keyboard.press(key)
        assert page.inner_text("#at-seconds .big") == big
        assert small in page.inner_text("#at-seconds .small")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_and_switching_between_them(theme: str, pruned: Pruned, open_page: Open) -> None:
    page = open_page(pruned[0], color_scheme=theme)
    other = {"light": "dark", "dark": "light"}[theme]
    for shown in (theme, other):
        background, text = (
            page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color")
        )
        assert (brightness(background) > brightness(text)) == (shown == "light")
        ticks = page.evaluate("getComputedStyle(document.querySelector('#widths-plot .xtick text')).fill")
        assert (brightness(ticks) < 128) == (shown == "light")
        page.click("#theme")


def brightness(color: str) -> float:
    return sum(float(part) for part in color.removeprefix("rgb(").removesuffix(")").split(",")) / 3


@pytest.mark.parametrize("chosen", ["narrowest", "pruned", "full"])
def test_on_a_phone_nothing_is_too_wide(chosen: str, pruned: Pruned, open_page: Open, tmp_path: Path) -> None:
    folder, result = pruned
    if chosen != "pruned":
        budget = ranp.Budget(macs=1.0 if chosen == "full" else result.survey()["steps"][0]["budget"]["macs"])
        plan = ranp.allocate(result.graph, result.scores, budget)
        folder = ranp.save(ranp.apply(model(), plan), plan, tmp_path / "net")
        write_survey(folder, survey(result.graph, plan, result.scores))
    page = open_page(folder, viewport={"width": 390, "height": 844}, has_touch=True)
    for details in page.query_selector_all("summary"):
        details.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    sizes = page.eval_on_selector_all(".plot-area", "all => all.map(each => each.getBoundingClientRect().right)")
    assert len(sizes) >= 4
    assert max(sizes) <= 390


def test_structure_for_screen_readers(pruned: Pruned, open_page: Open) -> None:
    page = open_page(pruned[0])
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.eval_on_selector_all("main, header, nav, footer", "all => all.length") == 4
    levels = page.eval_on_selector_all("h1, h2", "all => all.map(each => each.tagName)")
    assert levels == ["H1", *["H2"] * (len(levels) - 1)]
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('section, [role=img], [role=region], input, select, button')].filter(
            each => !(each.getAttribute('aria-label') || each.labels?.length || each.textContent.trim()))
            .map(each => each.outerHTML.slice(0, 80))"""
    )
    assert unnamed == []
    assert page.evaluate("[...document.querySelectorAll('figure')].every(each => each.querySelector('figcaption'))")
    tables = page.eval_on_selector_all(
        "table", "all => all.map(each => [each.caption.textContent, each.tBodies[0].rows.length])"
    )
    assert all(caption and rows for caption, rows in tables)
    ids = page.eval_on_selector_all("[id]", "all => all.map(each => each.id)")
    assert len(ids) == len(set(ids))
    links = page.eval_on_selector_all("nav a", "all => all.map(each => each.hash.slice(1))")
    assert set(links) <= set(ids)


HOSTILE = [
    "</script><script>alert('script')</script>",
    "<img src=x onerror=alert('image')>",
    "\"' onmouseover=alert(1) ${1+1} $title",
    "__proto__",
    "<i>x</i>",
]


def test_names_from_a_model_are_plain_text(open_page: Open, tmp_path: Path) -> None:
    full = nn.Sequential()
    for number, name in enumerate(HOSTILE):
        full.add_module(name, nn.Conv2d(1 if number == 0 else 4, 4, 1))
    x = torch.zeros(1, 1, 4, 4)
    graph = ranp.trace(full, x)
    scores = ranp.score(full, graph, [(torch.randn(1, 1, 4, 4), torch.randn(1, 4, 4, 4))], nn.functional.mse_loss)
    plan = ranp.allocate(graph, scores, ranp.Budget(macs=0.6))
    folder = ranp.save(ranp.apply(full, plan), plan, tmp_path / "<b>bold & brash")
    write_survey(folder, survey(graph, plan, scores, warnings=HOSTILE))
    page = open_page(folder, accept_downloads=True)
    assert page.title() == "<b>bold & brash · ranp"
    assert page.inner_text("h1") == "<b>bold & brash"
    assert list(widths_in_table(page)) == HOSTILE
    shown = page.inner_text("#summary")
    assert all(name in shown for name in HOSTILE)
    assert page.eval_on_selector_all("img, b, h1 *, td *, th *", "all => all.length") == 0
    ticks = page.eval_on_selector_all("#widths-plot .xtick text", "all => all.map(each => each.textContent)")
    assert ticks[-2:] == HOSTILE[-2:], "Plotly interprets some tags as formatting"
    page.hover("#widths-plot")
    with page.expect_download() as download:
        page.click("#download")
    assert ranp.Plan.from_json(Path(download.value.path()).read_text()) == plan
