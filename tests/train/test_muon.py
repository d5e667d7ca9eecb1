import copy

import torch

from potstill.muon import MuonAdamW


def tiny() -> torch.nn.Module:
    torch.manual_seed(0)
    model = torch.nn.Module()
    model.embed = torch.nn.Embedding(11, 8)
    model.up = torch.nn.Linear(8, 16, bias=False)
    model.norm = torch.nn.LayerNorm(16)
    return model


def steps(model: torch.nn.Module, optimizer: MuonAdamW, count: int) -> list[float]:
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(count):
        ids = torch.randint(0, 11, (32,), generator=generator)
        loss = (model.norm(model.up(model.embed(ids))).sum(-1) - ids).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_every_parameter_is_in_one_group_and_the_loss_falls():
    model = tiny()
    optimizer = MuonAdamW(model, 1e-2, 0.0, 0.99)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    losses = steps(model, optimizer, 60)
    assert losses[-1] < losses[0] / 2


def test_a_scheduler_drives_both_parts():
    optimizer = MuonAdamW(tiny(), 1e-2, 0.0, 0.99)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    scheduler.step()
    assert {group["lr"] for part in optimizer.parts for group in part.param_groups} == {5e-3}


def test_a_loaded_state_goes_on_with_the_same_losses():
    model = tiny()
    optimizer = MuonAdamW(model, 1e-2, 0.0, 0.99)
    steps(model, optimizer, 5)
    other = copy.deepcopy(model)
    resumed = MuonAdamW(other, 1e-2, 0.0, 0.99)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert steps(other, resumed, 5) == steps(model, optimizer, 5)
    assert [id(g) for g in resumed.param_groups] == [id(g) for part in resumed.parts for g in part.param_groups]
