"""Reweighting of importance between layers (Xu et al., RANP, 3DV 2020)."""

from collections.abc import Mapping

import numpy as np

from ranp.errors import InputError
from ranp.graph import Floats


def normalize_layer_means(importance: Mapping[str, Floats]) -> dict[str, Floats]:
    """Weighted neuron importance: scale every layer to the largest layer mean.

    s~ = (max_k mean(s^k) / mean(s^l)) * s, with k over all layers. A layer without any importance keeps its zeros.

    Args:
        importance: For each layer an array of shape (neurons,).

    Example:
        >>> normalize_layer_means({"a": np.array([1.0, 3.0]), "b": np.array([10.0])})
        {'a': array([ 5., 15.]), 'b': array([10.])}
    """
    means = {name: float(values.mean()) for name, values in importance.items()}
    largest = max(means.values(), default=0.0)
    return {
        name: values * (largest / means[name]) if means[name] > 0 else values.copy()
        for name, values in importance.items()
    }


def reweight_by_resource(
    scores: Mapping[str, Floats], resources: Mapping[str, float], resource_weight: float
) -> dict[str, Floats]:
    """Resource-aware neuron importance: raise the scores of layers that use little of a resource.

    s^ = (1 + resource_weight * softmax(-tau / max tau)) * s~, softmax over layers. Dividing by the largest tau keeps
    the softmax from saturating.

    Args:
        scores: For each layer an array of shape (neurons,).
        resources: The use tau of each layer, in any unit.
        resource_weight: Weight of the resource, at least 0.

    Example:
        >>> reweight_by_resource({"a": np.ones(1), "b": np.ones(1)}, {"a": 1.0, "b": 1.0}, resource_weight=2.0)
        {'a': array([2.]), 'b': array([2.])}
    """
    if not (np.isfinite(resource_weight) and resource_weight >= 0):
        raise InputError(
            "resource_weight",
            got=repr(resource_weight),
            expected="a finite number of at least 0",
            hint="published: 11 to 80",
        )
    largest = max(resources.values(), default=1.0) or 1.0
    weights = {name: float(np.exp(-tau / largest)) for name, tau in resources.items()}
    total = sum(weights.values())
    return {name: (1 + resource_weight * weights[name] / total) * values for name, values in scores.items()}
