import pytest

from orchestrator.errors import ExitCode, InfeasibleError
from orchestrator.plan.resources import Machine, resolve_resources, this_machine
from orchestrator.spec.sections import ResourcesSection

LAPTOP = Machine(n_cpus=2, n_gpus=0, name="this machine")
SERVER = Machine(n_cpus=16, n_gpus=4, name="the cluster at head:6379")


def resolve(machine, **section):
    return resolve_resources(ResourcesSection(**section), machine=machine)


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
def test_the_device_is_what_there_is_unless_one_is_asked_for(machine, device, decided, gpus):
    resources = resolve(machine, workers=2, device=device)
    assert (resources.device, resources.gpus_per_worker) == (decided, gpus)
    assert (resources.workers, resources.cpus_per_worker) == (2, 1)


def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(InfeasibleError, match="cuda is asked for and this machine has no GPU; set"):
        resolve(LAPTOP, device="cuda")


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_more_workers_than_gpus_are_refused(device):
    message = r"resources\.workers: 5 workers need 5 GPUs and the cluster at head:6379 has 4; lower"
    with pytest.raises(InfeasibleError, match=message) as error:
        resolve(SERVER, workers=5, device=device)
    assert error.value.exit_code == ExitCode.DOES_NOT_FIT


def test_more_workers_than_cores_are_refused():
    with pytest.raises(InfeasibleError, match=r"3 workers x 1 CPUs need 3 CPUs and this .* has 2;"):
        resolve(LAPTOP, workers=3)


def test_more_cores_a_worker_than_there_are_are_refused():
    with pytest.raises(InfeasibleError, match=r"2 workers x 1\.5 CPUs need 3 CPUs .* has 2; lower"):
        resolve(LAPTOP, workers=2, cpus_per_worker=1.5)


def test_workers_may_share_a_core():
    resources = resolve(LAPTOP, workers=4, cpus_per_worker=0.5)
    assert (resources.workers, resources.cpus_per_worker) == (4, 0.5)


def test_gpu_workers_need_cores_too():
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
