import pytest

from orchestrator.errors import ExitCode, InfeasibleError
from orchestrator.plan.resources import Machine, Node, resolve_resources, this_machine
from orchestrator.spec.load import load_job
from tests import small_jobs

LAPTOP = Machine(n_cpus=2, n_gpus=0, name="this machine")
SERVER = Machine(n_cpus=16, n_gpus=4, name="the cluster at head:6379")


@pytest.fixture
def resolve(tmp_path):
    def resolve_on(machine, *, workers=1, **section):
        job = small_jobs.write_job(tmp_path, resources={"workers": workers, **section})
        return resolve_resources(job, machine=machine)

    return resolve_on


@pytest.mark.parametrize(
    ("machine", "device", "decided", "gpus"),
    [
        (LAPTOP, "auto", "cpu", 0),
        (LAPTOP, "cpu", "cpu", 0),
        (SERVER, "auto", "cuda", 1),
        (SERVER, "cuda", "cuda", 1),
        (SERVER, "cpu", "cpu", 0),
    ],
)
def test_the_device_is_what_there_is_unless_one_is_asked_for(
    resolve, machine, device, decided, gpus
):
    resources = resolve(machine, workers=2, device=device)
    assert (resources.device, resources.gpus_per_worker) == (decided, gpus)
    assert (resources.workers, resources.cpus_per_worker) == (2, 1)


def test_cuda_without_a_gpu_is_refused(resolve):
    with pytest.raises(InfeasibleError, match="cuda is asked for and this machine has no GPU; set"):
        resolve(LAPTOP, device="cuda")


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_more_workers_than_gpus_are_refused(resolve, device):
    message = r"resources\.workers: 5 workers need 5 GPUs and the cluster at head:6379 has 4; lower"
    with pytest.raises(InfeasibleError, match=message) as error:
        resolve(SERVER, workers=5, device=device)
    assert error.value.exit_code == ExitCode.DOES_NOT_FIT


def test_more_workers_than_cores_are_refused(resolve):
    with pytest.raises(InfeasibleError, match=r"3 workers x 1 CPUs need 3 CPUs and this .* has 2;"):
        resolve(LAPTOP, workers=3)


def test_more_cores_a_worker_than_there_are_are_refused(resolve):
    with pytest.raises(InfeasibleError, match=r"2 workers x 1\.5 CPUs need 3 CPUs .* has 2; lower"):
        resolve(LAPTOP, workers=2, cpus_per_worker=1.5)


def test_what_cannot_be_met_is_told_with_its_place_in_the_file(resolve):
    # small_jobs writes the resources on line 7.
    with pytest.raises(InfeasibleError, match=r"job\.yaml:7:13: resources\.workers: 9 workers x 1"):
        resolve(LAPTOP, workers=9)
    with pytest.raises(
        InfeasibleError, match=r"job\.yaml:7:\d\d: resources\.device: cuda is asked"
    ):
        resolve(LAPTOP, device="cuda")


def test_what_cannot_be_met_is_told_with_the_setting_that_asks_for_it(tmp_path):
    path = small_jobs.write_job(tmp_path).path
    job = load_job(path, overrides=["resources.workers=9"])
    message = r"^--set resources\.workers=9: resources\.workers: 9 workers x 1 CPUs need 9"
    with pytest.raises(InfeasibleError, match=message):
        resolve_resources(job, machine=LAPTOP)


def test_workers_may_share_a_core(resolve):
    resources = resolve(LAPTOP, workers=4, cpus_per_worker=0.5)
    assert (resources.workers, resources.cpus_per_worker) == (4, 0.5)


def test_gpu_workers_need_cores_too(resolve):
    machine = Machine(n_cpus=2, n_gpus=4, name="this machine")
    with pytest.raises(InfeasibleError, match="4 workers x 1 CPUs need 4 CPUs"):
        resolve(machine, workers=4)


@pytest.mark.parametrize("hidden", ["", " ", ","])
def test_hidden_gpus_are_not_counted(hidden):
    assert this_machine(visible_devices=hidden).n_gpus == 0


def test_this_machine_has_a_core_to_run_this_on():
    machine = this_machine(visible_devices=None)
    assert machine.n_cpus >= 1
    assert machine.n_gpus >= 0


TWO_NODES = Machine(
    n_cpus=5,
    n_gpus=2,
    name="the cluster",
    nodes=(Node(n_cpus=2, n_gpus=2), Node(n_cpus=3, n_gpus=0)),
)


@pytest.mark.parametrize(
    ("workers", "section"),
    [
        (3, {"cpus_per_worker": 1.5, "device": "cpu"}),
        (5, {"cpus_per_worker": 1, "device": "cpu"}),
        (50, {"cpus_per_worker": 0.1, "device": "cpu"}),
        (2, {"cpus_per_worker": 1, "device": "cuda"}),
    ],
)
def test_workers_that_find_whole_places_on_nodes_are_taken(resolve, workers, section):
    assert resolve(TWO_NODES, workers=workers, **section).workers == workers


@pytest.mark.parametrize(
    ("workers", "section", "words"),
    [
        (2, {"cpus_per_worker": 2.5, "device": "cpu"}, "2.5 CPUs each are asked for, and the 2 "),
        (2, {"cpus_per_worker": 2, "device": "cuda"}, "2 CPUs and 1 GPU each are asked for, and "),
    ],
)
def test_a_worker_needs_all_it_takes_on_one_node(resolve, workers, section, words):
    with pytest.raises(InfeasibleError) as caught:
        resolve(TWO_NODES, workers=workers, **section)
    assert words in str(caught.value)
    assert "nodes of the cluster have whole places for 1; lower" in str(caught.value)
