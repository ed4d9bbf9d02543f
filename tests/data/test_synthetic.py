from pathlib import Path

import pytest
import torch

from orchestrator.data.build import build_data
from orchestrator.spec.data import SyntheticData


def synthetic(**values):
    return build_data(SyntheticData(source="synthetic", **values), folder=Path())


def test_images_have_the_shape_and_classes_that_were_asked_for():
    data = synthetic(n_samples=500, n_eval_samples=7, image_size=6, channels=2, num_classes=3)
    batch = data.train.batch(range(500))
    assert batch["pixel_values"].shape == (500, 2, 6, 6)
    assert set(batch["labels"].tolist()) == {0, 1, 2}
    assert len(data.eval) == 7


def test_tokens_stay_inside_the_vocabulary():
    data = synthetic(kind="tokens", n_samples=64, sequence_length=9, vocab_size=5)
    batch = data.train.batch(range(64))
    assert batch["input_ids"].shape == (64, 9)
    assert set(batch["input_ids"].flatten().tolist()) == {0, 1, 2, 3, 4}
    assert torch.equal(batch["input_ids"], batch["labels"])


@pytest.mark.parametrize("kind", ["images", "tokens"])
def test_the_same_seed_gives_the_same_samples_and_another_seed_others(kind):
    key = "pixel_values" if kind == "images" else "input_ids"
    first, same, other = (
        synthetic(kind=kind, n_samples=8, seed=seed).train.batch(range(8))[key]
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", ["images", "tokens"])
def test_making_samples_leaves_the_global_generator_alone(kind):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    synthetic(kind=kind, n_samples=8)
    assert torch.equal(torch.get_rng_state(), state)


def test_reading_a_sample_twice_gives_the_same_image():
    samples = synthetic(n_samples=8).train
    assert torch.equal(
        samples.batch([5, 5])["pixel_values"][1], samples.batch([5])["pixel_values"][0]
    )


def test_the_class_of_an_image_can_be_learnt_from_its_pixels():
    data = synthetic(n_samples=400, n_eval_samples=100, image_size=8, num_classes=4)
    train, held_out = data.train.batch(range(400)), data.eval.batch(range(100))
    means = torch.stack(
        [train["pixel_values"][train["labels"] == label].mean(dim=0) for label in range(4)]
    )
    distances = torch.cdist(held_out["pixel_values"].flatten(1), means.flatten(1))
    assert (distances.argmin(dim=1) == held_out["labels"]).float().mean() > 0.9


def test_nine_tokens_in_ten_follow_from_the_one_before():
    ids = synthetic(kind="tokens", n_samples=200, vocab_size=50).train.batch(range(200))
    before, after = ids["input_ids"][:, :-1].flatten(), ids["input_ids"][:, 1:].flatten()
    most_common = {
        token: after[before == token].mode().values.item() for token in before.unique().tolist()
    }
    right = [most_common[b] == a for b, a in zip(before.tolist(), after.tolist(), strict=True)]
    assert sum(right) / len(right) == pytest.approx(0.9, abs=0.02)
