"""ranp inside other frameworks: nnU-Net, Lightning, and whatever keeps models in state dicts."""

from ranp.integrations._state_dict import carried_plan, carry_plan, follow, take_on

__all__ = ["carried_plan", "carry_plan", "follow", "take_on"]
