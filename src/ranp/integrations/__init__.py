"""ranp inside other frameworks: nnU-Net, Lightning, and whatever stores models as state dicts."""

from typing import TYPE_CHECKING

from ranp.deprecation import renamed_names
from ranp.integrations.state_dict import attach_plan, attached_plan, resize_to_state_dict, shrink_in_place

__all__ = ["attach_plan", "attached_plan", "resize_to_state_dict", "shrink_in_place"]


if not TYPE_CHECKING:
    __getattr__ = renamed_names(
        __name__,
        {
            "carried_plan": "attached_plan",
            "carry_plan": "attach_plan",
            "follow": "resize_to_state_dict",
            "take_on": "shrink_in_place",
        },
    )
