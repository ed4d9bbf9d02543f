import pytest

from orchestrator.errors import InfeasibleError, SpecError
from orchestrator.plan.launch_plan import make_plan
from orchestrator.plan.resources import Machine
from orchestrator.plan.what_if import ANY_CPU_MACHINE, ANY_MACHINE, imagined

# The small job has 2 workers, and 16 samples a step of 4 at once.


def batch_of(job):
    batch = make_plan(job, machine=ANY_CPU_MACHINE).batch
    return batch.global_batch_size, batch.micro_batch_size, batch.accumulation_steps, batch.workers


def test_a_job_of_which_nothing_is_imagined_stays_what_it_is(write_job):
    job = write_job()
    same, notes = imagined(job)
    assert same.spec == job.spec
    assert notes == ()


@pytest.mark.parametrize(("workers", "accumulation"), [(1, 4), (2, 2), (4, 1)])
def test_the_global_batch_stays_where_the_workers_can_share_it(write_job, workers, accumulation):
    job, notes = imagined(write_job(), workers=workers)
    assert batch_of(job) == (16, 4, accumulation, workers)
    assert notes == ()


def test_where_they_cannot_it_grows_with_them_and_that_is_told(write_job):
    job, notes = imagined(write_job(), workers=64)
    # What each rank does stays: 2 micro-batches of 4.
    assert batch_of(job) == (4 * 2 * 64, 4, 2, 64)
    assert notes == (
        "the global batch is 512 instead of 16: 4 micro x 2 accumulation x 64 workers",
    )


def test_an_uneven_number_of_workers_shrinks_it_as_well(write_job):
    job, notes = imagined(write_job(training={"global_batch_size": 64}), workers=3)
    assert batch_of(job) == (4 * 8 * 3, 4, 8, 3)
    assert len(notes) == 1


def test_a_whole_batch_at_once_is_cut_smaller(write_job):
    job, notes = imagined(write_job(training={"micro_batch_size": None}), workers=8)
    assert batch_of(job) == (16, 2, 1, 8)
    assert notes == ()


def test_another_device_changes_the_device_alone(write_job):
    before = write_job(zero={"stage": 2})
    job, notes = imagined(before, device="cuda")
    assert job.spec.resources.device == "cuda"
    assert job.spec.resources.workers == 2
    assert job.spec.training == before.spec.training
    assert job.spec.zero == before.spec.zero
    assert notes == ()


def test_the_job_that_was_read_is_left_as_it_was(write_job):
    job = write_job()
    imagined(job, workers=64, device="cuda")
    assert job.spec == write_job().spec


def test_what_the_file_compares_is_not_forecast_along(write_job):
    job, _ = imagined(write_job(compare={"axes": {"zero.stage": [0, 1]}}), workers=4)
    assert job.spec.compare is None


def test_a_batch_that_is_wrong_already_is_told_at_its_place_in_the_file(write_job):
    job = write_job(training={"global_batch_size": 10})
    with pytest.raises(SpecError, match=r"job\.yaml:4:\d+: training\.global_batch_size: 10 does"):
        imagined(job, workers=64)


def test_an_imagined_machine_has_room_for_any_number_of_ranks(write_job):
    job, _ = imagined(write_job(), workers=100_000, device="cuda")
    plan = make_plan(job, machine=ANY_MACHINE)
    assert (plan.resources.workers, plan.resources.device) == (100_000, "cuda")
    small = Machine(n_cpus=8, n_gpus=8, name="this machine")
    with pytest.raises(InfeasibleError, match="100000 workers need 100000 GPUs"):
        make_plan(job, machine=small)


def test_a_machine_without_gpus_runs_on_its_cpus(write_job):
    job, _ = imagined(write_job(), workers=1000)
    assert make_plan(job, machine=ANY_CPU_MACHINE).resources.device == "cpu"
    assert make_plan(job, machine=ANY_MACHINE).resources.device == "cuda"


def test_mistakes_in_an_imagined_job_are_still_told_at_their_place(write_job):
    job, _ = imagined(write_job(training={"precision": "fp16"}), workers=4, device="cpu")
    with pytest.raises(SpecError, match=r"job\.yaml:4:\d+: training\.precision: fp16 needs a GPU"):
        make_plan(job, machine=ANY_CPU_MACHINE)
