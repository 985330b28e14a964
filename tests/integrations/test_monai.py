"""MONAI's batches are dictionaries of its own kind of tensor: they score as plain ones do."""

import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch import Tensor, nn

import ranp
from ranp.integrations import attach_plan, shrink_in_place

LOSS = DiceCELoss(to_onehot_y=True, softmax=True)
BUDGET = ranp.Budget(macs=0.2)


def unet() -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = UNet(3, 1, 2, channels=(8, 16, 32), strides=(2, 2), num_res_units=2)
    return network


def test_batches_of_dictionaries_score_as_pairs_do() -> None:
    pairs = [(torch.randn(1, 16, 16, 16), torch.randint(0, 2, (1, 16, 16, 16)).float()) for _ in range(4)]
    loader = DataLoader(Dataset([{"image": MetaTensor(x), "label": MetaTensor(y)} for x, y in pairs]), batch_size=2)
    assert isinstance(next(iter(loader))["image"], MetaTensor)

    def step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        loss: Tensor = LOSS(model(batch["image"]), batch["label"])
        return loss

    example = torch.zeros(1, 1, 16, 16, 16)
    found = ranp.prune(unet(), example, loader, budget=BUDGET, step=step)
    plain = [tuple(torch.stack(part) for part in zip(*pairs[at : at + 2], strict=True)) for at in (0, 2)]
    expected = ranp.prune(unet(), example, plain, LOSS, budget=BUDGET)
    assert found.plan == expected.plan
    assert found.plan.cost.macs <= 0.2 * found.plan.full_cost.macs

    model = shrink_in_place(attach_plan(unet()), found.model, found.plan)
    fresh = attach_plan(unet())
    fresh.load_state_dict(model.state_dict())
    x = plain[0][0]
    with torch.no_grad():
        assert torch.equal(fresh.eval()(x), found.model.eval()(x))
