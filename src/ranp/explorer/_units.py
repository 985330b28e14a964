"""Numbers as a reader likes them; `words.js` writes them alike."""

from decimal import ROUND_HALF_UP, Decimal

from ranp.budget import Budget

TIMES = "\u00d7"
RESOURCES = (
    ("macs", "Multiply-adds"),
    ("params", "Parameters"),
    ("activation_bytes", "Activation memory"),
    ("neurons", "Neurons"),
)
_ASKED = {"macs": "multiply-adds", "params": "parameters", "activations": "activation memory"}


def amount(resource: str, value: int) -> str:
    """A cost in a unit that suits it.

    Example:
        >>> amount("macs", 46_300_000), amount("activation_bytes", 3 * 2**20), amount("neurons", 145)
        ('46.3 M', '3.00 MiB', '145')
    """
    if resource == "activation_bytes":
        return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))
    return _scaled(value, 1000, ("", "k", "M", "G", "T")).strip()


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    if value < base:
        return f"{value:.0f} {units[0]}"
    power = 0
    while value >= base and power < len(units) - 1:
        value, power = value / base, power + 1
    return f"{_fixed(value, 2 if value < 10 else 1 if value < 100 else 0)} {units[power]}"


def _fixed(value: float, digits: int) -> str:
    """Halves go up, as in JavaScript; Python's own formatting rounds them to even."""
    return str(Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def share(part: float, whole: float) -> str:
    """A part of a whole in percent.

    Example:
        >>> share(1, 20), share(1, 3), share(1, 300), share(1, 1)
        ('5.0%', '33%', '0.33%', '100%')
    """
    percent = 100 * part / whole if whole else 100.0
    return f"{_fixed(percent, 0 if percent >= 10 else 1 if percent >= 1 else 2)}%"


def times(full: float, kept: float) -> str:
    """How many times smaller.

    Example:
        >>> times(100, 5), times(3, 2)
        ('20×', '1.5×')
    """
    factor = full / kept if kept else float("inf")
    return f"{_fixed(factor, 0 if factor >= 20 else 1)}{TIMES}" if factor < 1e9 else "∞"


def asked(budget: Budget) -> str:
    """A budget in words.

    Example:
        >>> asked(Budget(macs=0.05, sparsity=0.5))
        'at most 5.0% of the multiply-adds; at least 50% of the neurons removed'
    """
    return "; ".join(
        f"at least {share(value, 1)} of the neurons removed"
        if name == "sparsity"
        else f"at most {share(value, 1)} of the {_ASKED[name]}"
        for name, value in budget.given()
    )
