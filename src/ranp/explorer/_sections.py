"""The parts of a page, each from what is known; pictures are drawn by the scripts from the same data."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ranp.experiments.runs._compare import figure_text, rows_of
from ranp.explorer._content import Content, Run
from ranp.explorer._glance import glance
from ranp.explorer._html import Section, figure, folded, paragraph, table
from ranp.explorer._units import RESOURCES, amount, share
from ranp.plan import Plan


def sections(content: Content) -> list[Section]:
    """All parts that the content allows, in the order in which they are read."""
    plan, survey = content.plan, content.survey
    found = [Section("glance", "At a glance", glance(content))]
    if plan is not None and survey is not None:
        found.append(Section("explorer", "Budget explorer", _explorer(plan, survey)))
        found.append(Section("network", "The network", _network()))
        found.append(Section("memory", "Where memory is spent", _memory()))
        found.append(Section("importance", "Importance by layer", _importance(survey)))
    elif plan is not None:
        found.append(Section("widths", "Neurons by layer", _widths(plan)))
    if trained := _training(content):
        found.append(Section("training", "Training", trained))
    if survey is not None:
        found.append(Section("notes", "Warnings, and what stays whole", _notes(survey)))
    return found


# -- the plan ----------------------------------------------------------------------------------------------------


def _explorer(plan: Plan, survey: Mapping[str, Any]) -> str:
    last = len(survey["steps"]) - 1
    cards = "".join(
        f'<li class="tile" id="at-{name}"><span class="name">{escape(label)}</span> <span class="big"></span> '
        '<span class="bar" aria-hidden="true"><span></span></span> <span class="small"></span></li>'
        for name, label in RESOURCES
    )
    if any("forward_seconds" in step for step in survey["steps"]):
        cards += (
            '<li class="tile" id="at-seconds"><span class="name">Forward pass, measured</span> '
            '<span class="big"></span> <span class="small"></span></li>'
        )
    only = "" if last else paragraph("This plan was taken over from elsewhere; there are no scores for other budgets.")
    return (
        only
        + '<div class="slider"><label for="step">Budget: share of the multiply-adds</label>'
        + f'<div class="track"><input type="range" id="step" min="0" max="{last}" step="1" value="{survey["chosen"]}" '
        + f'list="marks"><datalist id="marks"><option value="{survey["chosen"]}"></option></datalist>'
        + '<span class="mark" id="mark" aria-hidden="true">chosen</span></div>'
        + '<output id="where" for="step"></output></div>'
        + f'<ul class="tiles">{cards}</ul>'
        + '<p class="buttons"><button type="button" id="back">Back to the chosen plan</button> '
        + '<button type="button" id="download">Download this plan (JSON)</button></p>'
        + '<p id="told" class="hidden" aria-live="polite"></p>'
        + '<div class="pair">'
        + figure("widths-picture", "Neurons kept in each layer.", "Bars: share of the neurons kept, by layer")
        + figure(
            "costs-picture",
            "What the plans cost, against their multiply-adds. Dashed: the plan at the slider.",
            "Lines: parameters, activation memory and neurons kept, against multiply-adds kept",
        )
        + "</div>"
        + folded("Neurons by layer, as a table", _widths(plan, at=True))
        + folded("Costs of all plans, as a table", _steps(survey))
    )


def _widths(plan: Plan, *, at: bool = False) -> str:
    head = ["Layer", "Full", "Chosen plan", *(["At the slider"] if at else [])]
    rows = [
        [name, str(full), str(plan.widths[name]), *([str(plan.widths[name])] if at else [])]
        for name, full in plan.full_widths.items()
    ]
    return table("Neurons by layer", head, rows, id="widths-table")


def _steps(survey: Mapping[str, Any]) -> str:
    full = survey["plan"]["full_cost"]
    rows = [
        [
            share(step["cost"]["macs"], full["macs"]) + (" (chosen)" if number == survey["chosen"] else ""),
            *(amount(name, step["cost"][name]) for name, _ in RESOURCES),
        ]
        for number, step in enumerate(survey["steps"])
    ]
    return table("Costs of all plans", ["Of the multiply-adds", *(label for _, label in RESOURCES)], rows)


def _network() -> str:
    graph = table("Layers and what they read", ["Step", "Reads", "Neurons kept"], [], id="network-table")
    return (
        paragraph("It follows the slider of the budget explorer. Outlines: the full widths; filled: what is kept.")
        + '<figure><div id="network-picture" class="scroll" role="region" tabindex="0" aria-label="The network as a '
        'graph; scrolls sideways"></div><figcaption>From left to right as it runs. A bar is a layer, its height grows '
        "with the root of its width; a circle joins several activations.</figcaption>"
        f"{folded('The graph, as a table', graph)}</figure>"
    )


def _memory() -> str:
    head = ["Operator", "Full", "Chosen plan", "At the slider"]
    return figure(
        "memory-picture",
        "Bytes that each operator of one forward pass allocates, in order: of the full network, of the chosen plan, "
        "and of the plan at the slider.",
        "Bars: activation bytes by operator, full and pruned",
        folded("Memory by operator, as a table", table("Activation memory by operator", head, [], id="memory-table")),
    )


def _importance(survey: Mapping[str, Any]) -> str:
    stages = survey["stages"]
    if not stages:
        return paragraph(f"The criterion {survey['plan']['criterion']} does not look at importance.")
    rows = [
        [layer["name"], *(_mean(stage["layers"].get(layer["name"])) for stage in stages)] for layer in survey["layers"]
    ]
    means = table("Mean importance of a layer's neurons", ["Layer", *(stage["name"] for stage in stages)], rows)
    return figure(
        "importance-picture",
        "Scores of each layer's neurons (quartiles, least and largest; dashed: mean) after each step of the criterion: "
        + ", then ".join(stage["name"] for stage in stages)
        + ". The scale is logarithmic.",
        "Boxes: quartiles of the neurons' scores by layer and step",
        folded("Means, as a table", means),
    )


def _mean(found: Mapping[str, Any] | None) -> str:
    return "-" if found is None else f"{found['mean']:.3g}"


def _notes(survey: Mapping[str, Any]) -> str:
    warned = "".join(f"<li>{escape(text)}</li>" for text in survey["warnings"])
    rows = [_frozen(entry) for entry in survey["unprunable"]]
    head = ["Where", "Why", "Channels", "Share of the multiply-adds"]
    return (f"<ul>{warned}</ul>" if warned else paragraph("There are no warnings.")) + (
        table("Channels that stay whole", head, rows) if rows else paragraph("Every channel may be removed.")
    )


def _frozen(entry: Mapping[str, Any]) -> list[str]:
    where = f"{entry['operator']} in {entry['path'] or 'the model'}"
    return [where, entry["reason"], str(entry["channels"]), share(entry["macs_share"], 1)]


# -- training ----------------------------------------------------------------------------------------------------


def _training(content: Content) -> str:
    """Curves and figures of all runs; nothing where there are none."""
    # What the folder's own run lacks stands at the top of the page.
    others = content.runs[1:] if content.own else content.runs
    parts = [paragraph(f"{run.name} is {run.state}.", "notice") for run in others if run.state]
    if any(run.curve for run in content.runs):
        names = dict.fromkeys(name for run in content.runs for name in run.figures if run.curve)
        options = "".join(f'<option value="{escape(name)}">{escape(name)}</option>' for name in (*names, "loss"))
        parts.append(
            f'<p><label for="figure">Figure</label> <select id="figure">{options}</select></p><div class="pair">'
            + figure("steps-picture", "Validation against training steps.", "Lines: the figure against steps, by run")
            + figure("seconds-picture", "Validation against training time.", "Lines: the figure against time, by run")
            + "</div>"
            + folded("All validations, as a table", "".join(_curve(run) for run in content.runs if run.curve))
        )
    finished: list[dict[str, Any]] = [{"run": run.name, **run.result} for run in content.runs if run.result is not None]
    if finished:
        rows = [[label, *values] for label, values in rows_of(finished)]
        parts.append(table("Runs, by their best validations", ["", *(run["run"] for run in finished)], rows))
    return "".join([*parts, _evaluations(content.runs)])


def _evaluations(runs: Sequence[Run]) -> str:
    """What `ranp evaluate` found; nothing where it was never asked."""
    judged = {run.name: run.evaluation for run in runs if run.evaluation is not None}
    if not judged:
        return ""
    names = dict.fromkeys(name for found in judged.values() for name in found["figures"])
    rows = [["weights of step", *(f"{found['step']:,}" for found in judged.values())]]
    rows += [[name, *(figure_text(found["figures"].get(name)) for found in judged.values())] for name in names]
    return table("Evaluations, by ranp evaluate", ["", *judged], rows)


def _curve(run: Run) -> str:
    names = list(run.curve[0])
    rows = [["-" if row[name] is None else f"{row[name]:.6g}" for name in names] for row in run.curve]
    return table(f"Validations of {run.name}", names, rows)
