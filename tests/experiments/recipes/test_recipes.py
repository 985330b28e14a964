"""Recipes: the files that come with the project, every field, and every way to get one wrong."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from pydantic import BaseModel

from helpers.tiny_runs import CONTENT
from ranp.errors import InputError
from ranp.experiments.data import DATA_SETS
from ranp.experiments.recipes import METHODS, Network, Recipe, build_network, parse_recipe, read_recipe
from ranp.models import UNet3D
from ranp.scoring import CRITERIA
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
    assert {part.__name__ for part in found} == {"Recipe", "Network", "Pruning", "Limits", "Training"}
    for part in found:
        for name, entry in part.model_fields.items():
            assert re.fullmatch(r"[A-Z0-9].{8,}\.", entry.description or ""), f"{part.__name__}.{name}"


def test_methods_are_the_criteria_and_none() -> None:
    assert set(METHODS) == {"none", *CRITERIA}


def test_a_recipe_round_trips() -> None:
    recipe = parse_recipe(CONTENT, "here")
    assert parse_recipe(recipe.model_dump(mode="json"), "there") == recipe
    assert recipe.data_set() == DATA_SETS["decathlon"](size=(8, 8, 8), validation=0.34)
    assert recipe.data_set({"size": [4, 4, 4]}) == DATA_SETS["decathlon"](size=(4, 4, 4), validation=0.34)


def test_weights_to_score_with_are_drawn_as_asked() -> None:
    arguments = {"width": 4, "levels": 2}
    plain, glorot, again, other = (
        build_network(Network(name="unet3d", arguments=arguments, weights=weights), 1, 3, seed=seed)  # type: ignore[arg-type]
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
        ("trainign.rate=1", "trainign: got an unknown field; expected another one; did you mean 'training'?"),
        ("training.rte=1", "training.rte: got an unknown field; expected another one; did you mean 'rate'?"),
        (
            "pruning.budget.mac=1",
            "pruning.budget.mac: got an unknown field; expected another one; did you mean 'macs'",
        ),
        ("data.sise=[8, 8, 8]", "data.sise: got an unknown field; expected another one; did you mean 'size'?"),
        ("pruning.data.sise=8", "pruning.data.sise: got an unknown field; expected another one; did you mean 'size'?"),
        ("data.name=decatlon", "did you mean 'decathlon'?"),
        ("data.size=big", "data.size: got 'big'; expected a valid tuple"),
        ("training.rate=fast", "training.rate: got 'fast'; expected a valid number"),
        ("training.rate=0", "training.rate: got 0; expected greater than 0"),
        ("training.batch=0", "training.batch: got 0; expected greater than 0"),
        ("training.epochs=3", "training: got its fields; expected either steps or epochs"),
        ("pruning.method=rapn-f", "pruning.method: got 'rapn-f'; expected 'none'"),
        ("pruning.method=rapn-f", "did you mean 'ranp-f'?"),
        ("pruning.budget=null", "pruning: got its fields; expected a budget"),
        ("pruning.budget={}", "pruning.budget: got its fields; expected at least one limit"),
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
    with pytest.raises(InputError, match=r"recipe\.yaml: training: got nothing; expected a value"):
        read_recipe(write(tmp_path, {name: part for name, part in CONTENT.items() if name != "training"}))


def test_a_misspelt_field_comes_before_the_one_that_is_missing_for_it(tmp_path: Path) -> None:
    content = {"trainign" if name == "training" else name: part for name, part in CONTENT.items()}
    with pytest.raises(InputError, match=r"trainign: got an unknown field.*did you mean 'training'"):
        read_recipe(write(tmp_path, content))


@pytest.mark.parametrize("change", ["training.rate", "=3", "about.more=1", "training.=1"])
def test_a_change_that_is_none_is_refused(change: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--set"):
        read_recipe(write(tmp_path, CONTENT), [change])


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "just words", ""])
def test_a_file_that_is_no_recipe_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recipe\.yaml: got"):
        read_recipe(write(tmp_path, text))
    with pytest.raises(InputError, match=r"none\.yaml: got"):
        read_recipe(tmp_path / "none.yaml")


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    text = f"about: !!python/object/apply:os.mkdir [{tmp_path / 'touched'}]\n"
    with pytest.raises(InputError, match="no YAML"):
        read_recipe(write(tmp_path, text))
    assert not (tmp_path / "touched").exists()


def test_networks_are_built_in_or_ones_own() -> None:
    own = build_network(Network(name="recipes_networks_of_a_user:build", arguments={"width": 3}), 2, 4, seed=0)
    assert own.conv.weight.shape == (4 * 3, 2, 1, 1, 1)
    assert isinstance(build_network(Network(name="unet3d"), 1, 2, seed=0), UNet3D)
    deep = build_network(Network(name="unet3d-23", arguments={"width": 1}), 1, 2, seed=0)
    assert sum(isinstance(module, torch.nn.Conv3d) for module in deep.modules()) == 23
    for name, message in (
        ("unet", "did you mean 'unet3d'"),
        ("no_module:build", "No module"),
        ("math:pow", r"missing a required argument: 'x'"),
    ):
        with pytest.raises(InputError, match=message):
            build_network(Network(name=name), 1, 2, seed=0)


def test_weights_follow_from_the_seed_and_nothing_else() -> None:
    def weight(seed: int) -> torch.Tensor:
        return build_network(Network(name="unet3d", arguments={"width": 2}), 1, 2, seed=seed).head.weight.detach()

    first = weight(0)
    before = torch.get_rng_state()
    assert torch.equal(first, weight(0))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, weight(1))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_recipes_that_come_with_the_project(path: Path) -> None:
    recipe = read_recipe(path)
    recipe.data_set()
    recipe.data_set(recipe.pruning.data)
    if recipe.network.name == "unet3d":
        width = recipe.network.arguments.get("width", 64)
        assert build_network(recipe.network, 1, 2, seed=0).head.in_channels == width
    # Whoever reads one learns how long it takes and on what.
    assert re.search(r"(CPU|GPU)", recipe.about)
