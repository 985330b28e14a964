"""The resource tables of Xu et al., RANP, 3DV 2020, recomputed: the paper's own counting and selection."""

from ranp.experiments.reproduce.counting import PublishedResources, published_resources
from ranp.experiments.reproduce.networks import METHODS, NETWORKS, Method, PublishedNetwork
from ranp.experiments.reproduce.resources import NOTE, ResourceRow, resource_tables, run_resources

__all__ = [
    "METHODS",
    "NETWORKS",
    "NOTE",
    "Method",
    "PublishedNetwork",
    "PublishedResources",
    "ResourceRow",
    "published_resources",
    "resource_tables",
    "run_resources",
]
