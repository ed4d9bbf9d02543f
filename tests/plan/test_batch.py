import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plan.batch import BatchError, resolve_batch
from orchestrator.spec.sections import TrainingSection


def sizes(total=None, micro=None, accumulation=None):
    return TrainingSection(
        steps=1,
        global_batch_size=total,
        micro_batch_size=micro,
        gradient_accumulation_steps=accumulation,
    )


@pytest.mark.parametrize(
    ("given_sizes", "workers", "expected"),
    [
        # total, micro, accumulation; by hand: total = micro x accumulation x workers
        ((64, 8, 4), 2, (64, 8, 4)),
        ((64, 8, None), 2, (64, 8, 4)),
        ((64, None, 4), 2, (64, 8, 4)),
        ((None, 8, 4), 2, (64, 8, 4)),
        ((64, None, None), 2, (64, 32, 1)),
        ((None, 8, None), 2, (16, 8, 1)),
        ((1, 1, 1), 1, (1, 1, 1)),
        ((6, None, None), 3, (6, 2, 1)),
        ((96, 4, None), 3, (96, 4, 8)),
    ],
)
def test_the_missing_sizes_follow_from_the_given_ones(given_sizes, workers, expected):
    batch = resolve_batch(sizes(*given_sizes), workers=workers)
    assert (batch.global_batch_size, batch.micro_batch_size, batch.accumulation_steps) == expected
    assert batch.workers == workers


@pytest.mark.parametrize(
    ("given_sizes", "workers", "message"),
    [
        ((60, 8, None), 2, r"60 does not divide into micro_batch_size 8 x 2 workers .* 48 and 64$"),
        ((10, None, 4), 2, r"10 does not divide into 8 parts for micro_batch_size .* 8 and 16$"),
        ((7, None, None), 2, r"7 does not divide into 2 parts .* 6 and 8$"),
        ((4, 8, None), 2, r"4 does not divide into micro_batch_size 8 x 2 .* 16 and 32$"),
        ((1, None, None), 2, r"1 does not divide into 2 parts .* 2 and 4$"),
        ((64, 8, 3), 2, r"64 is not 8 x 3 x 2 = 48 .*leave gradient_accumulation_steps out"),
        ((64, 8, 4), 3, r"64 is not 8 x 4 x 3 = 96"),
        ((None, None, 4), 2, r"missing; give it, or micro_batch_size"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_a_way_out(given_sizes, workers, message):
    with pytest.raises(BatchError, match=message) as error:
        resolve_batch(sizes(*given_sizes), workers=workers)
    assert error.value.key == "training.global_batch_size"
    assert str(error.value).startswith("training.global_batch_size: ")


def test_every_message_says_the_formula():
    with pytest.raises(BatchError, match="= micro_batch_size x gradient_accumulation_steps x wor"):
        resolve_batch(sizes(64, 8, 3), workers=2)
    with pytest.raises(BatchError, match="= micro_batch_size x gradient_accumulation_steps x wor"):
        resolve_batch(sizes(60, 8), workers=2)


small = st.integers(min_value=1, max_value=12)


@given(micro=small, accumulation=small, workers=small)
def test_any_two_sizes_give_back_the_third(micro, accumulation, workers):
    total = micro * accumulation * workers
    whole = (total, micro, accumulation)
    for left_out in itertools.product((True, False), repeat=3):
        given_sizes = [None if out else size for out, size in zip(left_out, whole, strict=True)]
        if sum(left_out) > 1:
            continue
        batch = resolve_batch(sizes(*given_sizes), workers=workers)
        assert (batch.global_batch_size, batch.micro_batch_size) == (total, micro)
        assert batch.accumulation_steps == accumulation


@given(total=st.integers(min_value=1, max_value=200), micro=small, workers=small)
def test_the_sizes_an_error_proposes_are_accepted_and_enclose_the_one_refused(
    total, micro, workers
):
    try:
        resolve_batch(sizes(total, micro), workers=workers)
    except BatchError as error:
        lower, upper = (int(n) for n in error.message.rpartition("are ")[2].split(" and "))
        assert lower < upper
        assert total < upper
        assert lower < total or lower == micro * workers
        for proposed in (lower, upper):
            assert resolve_batch(sizes(proposed, micro), workers=workers)
    else:
        assert total % (micro * workers) == 0
