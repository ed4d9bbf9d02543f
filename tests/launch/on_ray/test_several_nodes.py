"""One run over several nodes: where its ranks are, what they compile, and that the losses stay."""

import shutil

import pytest

from tests.cluster.test_ray_local import Nodes
from tests.launch.command import Command
from tests.worker.ranks import EXTENSIONS

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
N_NODES = 4
JOB = """
name: wide
model: {family: mlp, config: {hidden_sizes: [32, 16]}}
data: {source: digits}
training: {steps: 6, global_batch_size: 32, micro_batch_size: 2}
zero: {stage: 2}
resources: {workers: 4, device: cpu, placement: spread}
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Nodes of one CPU each that have one compiled op and no compiler."""
    home = tmp_path_factory.mktemp("home")
    found = Nodes(home)
    found.environment |= {"TORCH_EXTENSIONS_DIR": str(home / "ops"), "CXX": "/bin/false"}
    done = found.start("--nodes", str(N_NODES))
    try:
        assert done.returncode == 0, done.stderr
        yield found
    finally:
        found.run("stop")


@pytest.fixture
def launch(nodes, tmp_path):
    """Launch on the nodes, from inside the cluster."""
    given = []
    job = tmp_path / "job.yaml"
    job.write_text(JOB)

    def command(*settings, cluster=True):
        environment = {
            "RAY_ADDRESS": f"127.0.0.1:{nodes.port}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": nodes.token().read_text(),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }
        words = [word for pair in settings for word in ("--set", pair)]
        one = Command(
            *("launch", job, "--json", *words, *(() if cluster else ("--in-process",))),
            home=tmp_path / "home",
            **(environment if cluster else {}),
        )
        given.append(one)
        return one.wait()

    yield command
    for one in given:
        one.close()


@pytest.mark.parametrize("n_workers", [2, 4])
def test_ranks_on_several_nodes_lose_as_one_rank_does(launch, n_workers):
    settings = (f"resources.workers={n_workers}", "training.gradient_accumulation_steps=null")
    wide = launch(*settings)
    assert wide.exit_code == 0, wide.stderr
    nodes = [row["node"] for row in wide.answer["ranks"]]
    assert len(set(nodes)) == n_workers
    assert set(nodes) <= {f"node-{number}" for number in range(1, N_NODES + 1)}
    alone = launch("resources.workers=1", "resources.placement=pack", cluster=False)
    assert alone.exit_code == 0, alone.stderr
    assert len(alone.answer["losses"]) == 6
    assert wide.answer["losses"] == pytest.approx(alone.answer["losses"], rel=1e-5)
    for rank, node in enumerate(nodes):
        assert f"\n{rank:>4}  {node} " in wide.stderr


def test_packed_ranks_take_as_few_nodes_as_hold_them(launch):
    command = launch("resources.placement=pack", "resources.cpus_per_worker=0.5")
    assert command.exit_code == 0, command.stderr
    nodes = [row["node"] for row in command.answer["ranks"]]
    assert len(set(nodes)) == 2
    assert nodes == sorted(nodes)


def test_every_node_compiles_for_all_its_ranks_and_says_what_it_lacks(launch):
    """No op is ready there, and the compiler fails: told once for each node, not for each rank."""
    offload = ("zero.offload_optimizer=cpu", "resources.cpus_per_worker=0.5")
    command = launch(*offload, "resources.placement=pack")
    assert command.exit_code == 1
    lines = command.answer["message"].splitlines()
    assert len({line.partition(":")[0] for line in lines}) == len(lines) == 2
    for line in lines:
        assert line.startswith("node node-")
        assert "DeepSpeed's cpu_adam cannot be compiled" in line


def test_a_node_takes_what_it_has_compiled(nodes, launch):
    ops = nodes.home / "ops"
    shutil.copytree(EXTENSIONS, ops, dirs_exist_ok=True)
    command = launch("zero.offload_optimizer=cpu", "resources.workers=2")
    assert command.exit_code == 0, command.stderr
    assert command.answer["ranks"][1]["host_bytes"] > 0
