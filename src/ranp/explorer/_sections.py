"""The sections of a report. Scripts draw the plots from the same data; everything else is written here."""

from collections.abc import Mapping, Sequence
from html import escape
from string import Template
from typing import Any

from ranp.costs import RESOURCES
from ranp.explorer import _html as html
from ranp.explorer._content import Content, RunSummary
from ranp.plan import Plan
from ranp.tables import Table, metric_text

_VERIFICATION = {
    "exact": "exact: the pruned network equals the masked one in float64",
    "structural": "structural: shapes, finite values, gradients",
    "": "not run",
}


def headline(content: Content) -> str:
    """The result in one sentence, as HTML."""
    if content.plan is None:
        return "Not pruned yet."
    cost, full = content.costs
    if cost == full:
        return "The full network: nothing was removed."
    # Time and memory of training first; without them, activation memory.
    wordings = {
        "step_seconds": "less time for a training step",
        "train_bytes": "less training memory",
        "macs": "fewer multiply-adds",
        **({} if full.train_bytes else {"activation_bytes": "less activation memory"}),
    }
    amounts = {name: (getattr(full, name), getattr(cost, name)) for name in wordings}
    found = [
        f"<strong>{html.times(whole, part)}</strong> {wordings[name]}"
        for name, (whole, part) in amounts.items()
        if whole is not None and part is not None
    ]
    return f"{', '.join(found[:-1])} and {found[-1]} than the full network."


def sections(content: Content) -> list[tuple[str, str, str]]:
    """All sections that the content allows, in order: anchor, title and HTML."""
    plan, survey = content.plan, content.survey
    found = [("summary", "Summary", _summary(content))]
    if plan is not None and survey is not None:
        found.append(("explorer", "Budget explorer", _explorer(plan, survey)))
        found.append(("network", "Network", html.asset("network.html")))
        found.append(("memory", "Activation memory by operator", html.asset("memory.html")))
        found.append(("importance", "Importance by layer", _importance(survey)))
    elif plan is not None:
        found.append(("widths", "Neurons by layer", _widths(plan)))
    if trained := _training(content):
        found.append(("training", "Training", trained))
    if survey is not None:
        found.append(("notes", "Warnings and unprunable channels", _notes(survey)))
    return found


# -- summary -----------------------------------------------------------------------------------------------------


def _summary(content: Content) -> str:
    """Costs of the pruned network and how it was pruned; before pruning, what the recipe says."""
    notices = []
    if content.run is not None and content.run.state:
        notices.append(
            f"This run is not finished: it is {content.run.state}. The report shows the results so far; "
            "ranp train --resume continues the run."
        )
    if content.survey is not None and content.plan is not None:
        notices += [f"Warning: {text}" for text in content.survey["warnings"]]
    shown = "".join(html.paragraph(text, "notice") for text in notices)
    if content.plan is None:
        return shown + html.facts(_recipe_facts(content.runs[0]))
    labels = _known_labels(content.costs[1].known())
    tiles = "".join([*(_cost_tile(content, name, label) for name, label in labels.items()), *_run_tiles(content)])
    return f'{shown}<ul class="tiles">{tiles}</ul>{html.facts(_plan_facts(content, content.plan))}'


def _cost_tile(content: Content, name: str, label: str) -> str:
    value, full = (getattr(cost, name) for cost in content.costs)
    less = "less" if name.endswith(("bytes", "seconds")) else "fewer"
    return html.tile(
        label,
        "100%" if value == full else f"{html.times(full, value)}<small> {less}</small>",
        f"{html.amount(name, value)} of {html.amount(name, full)} ({html.share(value, full)})",
        bar=100 * value / (full or 1),
        attributes=f' data-resource="{name}" data-value="{value}"',
    )


def _run_tiles(content: Content) -> list[str]:
    """Measurements of the folder's own run, compared with the first run of the full network, if there is one."""
    own = None if content.run is None else content.run.result
    if own is None:
        return []
    finished = (run.result for run in content.others if run.result is not None)
    full = next((result for result in finished if result["cost"] == result["full_cost"]), None)
    primary, seconds = own["primary_metric"], own["step_seconds"]
    best, at_step = own["best"].get(primary), f"at step {own['best'].get('step', 0):,}"
    time_text, time_note = f"{seconds * 1e3:,.0f}<small> ms</small>", f"{seconds * 1e3:,.1f} ms"
    if full is not None:
        time_text = f"{html.times(full['step_seconds'], seconds)}<small> less</small>"
        time_note += f" of {full['step_seconds'] * 1e3:,.1f} ms"
        if (other := full["best"].get(primary)) is not None:
            at_step += f"; full network {other:.3f}"
    return [
        html.tile("Training step, measured", time_text, time_note),
        html.tile(f"Best {primary}", metric_text(best), at_step),
    ]


def _plan_facts(content: Content, plan: Plan) -> list[tuple[str, str]]:
    survey, (cost, full) = content.survey, content.costs
    criterion = plan.criterion + (f", importance by {plan.importance}" if plan.importance else "")
    criterion += f", resource weight {plan.resource_weight:g}" if plan.resource_weight else ""
    found = [
        ("Budget", html.budget_text(plan.budget)),
        ("Result", html.result_text(plan.budget, cost, full)),
        ("Criterion", criterion),
    ]
    if survey is not None:
        if survey["batches"]:
            stable = f", rank correlation {survey['stability'][-1][1]:.3f}" if survey["stability"] else ""
            found.append(("Scored on", f"{survey['batches']} batch{'' if survey['batches'] == 1 else 'es'}{stable}"))
        shapes = [
            f" {html.TIMES} ".join(map(str, node["shape"])) for node in survey["nodes"] if node["kind"] == "input"
        ]
        found.append(("Input", ", ".join(shapes)))
        found.append(("Verification", _VERIFICATION[survey["verification"]]))
    found.append(("Seed", str(plan.seed)))
    found.append(("Versions", ", ".join(f"{name} {number}" for name, number in plan.versions.items())))
    return found


def _recipe_facts(run: RunSummary) -> list[tuple[str, str]]:
    pruning, training = run.recipe["pruning"], run.recipe["training"]
    budget = {name: value for name, value in (pruning.get("budget") or {}).items() if value is not None}
    return [
        ("Data", str(run.recipe["data"].get("name", "-"))),
        ("Method", str(pruning.get("method", "-"))),
        ("Budget", ", ".join(f"{name} {value}" for name, value in budget.items()) or "none"),
        ("Steps", str(training.get("steps") or f"{training.get('epochs')} epochs")),
    ]


# -- the plan ----------------------------------------------------------------------------------------------------


def _explorer(plan: Plan, survey: Mapping[str, Any]) -> str:
    last = len(survey["steps"]) - 1
    labels = _known_labels(survey["plan"]["full_cost"])
    cards = "".join(html.tile(label, "", "", bar=0, attributes=f' id="at-{name}"') for name, label in labels.items())
    if any("forward_seconds" in step for step in survey["steps"]):
        cards += html.tile("Forward pass, measured", "", "", attributes=' id="at-seconds"')
    only = "" if last else html.paragraph("There are no scores for this plan, so there are no plans for other budgets.")
    return Template(html.asset("budgets.html")).substitute(
        notice=only,
        last=last,
        chosen=survey["chosen"],
        tiles=cards,
        widths=_widths(plan, slider=True),
        costs=_steps(survey),
    )


def _widths(plan: Plan, *, slider: bool = False) -> str:
    head = ["Layer", "Full", "Chosen plan", *(["At the slider"] if slider else [])]
    rows = [[name, str(full), *[str(plan.widths[name])] * (len(head) - 2)] for name, full in plan.full_widths.items()]
    return html.table(Table("Neurons by layer", head, rows), id="widths-table")


def _steps(survey: Mapping[str, Any]) -> str:
    full = survey["plan"]["full_cost"]
    labels = _known_labels(full)
    rows = [
        [
            html.share(step["cost"]["macs"], full["macs"]) + (" (chosen)" if number == survey["chosen"] else ""),
            *(html.amount(name, step["cost"][name]) for name in labels),
        ]
        for number, step in enumerate(survey["steps"])
    ]
    return html.table(Table("Costs of all plans", ["Share of the multiply-adds", *labels.values()], rows))


def _known_labels(cost: Mapping[str, Any]) -> dict[str, str]:
    return {resource.name: resource.label.capitalize() for resource in RESOURCES if cost.get(resource.name) is not None}


def _importance(survey: Mapping[str, Any]) -> str:
    stages = survey["stages"]
    if not stages:
        return html.paragraph(f"The criterion {survey['plan']['criterion']} does not use importance.")
    found = {name: [stage["layers"].get(name) for stage in stages] for name in survey["plan"]["full_widths"]}
    rows = [[name, *("-" if each is None else f"{each['mean']:.3g}" for each in row)] for name, row in found.items()]
    means = Table("Mean score of the neurons of a layer", ["Layer", *(stage["name"] for stage in stages)], rows)
    return html.figure(
        "importance-plot",
        "Scores of the neurons of each layer (quartiles, minimum and maximum; dashed: mean) after each step of the "
        f"criterion: {', then '.join(stage['name'] for stage in stages)}. Logarithmic scale.",
        "Boxes: quartiles of the neurons' scores by layer and step",
        html.folded("Mean scores (table)", html.table(means)),
    )


def _notes(survey: Mapping[str, Any]) -> str:
    warnings = "".join(f"<li>{escape(text)}</li>" for text in survey["warnings"])
    rows = [
        [
            f"{entry['operator']} in {entry['path']}" if entry["path"] else entry["operator"],
            entry["reason"],
            str(entry["channels"]),
            html.share(entry["macs_share"], 1),
        ]
        for entry in survey["unprunable"]
    ]
    head = ["Operator", "Reason", "Channels", "Share of the multiply-adds"]
    table = Table("Unprunable channels", head, rows, text_columns=2)
    return (f"<ul>{warnings}</ul>" if warnings else html.paragraph("There are no warnings.")) + (
        html.table(table) if rows else html.paragraph("All channels can be pruned.")
    )


# -- training ----------------------------------------------------------------------------------------------------


def _training(content: Content) -> str:
    """Validation curves, the comparison and evaluations of all runs; empty if there are none."""
    # The state of the folder's own run is in the summary.
    parts = [html.paragraph(f"{run.name} is {run.state}.", "notice") for run in content.others if run.state]
    validated = [run for run in content.runs if run.curve]
    if validated:
        names = dict.fromkeys(name for run in validated for name in run.metrics)
        options = "".join(f'<option value="{escape(name)}">{escape(name)}</option>' for name in (*names, "loss"))
        parts.append(
            f'<p><label for="metric">Metric</label> <select id="metric">{options}</select></p><div class="pair">'
            + html.figure("steps-plot", "Validation against training steps.", "Lines: the metric against steps, by run")
            + html.figure("seconds-plot", "Validation against training time.", "Lines: the metric against time, by run")
            + "</div>"
            + html.folded("All validations (tables)", "".join(map(_curve, validated)))
        )
    if content.comparison is not None:
        parts.append(html.table(content.comparison))
    return "".join([*parts, _evaluations(content.runs)])


def _evaluations(runs: Sequence[RunSummary]) -> str:
    """Results of `ranp evaluate`; empty if there are none."""
    found = {run.name: run.evaluation for run in runs if run.evaluation is not None}
    if not found:
        return ""
    names = dict.fromkeys(name for evaluation in found.values() for name in evaluation["metrics"])
    rows = [["weights of step", *(f"{evaluation['step']:,}" for evaluation in found.values())]]
    rows += [[name, *(metric_text(evaluation["metrics"].get(name)) for evaluation in found.values())] for name in names]
    return html.table(Table("Results of ranp evaluate", ["", *found], rows))


def _curve(run: RunSummary) -> str:
    names = list(run.curve[0])
    rows = [["-" if row[name] is None else f"{row[name]:.6g}" for name in names] for row in run.curve]
    return html.table(Table(f"Validations of {run.name}", names, rows))
