import subprocess
import sys
from pathlib import Path

import pytest
import torch

from orchestrator.data.build import build_data
from orchestrator.spec.data import DigitsData

# The data set's own description: 1797 instances; class counts as in scikit-learn's load_digits.
CLASS_COUNTS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)


def digits(**values):
    return build_data(DigitsData(source="digits", **values), folder=Path())


def everything(samples):
    return samples.batch(range(len(samples)))


def test_no_image_is_lost_or_doubled_by_the_split():
    data = digits(image_size=8)
    labels = torch.cat([everything(data.train)["labels"], everything(data.eval)["labels"]])
    assert tuple(torch.bincount(labels).tolist()) == CLASS_COUNTS
    images = torch.cat(
        [everything(data.train)["pixel_values"], everything(data.eval)["pixel_values"]]
    )
    # No two of the 1797 images are equal, so a doubled one would show.
    assert len(torch.unique(images.flatten(1), dim=0)) == 1797


def test_the_first_digit_of_the_file_is_a_zero_with_its_known_first_row():
    data = digits(image_size=8)
    first = data.train.batch([0])
    assert first["labels"].tolist() == [0]
    # load_digits().images[0][0] == [0, 0, 5, 13, 9, 1, 0, 0], before standardising.
    row = first["pixel_values"][0, 0, 0]
    step = (row[3] - row[0]) / 13
    assert torch.allclose(
        (row - row[0]) / step, torch.tensor([0, 0, 5, 13, 9, 1, 0, 0.0]), atol=1e-4
    )


def test_each_class_is_held_out_in_the_same_share():
    counts = torch.bincount(everything(digits(eval_fraction=0.5).eval)["labels"])
    assert tuple(counts.tolist()) == tuple(count // 2 for count in CLASS_COUNTS)


def test_a_tiny_share_still_leaves_one_image_of_each_class_to_evaluate():
    assert len(digits(eval_fraction=0.0001).eval) == 10


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (32, 1), (45, 3)])
def test_batches_have_the_shape_that_was_asked_for(size, channels):
    batch = digits(image_size=size, channels=channels).train.batch([3, 1, 1])
    assert batch["pixel_values"].shape == (3, channels, size, size)
    assert batch["pixel_values"].dtype == torch.float32
    assert batch["labels"].dtype == torch.int64
    assert torch.equal(batch["pixel_values"][1], batch["pixel_values"][2])


def test_three_channels_are_three_times_the_same():
    images = digits(channels=3).train.batch([0, 5])["pixel_values"]
    assert torch.equal(images[:, 0], images[:, 2])


def test_training_pixels_are_standardised():
    pixels = everything(digits(image_size=8).train)["pixel_values"]
    assert pixels.mean().item() == pytest.approx(0, abs=1e-5)
    assert pixels.std().item() == pytest.approx(1, abs=1e-3)


def test_the_split_is_the_same_every_time():
    first, second = digits().eval, digits().eval
    assert torch.equal(everything(first)["pixel_values"], everything(second)["pixel_values"])


def test_scikit_learn_itself_is_not_imported():
    code = (
        "import sys; from pathlib import Path; from orchestrator.data.build import build_data; "
        "from orchestrator.spec.data import DigitsData; "
        "build_data(DigitsData(source='digits'), folder=Path()); "
        "sys.exit('sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
