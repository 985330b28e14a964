"""How nnU-Net's trainer prunes; environment variables change it for one run."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ranp.budget import Budget
from ranp.criteria import Importance
from ranp.errors import InputError, nearest

PREFIX = "nnUNet_ranp_"
_LIMITS = tuple(entry.name for entry in fields(Budget))


@dataclass(frozen=True)
class Settings:
    """How to prune.

    Attributes:
        budget: What the pruned network may cost, at the patch size of nnU-Net's plans.
        criterion: See `ranp.prune`.
        importance: See `ranp.prune`.
        batches: How many training batches to score with; in each process, if there are several.
        round_to: Round widths down to multiples of this.
    """

    budget: Budget = field(default_factory=lambda: Budget(macs=0.1))
    criterion: str = "ranp-f"
    importance: Importance = "parameter"
    batches: int = 20
    round_to: int = 1

    def changed_by(self, environment: Mapping[str, str]) -> "Settings":
        """These settings, but for what the environment says: `nnUNet_ranp_macs=0.05`, `nnUNet_ranp_criterion=ranp-m`.

        Limits are those of `Budget`, and those given replace the whole budget; the other names are the attributes'.

        Raises:
            RanpError: An unknown name, or a value that cannot be used.

        Example:
            >>> Settings().changed_by({"nnUNet_ranp_params": "0.2", "nnUNet_ranp_batches": "4"})
            ... # doctest: +NORMALIZE_WHITESPACE
            Settings(budget=Budget(macs=None, params=0.2, activations=None, sparsity=None), criterion='ranp-f',
                importance='parameter', batches=4, round_to=1)
        """
        given = {name[len(PREFIX) :]: text for name, text in environment.items() if name.startswith(PREFIX)}
        kinds: dict[str, type] = dict.fromkeys(_LIMITS, float)
        kinds |= {"criterion": str, "importance": str, "batches": int, "round_to": int}
        values = {name: _read(name, text, kinds) for name, text in given.items()}
        limits = {name: values.pop(name) for name in _LIMITS if name in values}
        return replace(self, budget=Budget(**limits) if limits else self.budget, **values)


def _read(name: str, text: str, kinds: Mapping[str, type]) -> Any:
    if name not in kinds:
        raise InputError(PREFIX + name, got="an unknown setting", expected="a known one", hint=nearest(name, kinds))
    try:
        value = kinds[name](text)
    except ValueError as error:
        raise InputError(PREFIX + name, got=repr(text), expected=f"a number ({kinds[name].__name__})") from error
    if kinds[name] is int and value < 1:
        raise InputError(PREFIX + name, got=text, expected="at least 1")
    return value
