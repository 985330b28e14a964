"""ranp inside other frameworks: nnU-Net, Lightning, and whatever keeps models in state dicts."""

from ranp.integrations._state_dict import attach_plan, attached_plan, follow, shrink_in_place

__all__ = ["attach_plan", "attached_plan", "follow", "shrink_in_place"]
