"""nnU-Net's own commands, unmodified, train, go on with, validate and predict with pruned networks."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ranp
from ranp import integrations
from ranp.integrations import attached_plan
from ranp.integrations.state_dict import KEY

pytest.importorskip("nnunetv2", reason="needs nnU-Net: pip install 'ranp[nnunet]'")
pytestmark = pytest.mark.filterwarnings("ignore:.*")  # those of nnU-Net and what it imports

TRAINER = """
import os, torch
from ranp.integrations.nnunet import Budget, NnUNetPruning, nnUNetTrainerRanp

class nnUNetTrainerRanpShort(nnUNetTrainerRanp):
    ranp = NnUNetPruning(Budget(macs=0.1), batches=2)

    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = int(os.environ["EPOCHS"])
        self.num_iterations_per_epoch = self.num_val_iterations_per_epoch = 1
"""
NAME = "Dataset901_Blobs"


class Work:
    """Folders and commands of one nnU-Net user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "trainers").mkdir()
        (folder / "trainers" / "short.py").write_text(TRAINER)
        write_data(folder / "raw" / NAME)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("nnUNet_")},
            **{f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")},
            "nnUNet_extTrainer": str(folder / "trainers"),
            "nnUNet_def_n_proc": "1",
            "EPOCHS": "1",
        }

    def run(self, command: str, *arguments: str, **environment: str) -> str:
        program = str(Path(sys.executable).parent / command)
        done = subprocess.run(
            [program, *arguments], env={**self.environment, **environment}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def train(self, configuration: str, fold: int, *flags: str, plans: str = "nnUNetPlans", **settings: str) -> str:
        short = ("-tr", "nnUNetTrainerRanpShort", "-p", plans, "-device", "cpu")
        return self.run(
            "nnUNetv2_train", "901", configuration, str(fold), *short, *flags, nnUNet_n_proc_DA="0", **settings
        )

    def results(self, configuration: str, plans: str = "nnUNetPlans") -> Path:
        return self.folder / "results" / NAME / f"nnUNetTrainerRanpShort__{plans}__{configuration}"


def write_data(folder: Path) -> None:
    """Ten images of a bright ball, whose place differs."""
    sitk: Any = pytest.importorskip("SimpleITK")
    draw = np.random.default_rng(0)
    axes = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"))
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    for number in range(11):
        label = ((axes - draw.integers(8, 16, (3, 1, 1, 1))) ** 2).sum(0) < 25
        image = (draw.normal(size=label.shape) + 3 * label).astype(np.float32)
        place = "imagesTr" if number < 10 else "imagesTs"
        sitk.WriteImage(sitk.GetImageFromArray(image), str(folder / place / f"ball_{number:02}_0000.nii.gz"))
        if number < 10:
            found = sitk.GetImageFromArray(label.astype(np.uint8))
            sitk.WriteImage(found, str(folder / "labelsTr" / f"ball_{number:02}.nii.gz"))
    facts = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "ball": 1}, "numTraining": 10}
    (folder / "dataset.json").write_text(json.dumps({**facts, "file_ending": ".nii.gz"}))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """Two folds trained in 3D, the second with settings of its own."""
    made = Work(tmp_path_factory.mktemp("nnunet"))
    made.run("nnUNetv2_plan_and_preprocess", "-d", "901", "-np", "1", "-npfp", "1", "-c", "2d", "3d_fullres")
    made.train("3d_fullres", 0)
    made.train("3d_fullres", 1, nnUNet_ranp_macs="0.3", nnUNet_ranp_criterion="ranp-m")
    return made


def plan_of(fold: Path) -> ranp.Plan:
    return ranp.Plan.from_json((fold / "ranp_plan.json").read_text())


def checkpoint(fold: Path, name: str = "checkpoint_final.pth") -> dict[str, Any]:
    found: dict[str, Any] = torch.load(fold / name, weights_only=False)
    return found


def predictor(folder: Path, *folds: int) -> Any:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    made = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    made.initialize_from_trained_model_folder(str(folder), folds)
    return made


@pytest.fixture
def user(work: Work, monkeypatch: pytest.MonkeyPatch) -> Work:
    """The same user within this process."""
    for name, value in work.environment.items():
        monkeypatch.setenv(name, value)
    return work


def test_it_prunes_as_asked(work: Work) -> None:
    plans = [plan_of(work.results("3d_fullres") / f"fold_{fold}") for fold in (0, 1)]
    assert [(plan.criterion, plan.budget.macs) for plan in plans] == [("ranp-f", 0.1), ("ranp-m", 0.3)]
    for plan, limit in zip(plans, (0.1, 0.3), strict=True):
        assert plan.cost.macs <= limit * plan.full_cost.macs
    assert plans[0].widths != plans[1].widths


def test_training_has_changed_every_weight_and_its_optimizer_knows_them(work: Work) -> None:
    stored = checkpoint(work.results("3d_fullres") / "fold_0")
    momenta = [state["momentum_buffer"].shape for state in stored["optimizer_state"]["state"].values()]
    shapes = {tuple(value.shape) for name, value in stored["network_weights"].items() if name != KEY}
    assert {tuple(shape) for shape in momenta} <= shapes
    assert len(momenta) >= 20


def test_the_predictor_computes_what_the_pruned_network_computes(user: Work) -> None:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    folder = user.results("3d_fullres")
    plans = PlansManager(json.loads((folder / "plans.json").read_text()))
    configuration = plans.get_configuration("3d_fullres")
    image = torch.randn(1, 24, 24, 24)
    logits = []
    for fold in (0, 1):
        # nnU-Net's own network, pruned by ranp alone.
        full = nnUNetTrainer.build_network_architecture(plans, configuration, 1, 2, False)
        small = ranp.apply(full, plan_of(folder / f"fold_{fold}")).eval()
        weights = checkpoint(folder / f"fold_{fold}")["network_weights"]
        small.load_state_dict({name: value for name, value in weights.items() if name != KEY})
        loaded = predictor(folder, fold)
        assert attached_plan(loaded.network) == plan_of(folder / f"fold_{fold}")
        patch = torch.randn(1, 1, *configuration.patch_size)
        with torch.no_grad():
            torch.testing.assert_close(loaded.network.eval()(patch), small(patch), rtol=0, atol=0)
        logits.append(loaded.predict_logits_from_preprocessed_data(image))
    together = predictor(folder, 0, 1).predict_logits_from_preprocessed_data(image)
    torch.testing.assert_close(together, (logits[0] + logits[1]) / 2)
    assert not torch.allclose(*logits)


def test_predict(work: Work, tmp_path: Path) -> None:
    source = work.folder / "raw" / NAME / "imagesTs"
    model = ("-d", "901", "-c", "3d_fullres", "-f", "0", "1", "-tr", "nnUNetTrainerRanpShort")
    quick = ("-device", "cpu", "-npp", "1", "-nps", "1", "--disable_tta")
    work.run("nnUNetv2_predict", "-i", str(source), "-o", str(tmp_path), *model, *quick)
    sitk: Any = pytest.importorskip("SimpleITK")
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "ball_10.nii.gz")))
    assert found.shape == (24, 24, 24)
    assert set(np.unique(found)) <= {0, 1}


def test_going_on_and_validating(work: Work) -> None:
    fold = work.results("3d_fullres") / "fold_0"
    before = checkpoint(fold)
    said = work.train("3d_fullres", 0, "--c", EPOCHS="2", nnUNet_ranp_macs="0.9")
    assert "the network stays as the checkpoint says (ranp-f, " in said
    after = checkpoint(fold)
    assert (before["current_epoch"], after["current_epoch"]) == (1, 2)
    weights = before["network_weights"], after["network_weights"]
    assert torch.equal(weights[0][KEY], weights[1][KEY])
    assert not torch.equal(*(found["encoder.stages.0.0.convs.0.conv.weight"] for found in weights))
    (fold / "validation" / "summary.json").unlink()
    work.train("3d_fullres", 0, "--val", EPOCHS="2")
    assert (fold / "validation" / "summary.json").is_file()


@pytest.mark.parametrize("plans", ["nnUNetPlans", "nnUNetResEncUNetMPlans"])
def test_two_dimensions_and_residual_encoders(user: Work, plans: str) -> None:
    if plans != "nnUNetPlans":
        planner = ("-pl", "nnUNetPlannerResEncM", "-np", "1", "-c", "2d", "--no_pp")
        user.run("nnUNetv2_plan_and_preprocess", "-d", "901", *planner)
    user.train("2d", 0, plans=plans)
    folder = user.results("2d", plans)
    plan = plan_of(folder / "fold_0")
    assert plan.cost.macs <= 0.1 * plan.full_cost.macs
    assert attached_plan(predictor(folder, 0).network) == plan


def test_a_misspelt_setting_stops_training(work: Work) -> None:
    with pytest.raises(AssertionError, match="did you mean 'macs'"):
        work.train("3d_fullres", 2, nnUNet_ranp_mac="0.3")


def test_nnunet_finds_the_trainer_where_ranp_says(user: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    monkeypatch.setenv("nnUNet_extTrainer", str(Path(integrations.__file__).parent / "nnunet_trainers"))
    from ranp.integrations.nnunet import nnUNetTrainerRanp

    assert recursive_find_trainer_class_by_name("nnUNetTrainerRanp") is nnUNetTrainerRanp
