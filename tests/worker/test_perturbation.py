import pytest
import torch

from orchestrator.worker.perturbation import move_weights


def model(dtype=torch.float32):
    torch.manual_seed(3)
    return torch.nn.Linear(40, 30).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_weight_moves_and_by_no_more_than_a_unit_in_the_last_place_or_the_share(dtype):
    before, after = model(dtype), model(dtype)
    share = 2.0**-23
    move_weights(after, by=share, seed=0)
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        assert (old != new).all()
        unit = torch.nextafter(old.abs(), torch.tensor(torch.inf, dtype=dtype)) - old.abs()
        allowed = torch.maximum(unit.float(), 2 * share * old.abs().float())
        assert ((new.float() - old.float()).abs() <= allowed).all()


def test_about_half_of_them_go_up():
    before, after = model(), model()
    move_weights(after, by=1e-3, seed=0)
    up = (after.weight > before.weight).float().mean()
    assert 0.4 < up < 0.6


def test_the_same_seed_moves_them_alike_and_another_does_not():
    one, same, other = model(), model(), model()
    for moved, seed in ((one, 0), (same, 0), (other, 1)):
        move_weights(moved, by=1e-3, seed=seed)
    assert torch.equal(one.weight, same.weight)
    assert not torch.equal(one.weight, other.weight)


def test_the_random_numbers_of_training_are_not_used_up():
    moved = model()
    state = torch.get_rng_state()
    move_weights(moved, by=1e-3, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
