"""What holds for every data set, tested on small generated folders (MNI152 comes with nilearn)."""

import pickle
import sys
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch.utils.data import DataLoader

from ranp.errors import ArtifactError, DataError, InputError, RanpError
from ranp.experiments.data import DATA_SETS, DataSet, data_set

# Every data set with small settings.
SMALL: dict[str, DataSet[Any]] = {
    "brats18": DATA_SETS["brats18"](crop=(16, 16, 16), validation=0.5),
    "decathlon": DATA_SETS["decathlon"](size=(16, 16, 16)),
    "mni152": DATA_SETS["mni152"](patch=8, training_patches=12, validation_patches=4),
    "shapenet": DATA_SETS["shapenet"](size=16),
    "ucf101": DATA_SETS["ucf101"](size=16, frames=4, clips=3),
}
COUNT = 4

with_files = pytest.mark.parametrize("name", sorted(SMALL.keys() - {"mni152"}), indirect=True)

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(scope="module", params=sorted(SMALL))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / name
    if name != "mni152":
        SMALL[name].generate(folder, count=COUNT, seed=0)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def largest(folder: Path) -> Path:
    """A file that certainly belongs to a sample."""
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: (path.stat().st_size, path))


def test_all_data_sets_are_tested_here() -> None:
    assert set(SMALL) == set(DATA_SETS)


def test_settings_are_plain_frozen_data(name: str) -> None:
    data = SMALL[name]
    assert all(field.init for field in fields(data))  # type: ignore[arg-type]
    assert DATA_SETS[name](**{field.name: getattr(data, field.name) for field in fields(data)}) == data  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        data.new = 1  # type: ignore[attr-defined]


def test_settings_are_validated_from_a_recipes_values(name: str) -> None:
    read = TypeAdapter(DATA_SETS[name]).validate_python
    plain = {field.name: getattr(SMALL[name], field.name) for field in fields(SMALL[name])}  # type: ignore[arg-type]
    as_in_yaml = {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}
    assert read(as_in_yaml) == SMALL[name]
    with pytest.raises(ValidationError, match="Unexpected keyword"):
        read({"sise": 3})


def test_a_generated_folder_has_no_problem(name: str, folder: Path) -> None:
    assert SMALL[name].check(folder) == []


def test_loader_workers_return_batches_as_the_bundle_describes_them(name: str, folder: Path) -> None:
    bundle = SMALL[name].open(folder)
    inputs, targets = next(iter(DataLoader(bundle.train, batch_size=2, num_workers=2)))
    assert inputs.shape == (2, *bundle.input_shape)
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
    assert targets.shape in ((2,), (2, *bundle.input_shape[1:]))
    assert bool(torch.isfinite(inputs).all())
    assert inputs.std() > 0
    known = targets[targets != bundle.ignore_index]
    assert len(known) > 0
    assert int(known.min()) >= 0
    assert int(known.max()) < bundle.classes
    assert bundle.in_channels == bundle.input_shape[0]


def test_outputs_of_predict_fit_the_metric(name: str, folder: Path) -> None:
    bundle = SMALL[name].open(folder)

    def model(inputs: torch.Tensor) -> torch.Tensor:
        """As the networks do it: a class of a clip, or of every voxel."""
        scores = torch.zeros(len(inputs), bundle.classes, *inputs.shape[2:])
        scores[:, 1] = 1
        return scores.mean((2, 3, 4)) if bundle.primary_metric == "top1" else scores

    metric = bundle.metric()
    loader = DataLoader(bundle.evaluation, batch_size=bundle.evaluation_batch or 2, num_workers=2)
    for inputs, targets in loader:
        metric.update(bundle.predict(model, inputs), targets)
    values = {name: float(value) for name, value in metric.compute().items()}
    assert next(iter(values)) == bundle.primary_metric
    assert all(0 <= value <= 1 for value in values.values())
    assert 0 <= values[bundle.primary_metric] < 1


def test_a_bundle_can_be_sent_to_another_process(name: str, folder: Path) -> None:
    """Where workers are not forked, they get a pickled copy."""
    bundle = SMALL[name].open(folder)
    copy = pickle.loads(pickle.dumps(bundle))
    assert all(torch.equal(*pair) for pair in zip(copy.evaluation[0], bundle.evaluation[0], strict=True))
    assert copy.train[0][0].shape == bundle.input_shape
    assert type(copy.metric()) is type(bundle.metric())
    assert copy.predict(torch.Tensor.clone, bundle.evaluation[0][0][None]).shape[0] == 1


def test_training_samples_vary_and_repeat_with_the_seed(name: str, folder: Path) -> None:
    bundle = SMALL[name].open(folder)

    def samples(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.stack([bundle.train[0][0] for _ in range(4)])

    first, again = samples(0), samples(0)
    assert torch.equal(first, again)
    assert len(first.flatten(1).unique(dim=0)) > 1
    assert torch.equal(bundle.evaluation[0][0], bundle.evaluation[0][0])


def test_workers_do_not_repeat_each_other(name: str, folder: Path) -> None:
    """Copies of a random state would give both workers the same draws of the same sample."""
    bundle = SMALL[name].open(folder)
    same = torch.utils.data.Subset(bundle.train, [0] * 12)
    samples = [inputs for inputs, _ in DataLoader(same, batch_size=None, num_workers=2)]
    assert any(not torch.equal(*pair) for pair in zip(samples[::2], samples[1::2], strict=True))


@with_files
def test_the_seed_decides_what_is_generated(name: str, folder: Path, tmp_path: Path) -> None:
    opened = {}
    for label, seed in (("again", 0), ("other", 1)):
        SMALL[name].generate(tmp_path / label, count=COUNT, seed=seed)
        opened[label] = SMALL[name].open(tmp_path / label).evaluation[0][0]
    reference = SMALL[name].open(folder).evaluation[0][0]
    assert torch.equal(opened["again"], reference)
    assert not torch.equal(opened["other"], reference)


@with_files
def test_an_existing_folder_is_left_alone(name: str, folder: Path) -> None:
    before = contents(folder)
    with pytest.raises(ArtifactError, match="exists already"):
        SMALL[name].generate(folder, count=COUNT, seed=1)
    assert contents(folder) == before


@with_files
def test_what_fails_half_way_leaves_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(ArtifactError, match="no space left"):
        SMALL[name].generate(tmp_path / "new", count=COUNT, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_sizes_of_nothing_are_refused(name: str, folder: Path) -> None:
    for setting in {"size", "crop", "frames", "clips", "patch", "training_patches"} & {
        field.name for field in fields(SMALL[name])
    }:  # type: ignore[arg-type]
        value = getattr(SMALL[name], setting)
        wrong = replace(SMALL[name], **{setting: 0 if isinstance(value, int) else (*value[:-1], 0)})  # type: ignore[type-var]
        with pytest.raises(InputError, match=rf"{setting}: must be at least 1, but is .*0"):
            wrong.open(folder)


@with_files
def test_a_wrong_folder_is_named(name: str, tmp_path: Path) -> None:
    problems = SMALL[name].check(tmp_path / "nowhere")
    assert problems
    assert all("nowhere" in str(problem.path) for problem in problems)
    with pytest.raises(DataError, match="nowhere"):
        SMALL[name].open(tmp_path / "nowhere")
    with pytest.raises(DataError, match="nowhere"):
        SMALL[name].open(tmp_path / "nowhere", skip_damaged=True)


@with_files
def test_a_damaged_file_is_named_in_the_main_process(name: str, tmp_path: Path) -> None:
    data, folder = SMALL[name], tmp_path / "new"
    data.generate(folder, count=COUNT, seed=0)
    path = largest(folder)
    path.write_bytes(path.read_bytes()[:100] + b"\xff")
    (problem,) = data.check(folder)
    assert problem.path == path

    def read_all() -> None:
        bundle = data.open(folder)
        for part in (bundle.train, bundle.evaluation):
            for _ in DataLoader(part, batch_size=None, num_workers=1):
                pass

    with pytest.raises(DataError, match=path.name):
        read_all()
    assert data.open(folder, skip_damaged=True).skipped == (problem,)


@pytest.mark.parametrize("package", ["torchmetrics"])
def test_a_missing_package_is_named_with_the_way_to_get_it(
    name: str, folder: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RanpError, match=rf"the package {package} is not installed.*pip install 'ranp\[train\]'"):
        SMALL[name].open(folder)


def test_an_unknown_data_set_is_named_with_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"no data set is named 'decathalon'; did you mean 'decathlon'.*file\.py:Class"
    ):
        data_set("decathalon")
    with pytest.raises(InputError, match="did you mean 'mine'"):
        data_set("mien", {"mine": DATA_SETS["decathlon"]})


def test_a_data_set_can_be_passed_by_name(tmp_path: Path) -> None:
    file = tmp_path / "own_data_set.py"
    file.write_text(
        "from ranp.experiments.data import DATA_SETS\n\nclass Own(DATA_SETS['decathlon']): ...\nOther = int\n"
    )
    own = data_set(f"{file}:Own")
    assert (own.__name__, own.__bases__) == ("Own", (DATA_SETS["decathlon"],))
    assert data_set("decathlon", {"decathlon": own}) is own
    assert data_set("mine", {"mine": own}) is own
    with pytest.raises(InputError, match=r"own_data_set\.py:Other: is not a subclass of .*DataSet"):
        data_set(f"{file}:Other")
    with pytest.raises(InputError, match="Nothing"):
        data_set(f"{file}:Nothing")


def test_the_template_is_not_generated(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="come with nilearn"):
        SMALL["mni152"].generate(tmp_path / "new")
