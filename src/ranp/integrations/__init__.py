"""ranp inside other frameworks: nnU-Net, Lightning, and whatever stores models as state dicts."""

from ranp.integrations.state_dict import attach_plan, attached_plan, resize_to_state_dict, shrink_in_place

__all__ = ["attach_plan", "attached_plan", "resize_to_state_dict", "shrink_in_place"]
