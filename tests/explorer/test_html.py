"""Pieces of the report: escaped texts, and numbers with their units."""

from ranp import Budget
from ranp.costs import Cost
from ranp.explorer._html import amount, budget_text, result_text, share, table, times
from ranp.tables import Table


def test_texts_are_escaped() -> None:
    assert "<td>1 &lt; 2</td>" in table(Table("t", ["a", "b"], [["x", "1 < 2"]]))


def test_numbers_have_units() -> None:
    assert amount("macs", 46_300_000) == "46.3 M"
    assert amount("activation_bytes", 3 * 2**20) == "3.00 MiB"
    assert amount("neurons", 145) == "145"
    assert [share(1, whole) for whole in (20, 3, 300, 1)] == ["5.0%", "33%", "0.33%", "100%"]
    assert (times(100, 5), times(3, 2)) == ("20\u00d7", "1.5\u00d7")


def test_budgets_in_words() -> None:
    budget = Budget(macs=0.05, sparsity=0.5)
    assert budget_text(budget) == "at most 5.0% of the multiply-adds; at least 50% of the neurons removed"
    assert budget_text(Budget(custom={"energy": 0.3})) == "at most 30% of the energy"
    result = result_text(budget, Cost(4, 9, 9, 2), Cost(100, 10, 10, 8))
    assert result == "4.0% of the multiply-adds; 75% of the neurons removed"
