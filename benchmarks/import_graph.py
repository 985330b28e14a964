"""Draws which parts of the source import which: `python benchmarks/import_graph.py src/ranp out.png`.

A part is a module or package of `ranp` (and of `ranp.experiments`). Parts are arranged in layers, each above all parts
that it imports at module level. Imports that follow from others are left out; an import that closes a circle is red.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from matplotlib.figure import Figure

Graph = Mapping[str, frozenset[str]]


def part(name: str) -> str:
    """The part that a module belongs to.

    Example:
        >>> part("ranp.tracing._labels"), part("ranp.experiments.data.sampler"), part("ranp")
        ('tracing', 'experiments.data', 'ranp')
    """
    parts = name.split(".")[1:]
    return ".".join(parts[: 2 if parts[:1] == ["experiments"] else 1]) or "ranp"


def imports(tree: ast.AST) -> Iterator[str]:
    """Modules that are imported when a module is: neither inside functions, nor for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from imports(node)


def import_graph(source: Path) -> tuple[Graph, dict[str, int]]:
    """For each part the others that it imports, and its number of lines."""
    names = {
        "ranp." + ".".join(path.relative_to(source).with_suffix("").parts): path
        for path in sorted(source.rglob("*.py"))
    }
    parts = {part(name.removesuffix(".__init__")) for name in names}
    found, lines = defaultdict[str, set[str]](set), defaultdict[str, int](int)
    for name, path in names.items():
        here, text = part(name.removesuffix(".__init__")), path.read_text(encoding="utf-8")
        lines[here] += len(text.splitlines())
        for target in imports(ast.parse(text)):
            if target.split(".")[0] == "ranp":
                # `from ranp import Budget` imports a name, not a part.
                found[here].add(part(target) if part(target) in parts else "ranp")
    return {name: frozenset(found[name] - {name}) for name in parts}, dict(lines)


def layers(graph: Graph) -> tuple[dict[str, int], set[tuple[str, str]]]:
    """The layer of each part, and the imports that close circles."""
    circles: set[tuple[str, str]] = set()
    trail: list[str] = []

    @cache
    def layer(name: str) -> int:
        trail.append(name)
        below = []
        for other in sorted(graph[name]):
            if other in trail:
                circles.add((name, other))
            else:
                below.append(layer(other))
        trail.pop()
        return 1 + max(below, default=-1)

    return {name: layer(name) for name in sorted(graph)}, circles


def reduced(graph: Graph, circles: set[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Imports that do not follow from others, and those that close circles."""

    @cache
    def reachable(name: str) -> frozenset[str]:
        direct = {other for other in graph[name] if (name, other) not in circles}
        return frozenset(direct).union(*map(reachable, direct))

    for name, others in graph.items():
        for other in others:
            via = (middle for middle in others if middle != other and (name, middle) not in circles)
            if (name, other) in circles or not any(other in reachable(middle) for middle in via):
                yield name, other


def draw(graph: Graph, lines: Mapping[str, int]) -> Figure:
    """The graph, lowest layer at the bottom."""
    heights, circles = layers(graph)
    rows = defaultdict[int, list[str]](list)
    for name, height in heights.items():
        rows[height].append(name)
    widest = max(len(row) for row in rows.values())
    figure = Figure(figsize=(1.5 * widest, 1.2 * len(rows)), dpi=110, layout="constrained")
    axis = figure.subplots()
    places = {
        name: ((index + 0.5) * widest / len(row), height)
        for height, row in rows.items()
        for index, name in enumerate(row)
    }
    for name, other in reduced(graph, circles):
        circle = (name, other) in circles
        style = {"arrowstyle": "-|>", "color": "red" if circle else "#789", "lw": 1.6 if circle else 0.8}
        axis.annotate("", places[other], places[name], arrowprops={**style, "shrinkA": 14, "shrinkB": 14})
    for name, (x, y) in places.items():
        box = {"boxstyle": "round", "fc": "#fff3e0" if name.startswith("experiments") else "#e3f2fd", "ec": "#456"}
        axis.text(x, y, f"{name}\n{lines[name]:,}", ha="center", va="center", fontsize=8, bbox=box)
    axis.set_xlim(0, widest)
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.set_axis_off()
    axis.set_title(f"{sum(lines.values()):,} lines, {len(graph)} parts, {len(circles)} circles", fontsize=10)
    return figure


if __name__ == "__main__":
    draw(*import_graph(Path(sys.argv[1]))).savefig(sys.argv[2])
