"""The studies that come with ranp: the recipe of every variant is valid, at both sizes."""

from pathlib import Path

import pytest

from ranp.experiments.recipes import recipe_file
from ranp.experiments.studies import STUDIES, Study
from ranp.experiments.studies.running import StudyRequest


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("study", STUDIES.values(), ids=list(STUDIES))
def test_every_run_has_a_recipe_of_its_own(study: Study, small: bool, tmp_path: Path) -> None:
    request = StudyRequest(study, tmp_path, {}, small=small)
    recipes = [request.recipe_of(variant, seed) for variant in study.variants for seed in (0, 1)]
    assert len({recipe.model_dump_json() for recipe in recipes}) == len(recipes)
    assert {recipe.seed for recipe in recipes} == {0, 1}
    assert {variant.task for variant in study.variants} == set(study.tasks)
    for variant in study.variants:
        assert variant.plan_of == "" or variant.plan_of in {other.label for other in study.variants}


def test_the_runs_of_the_hippocampus_have_fixed_names_and_settings() -> None:
    """Stored results and folders of long runs depend on these names and changes."""
    study = STUDIES["hippocampus"]
    request = StudyRequest(study, Path("out"), {})
    plain = request.base_recipe("").model_dump()
    found = {}
    for variant in study.variants:
        recipe = request.recipe_of(variant, 2).model_dump()
        found[variant.label] = recipe["pruning"]["method"], recipe["pruning"]["budget"]["macs"]
        recipe["pruning"]["method"], recipe["seed"] = plain["pruning"]["method"], plain["seed"]
        recipe["pruning"]["budget"]["macs"] = plain["pruning"]["budget"]["macs"]
        assert recipe == plain
        assert request.folder(variant.label, 2).path == Path("out", variant.label, "seed-2")
    assert found == {
        "full": ("none", 0.05),
        **{f"{name}-5": (name, 0.05) for name in ("random", "layerwise", "weighted", "ranp-m", "ranp-f")},
        **{f"{name}-5": (name, 0.05) for name in ("uniform", "constant")},
        **{f"{name}-{percent}": (name, percent / 100) for name in ("ranp-f", "uniform") for percent in (10, 25)},
    }


@pytest.mark.parametrize("small", [False, True])
def test_longer_trains_for_twice_the_steps_and_changes_nothing_else(small: bool) -> None:
    study = STUDIES["longer"]
    request = StudyRequest(study, Path("out"), {}, small=small)
    recipes = {variant.label: request.recipe_of(variant, 1).model_dump() for variant in study.variants}
    assert list(recipes) == ["full", "full-twice", "ranp-f-5", "ranp-f-5-twice", "uniform-5", "uniform-5-twice"]
    for label in ("full", "ranp-f-5", "uniform-5"):
        once, twice = recipes[label], recipes[f"{label}-twice"]
        assert twice["training"].pop("steps") == 2 * once["training"].pop("steps")
        assert twice == once


def test_the_recipes_come_with_ranp() -> None:
    for study in STUDIES.values():
        for task in study.tasks.values():
            assert recipe_file(task.real.recipe).is_file()
            assert recipe_file(task.small.recipe).is_file()
