"""Recipes: the files that come with the project, every field, and every way to get one wrong."""

import copy
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from pydantic import BaseModel

from helpers.tiny_runs import CONTENT
from ranp.criteria import CRITERIA
from ranp.errors import InputError
from ranp.experiments.data import DATA_SETS
from ranp.experiments.data.decathlon import Decathlon
from ranp.experiments.losses import LOSSES, SCHEDULES
from ranp.experiments.recipes import NetworkFields, PruningFields, Recipe, TrainingFields, read_recipe
from ranp.models import UNet3D
from ranp.surgery import initialize

FILES = sorted((Path(__file__).parents[3] / "recipes").glob("*.yaml"))


def write(folder: Path, content: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def parts(kind: Any) -> list[type[BaseModel]]:
    """A model and all those within it."""
    inner = [
        option for entry in kind.model_fields.values() for option in (entry.annotation, *get_args(entry.annotation))
    ]
    models = [option for option in inner if isinstance(option, type) and issubclass(option, BaseModel)]
    return [kind, *(part for model in models for part in parts(model))]


def test_every_field_is_documented() -> None:
    found = parts(Recipe)
    assert {part.__name__ for part in found} == {"Recipe", "NetworkFields", "PruningFields", "TrainingFields"}
    for part in found:
        for name, entry in part.model_fields.items():
            assert re.fullmatch(r"[A-Z0-9][\s\S]{8,}\.", entry.description or ""), f"{part.__name__}.{name}"


def choices(part: type[BaseModel], name: str) -> set[Any]:
    return set(get_args(part.model_fields[name].annotation))


def test_choices_are_those_of_the_library() -> None:
    assert choices(PruningFields, "method") == {"none", *CRITERIA}
    assert choices(TrainingFields, "loss") == set(LOSSES) - {"mse"}  # No data set has values as targets.
    assert choices(TrainingFields, "schedule") == set(SCHEDULES)


def test_a_recipe_round_trips() -> None:
    recipe = read_recipe(CONTENT)
    assert read_recipe(recipe.model_dump(mode="json")) == recipe
    assert recipe.data_set() == DATA_SETS["decathlon"](size=(8, 8, 8), validation=0.34)
    assert recipe.data_set({"size": [4, 4, 4]}) == DATA_SETS["decathlon"](size=(4, 4, 4), validation=0.34)


def test_weights_to_score_with_are_drawn_as_asked() -> None:
    arguments = {"width": 4, "levels": 2}
    plain, glorot, again, other = (
        NetworkFields(name="unet3d", arguments=arguments, weights=weights).build(1, 3, seed=seed)  # type: ignore[arg-type]
        for weights, seed in ((None, 0), ("glorot", 0), ("glorot", 0), ("glorot", 1))
    )
    by_hand = UNet3D(1, 3, width=4, levels=2)
    initialize(by_hand, "glorot", 0)
    for name, tensor in glorot.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
        assert torch.equal(tensor, by_hand.state_dict()[name])
    first = "encoder.0.conv1.weight"
    assert not torch.equal(glorot.state_dict()[first], plain.state_dict()[first])
    assert not torch.equal(glorot.state_dict()[first], other.state_dict()[first])


def test_fields_are_changed_from_outside(tmp_path: Path) -> None:
    path = write(tmp_path, CONTENT)
    changes = ["training.rate=1e-5", "data.size=[4, 8, 4]", "network.arguments.width = 8", "pruning.method=snip"]
    recipe = read_recipe(path, changes, seed=7)
    assert (recipe.training.rate, recipe.seed, recipe.pruning.method) == (1e-5, 7, "snip")
    assert recipe.data_set() == DATA_SETS["decathlon"](size=(4, 8, 4), validation=0.34)
    assert recipe.network.arguments == {"width": 8, "levels": 2}
    assert read_recipe(path).seed == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("trainign.rate=1", "trainign: unknown field; did you mean 'training'?"),
        ("training.rte=1", "training.rte: unknown field; did you mean 'rate'?"),
        (
            "pruning.budget.mac=1",
            "pruning.budget.mac: unknown field; did you mean 'macs'",
        ),
        ("data.sise=[8, 8, 8]", "data.sise: unknown field; did you mean 'size'?"),
        ("pruning.data.sise=8", "pruning.data.sise: unknown field; did you mean 'size'?"),
        ("data.name=decatlon", "data.name: no data set is named 'decatlon'; did you mean 'decathlon'?"),
        ("data.size=big", "data.size: got 'big'; expected a valid tuple"),
        ("pruning.budget.macs=2", "pruning.budget: got macs=2.0; expected a fraction to keep in (0, 1]"),
        ("training.seconds=3", "training: expected one of steps, epochs and seconds"),
        ("training.steps=null", "training: expected one of steps, epochs and seconds"),
        ("training.validations=3", "training: expected validate_every or validations, not both"),
        ("training.loss=dice", "training.loss: got 'dice'; expected 'cross-entropy'"),
        ("training.loss=mse", "training.loss: got 'mse'; expected 'cross-entropy' or 'dice-cross-entropy'"),
        (
            "pruning.budget.custom={energy: 0.3}",
            "pruning.budget: a recipe cannot limit custom resources",
        ),
        ("training.rate=fast", "training.rate: got 'fast'; expected a valid number"),
        ("training.rate=0", "training.rate: got 0; expected greater than 0"),
        ("training.batch=0", "training.batch: got 0; expected greater than 0"),
        ("training.epochs=3", "training: expected one of steps, epochs and seconds"),
        ("pruning.method=rapn-f", "pruning.method: got 'rapn-f'; expected 'none'"),
        ("pruning.method=rapn-f", "did you mean 'ranp-f'?"),
        ("pruning.budget=null", "pruning: expected a budget"),
        ("pruning.budget={}", "pruning.budget: it has no limit; give at least one"),
        ("pruning.batches=some", "pruning.batches: got 'some'; expected a valid integer or 'all' or 'stable'"),
        ("seed=-1", "seed: got -1; expected greater than or equal to 0"),
        ("network=unet3d", "network: got 'unet3d'; expected a valid dictionary"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_field(changes: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, CONTENT)
    with pytest.raises(InputError) as found:
        read_recipe(path, [changes])
    assert str(found.value).startswith(str(path))
    assert message in str(found.value)


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recipe\.yaml: training: the field is missing"):
        read_recipe(write(tmp_path, {name: part for name, part in CONTENT.items() if name != "training"}))


def test_a_misspelt_field_comes_before_the_one_that_is_missing_for_it(tmp_path: Path) -> None:
    content = {"trainign" if name == "training" else name: part for name, part in CONTENT.items()}
    with pytest.raises(InputError, match=r"trainign: unknown field; did you mean 'training'"):
        read_recipe(write(tmp_path, content))


@pytest.mark.parametrize("change", ["training.rate", "=3", "about.more=1", "training.=1"])
def test_a_change_that_is_none_is_refused(change: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--set"):
        read_recipe(write(tmp_path, CONTENT), [change])


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "just words", ""])
def test_a_file_that_is_no_recipe_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recipe\.yaml: (got|is not valid YAML)"):
        read_recipe(write(tmp_path, text))
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read"):
        read_recipe(tmp_path / "none.yaml")


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    text = f"about: !!python/object/apply:os.mkdir [{tmp_path / 'touched'}]\n"
    with pytest.raises(InputError, match="is not valid YAML"):
        read_recipe(write(tmp_path, text))
    assert not (tmp_path / "touched").exists()


def test_networks_are_built_in_or_ones_own() -> None:
    own = NetworkFields(name="helpers.user_networks:build", arguments={"width": 3}).build(2, 4, seed=0)
    assert own.conv.weight.shape == (4 * 3, 2, 1, 1, 1)
    assert isinstance(NetworkFields(name="unet3d").build(1, 2, seed=0), UNet3D)
    deep = NetworkFields(name="unet3d-23", arguments={"width": 1}).build(1, 2, seed=0)
    assert sum(isinstance(module, torch.nn.Conv3d) for module in deep.modules()) == 23
    for name, message in (
        ("unet", "did you mean 'unet3d'"),
        ("no_module:build", "No module"),
        ("math:pow", r"missing a required argument: 'x'"),
    ):
        with pytest.raises(InputError, match=message):
            NetworkFields(name=name).build(1, 2, seed=0)


def test_weights_follow_from_the_seed_and_nothing_else() -> None:
    def weight(seed: int) -> torch.Tensor:
        return NetworkFields(name="unet3d", arguments={"width": 2}).build(1, 2, seed=seed).head.weight.detach()

    first = weight(0)
    before = torch.get_rng_state()
    assert torch.equal(first, weight(0))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, weight(1))


def test_a_data_set_of_ones_own_is_an_argument_or_named_by_its_module() -> None:
    class Mine(Decathlon):
        """As the built-in one."""

    content = {**CONTENT, "data": {**CONTENT["data"], "name": "mine"}}
    recipe = read_recipe(content, data_sets={"mine": Mine})
    assert type(recipe.data_set()) is Mine
    assert recipe.data_set({"size": (4, 4, 4)}) == Mine(size=(4, 4, 4), validation=0.34)
    with pytest.raises(InputError, match=r"data\.name: no data set is named 'mine'"):
        read_recipe(content)
    with pytest.raises(InputError, match=r"data\.sise: unknown field; did you mean 'size'"):
        read_recipe(content, ["data.sise=3"], data_sets={"mine": Mine})
    by_module = {**CONTENT["data"], "name": "ranp.experiments.data:Decathlon"}
    assert type(read_recipe({**CONTENT, "data": by_module}).data_set()) is Decathlon


def test_names_of_version_0_1_load_with_a_warning(tmp_path: Path) -> None:
    old = copy.deepcopy(CONTENT)
    old["pruning"] |= {"lam": 3, "data": {"planes": False}}
    old["data"]["planes"] = True
    with pytest.warns(DeprecationWarning, match=r"recipe\.yaml.*resource_weight.*slices"):
        recipe = read_recipe(write(tmp_path, old))
    assert recipe.pruning.resource_weight == 3
    assert recipe.data_set() == Decathlon(size=(8, 8, 8), validation=0.34, slices=True)
    assert recipe.data_set(recipe.pruning.data) == Decathlon(size=(8, 8, 8), validation=0.34)
    with pytest.warns(DeprecationWarning, match="resource_weight"):
        assert read_recipe(CONTENT, ["pruning.lam=4"]).pruning.resource_weight == 4


def test_reading_leaves_plain_values_as_they_are() -> None:
    before = copy.deepcopy(CONTENT)
    read_recipe(CONTENT, ["training.steps=3"], seed=5)
    assert before == CONTENT


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_recipes_that_come_with_the_project(path: Path) -> None:
    recipe = read_recipe(path)
    recipe.data_set()
    recipe.data_set(recipe.pruning.data)
    if recipe.network.name == "unet3d":
        width = recipe.network.arguments.get("width", 64)
        assert recipe.network.build(1, 2, seed=0).head.in_channels == width
    # Whoever reads one learns how long it takes and on what.
    assert re.search(r"(CPU|GPU)", recipe.about)
