"""The head of a page: what was asked, and what came out."""

from html import escape

from ranp.costs import Cost
from ranp.explorer._content import Content, Run
from ranp.explorer._html import facts, paragraph
from ranp.explorer._units import RESOURCES, TIMES, amount, asked, share, times
from ranp.plan import Plan


def verdict(content: Content) -> str:
    """One sentence, as HTML."""
    if content.plan is None:
        return "Not pruned yet."
    cost, full = _costs(content)
    if cost == full:
        return "The full network: nothing was removed."
    return (
        f"<strong>{times(full.macs, cost.macs)}</strong> fewer multiply-adds and "
        f"<strong>{times(full.activation_bytes, cost.activation_bytes)}</strong> less activation memory than the full "
        "network."
    )


def _costs(content: Content) -> tuple[Cost, Cost]:
    """Of the pruned and the full network, at the shape at which it was pruned."""
    assert content.plan is not None
    if content.survey is None:
        return content.plan.cost, content.plan.full_cost
    step = content.survey["steps"][content.survey["chosen"]]
    return Cost(**step["cost"]), Cost(**content.survey["plan"]["full_cost"])


def glance(content: Content) -> str:
    """Figures of the pruned network, and how they came about; of a run that is not pruned yet, what it will do."""
    notices = []
    if content.own and content.runs[0].state:
        notices.append(
            f"This run is not finished: it is {content.runs[0].state}. What there is so far is shown; "
            "ranp train with --resume goes on with it."
        )
    if content.plan is None:
        return _notice(notices) + facts(_recipe_facts(content.runs[0]))
    warnings = [] if content.survey is None else content.survey["warnings"]
    notices += [f"Warning: {text}" for text in warnings]
    cost, full = _costs(content)
    tiles = [_tile(label, name, getattr(cost, name), getattr(full, name)) for name, label in RESOURCES]
    tiles += _run_tiles(content)
    came = _came_out(content.plan, cost, full)
    return (
        _notice(notices)
        + f'<ul class="tiles">{"".join(tiles)}</ul>'
        + facts([("Asked", asked(content.plan.budget)), ("Came out", came), *_how(content)])
    )


def _notice(texts: list[str]) -> str:
    return "".join(paragraph(text, "notice") for text in texts)


def _tile(label: str, name: str, value: int, full: int) -> str:
    big = "100%" if value == full else f"{times(full, value)}<small> {_less(name)}</small>"
    return (
        f'<li class="tile" data-resource="{name}" data-value="{value}"><span class="name">{escape(label)}</span> '
        f'<span class="big">{big}</span> '
        f'<span class="bar" aria-hidden="true"><span style="width:{100 * value / max(full, 1):.2f}%"></span></span> '
        f'<span class="small">{amount(name, value)} of {amount(name, full)} ({share(value, full)})</span></li>'
    )


def _less(resource: str) -> str:
    return "less" if resource == "activation_bytes" else "fewer"


def _run_tiles(content: Content) -> list[str]:
    """What the folder's own run measured, beside the first run of a full network, if there is one."""
    own = content.runs[0].result if content.own else None
    if own is None:
        return []
    full = next(
        (run.result for run in content.runs[1:] if run.result and run.result["cost"] == run.result["full_cost"]), None
    )
    primary_metric, step = own["primary_metric"], own["step_seconds"]
    best = own["best"].get(primary_metric)
    against = None if full is None else full["best"].get(primary_metric)
    faster = "" if full is None else f"{times(full['step_seconds'], step)}<small> less</small>"
    return [
        _plain_tile(
            "Training step, measured",
            faster or f"{step * 1e3:,.0f}<small> ms</small>",
            f"{step * 1e3:,.1f} ms" + ("" if full is None else f" of {full['step_seconds'] * 1e3:,.1f} ms"),
        ),
        _plain_tile(
            f"Best {primary_metric}",
            "-" if best is None else f"{best:.3f}",
            f"at step {own['best'].get('step', 0):,}" + ("" if against is None else f"; full network {against:.3f}"),
        ),
    ]


def _plain_tile(label: str, big: str, small: str) -> str:
    return (
        f'<li class="tile"><span class="name">{escape(label)}</span> <span class="big">{big}</span> '
        f'<span class="small">{escape(small)}</span></li>'
    )


def _came_out(plan: Plan, cost: Cost, full: Cost) -> str:
    names = {"macs": ("macs", "multiply-adds"), "params": ("params", "parameters")}
    names |= {"activations": ("activation_bytes", "activation memory")}
    parts = []
    for name, _ in plan.budget.given():
        if name == "sparsity":
            parts.append(f"{share(full.neurons - cost.neurons, full.neurons)} of the neurons removed")
        else:
            field, words = names[name]
            parts.append(f"{share(getattr(cost, field), getattr(full, field))} of the {words}")
    return "; ".join(parts)


def _how(content: Content) -> list[tuple[str, str]]:
    plan, survey = content.plan, content.survey
    assert plan is not None
    criterion = plan.criterion + (f", importance by {plan.importance}" if plan.importance else "")
    found = [("Criterion", criterion + (f", λ = {plan.resource_weight:g}" if plan.resource_weight else ""))]
    if survey is not None:
        if survey["batches"]:
            stable = f", rank correlation {survey['stability'][-1][1]:.3f}" if survey["stability"] else ""
            found.append(("Scored on", f"{survey['batches']} batch{'' if survey['batches'] == 1 else 'es'}{stable}"))
        shapes = [f" {TIMES} ".join(map(str, node["shape"])) for node in survey["nodes"] if node["kind"] == "input"]
        found.append(("Input", ", ".join(shapes)))
        proof = {
            "exact": "exact: pruned equals masked, in float64",
            "structural": "shapes, finite values, gradients",
            "": "not run",
        }
        found.append(("Verification", proof[survey["verification"]]))
    found.append(("Seed", str(plan.seed)))
    found.append(("Made with", ", ".join(f"{name} {number}" for name, number in plan.versions.items())))
    return found


def _recipe_facts(run: Run) -> list[tuple[str, str]]:
    pruning, training = run.recipe["pruning"], run.recipe["training"]
    budget = {name: value for name, value in (pruning.get("budget") or {}).items() if value is not None}
    return [
        ("Data", str(run.recipe["data"].get("name", "-"))),
        ("Method", str(pruning.get("method", "-"))),
        ("Budget", ", ".join(f"{name} {value:g}" for name, value in budget.items()) or "none"),
        ("Steps", str(training.get("steps") or f"{training.get('epochs')} epochs")),
    ]
