"""Names of 0.1 work for one more release, with a warning that gives the new name."""

import warnings
from importlib import import_module

import pytest

from ranp.costs import CostTable
from ranp.graph import ChannelGraph
from ranp.plan import Plan
from ranp.report import Report
from ranp.scores import Scores

NAMES = [
    "ranp.check.Check -> ranp.check.CheckResult",
    "ranp.data.Opened -> ranp.experiments.data.DataBundle",
    "ranp.data.Progress -> ranp.progress.Progress",
    "ranp.plots.FAINT -> ranp.experiments.plots.LIGHT_GRAY",
    "ranp.plots.FULL_COLOUR -> ranp.experiments.plots.FULL_COLOR",
    "ranp.plots.PRUNED_COLOUR -> ranp.experiments.plots.PRUNED_COLOR",
    "ranp.plots.tidy -> ranp.experiments.plots.style_panel",
    "ranp.recipes.Limits -> ranp.Budget",
    "ranp.recipes.Network -> ranp.experiments.recipes.NetworkFields",
    "ranp.recipes.Pruning -> ranp.experiments.recipes.PruningFields",
    "ranp.recipes.Training -> ranp.experiments.recipes.TrainingFields",
    "ranp.reproduce.Row -> ranp.experiments.reproduce.resources.ResourceRow",
    "ranp.reproduce.tables -> ranp.experiments.reproduce.resources.resource_tables",
    "ranp.studies.Setting -> ranp.experiments.studies.RecipeChoice",
    "ranp.survey.timed -> ranp.explorer.with_forward_seconds",
    "ranp.page.write_page -> ranp.explorer.write_report",
    "ranp.graph.Allocation -> ranp.costs.OutputBytes",
    "ranp.graph.Attribute -> ranp.graph.SizeAttribute",
    "ranp.graph.Frozen -> ranp.graph.Unprunable",
    "ranp.graph.Terms -> ranp.costs.Terms",
    "ranp.integrations.carried_plan -> ranp.integrations.attached_plan",
    "ranp.integrations.carry_plan -> ranp.integrations.attach_plan",
    "ranp.integrations.follow -> ranp.integrations.resize_to_state_dict",
    "ranp.integrations.take_on -> ranp.integrations.shrink_in_place",
    "ranp.integrations.nnunet.Settings -> ranp.integrations.nnunet.NnUNetPruning",
    "ranp.plan.Setting -> ranp.plan.SizeChange",
    "ranp.scoring.equalise -> ranp.scoring.normalize_layer_means",
    "ranp.scoring.favour_cheap -> ranp.scoring.reweight_by_resource",
]
ATTRIBUTES = [
    (ChannelGraph, "frozen", "unprunable"),
    (ChannelGraph, "missed", "untraced_training_mode"),
    (ChannelGraph, "mixes", "has_cross_channel_norm"),
    (CostTable, "allocations", "outputs"),
    (Plan, "lam", "resource_weight"),
    (Plan, "mixes", "has_cross_channel_norm"),
    (Report, "frozen", "unprunable"),
    (Scores, "lam", "resource_weight"),
]


def imported(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Modules have old names, too.
        return import_module(module)


@pytest.mark.parametrize("names", NAMES)
def test_an_old_name_of_a_module_finds_the_renamed_object(names):
    (old_module, _, old), (module, _, new) = (name.rpartition(".") for name in names.split(" -> "))
    if old_module.endswith("nnunet"):
        pytest.importorskip("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    place = imported(old_module)
    with pytest.warns(DeprecationWarning, match=rf"^{old_module}\.{old} is now {module}\.{new};"):
        found = getattr(place, old)
    assert found is getattr(import_module(module), new)


@pytest.mark.parametrize(("kind", "old", "new"), ATTRIBUTES)
def test_an_old_attribute_has_the_value_of_the_renamed_one(kind, old, new):
    instance = object.__new__(kind)
    vars(instance)[new] = value = object()
    with pytest.warns(DeprecationWarning, match=rf"^{kind.__name__}\.{old} is now {kind.__name__}\.{new};"):
        assert getattr(instance, old) is value


@pytest.mark.parametrize("module", sorted({names.split(" -> ")[0].rpartition(".")[0] for names in NAMES}))
def test_an_unknown_name_is_still_an_attribute_error(module):
    if module.endswith("nnunet"):
        pytest.importorskip("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = imported(module).nothing_of_that_name
