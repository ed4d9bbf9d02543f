"""One run over several nodes: where its ranks are, what they compile, and that the losses stay."""

import os
import re
from itertools import groupby

import pytest

from orchestrator.launch.compiled_ops import make_ready
from tests.cluster.test_ray_local import Nodes
from tests.launch.command import Command
from tests.worker.ranks import EXTENSIONS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
N_NODES = 4
JOB = """
name: wide
model: {family: mlp, config: {hidden_sizes: [32, 16]}}
data: {source: digits}
training: {steps: 6, global_batch_size: 32, micro_batch_size: 2}
zero: {stage: 2, offload_optimizer: cpu}
resources: {workers: 4, device: cpu, placement: spread}
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Nodes of one CPU each that have cpu_adam compiled, and no compiler."""
    make_ready(["cpu_adam"], folder=EXTENSIONS, environment=os.environ, show=print)
    home = tmp_path_factory.mktemp("home")
    ops = home / "ops"
    ops.mkdir()
    for name in ("cpu_adam", ".cpu_adam.ready"):
        (ops / name).symlink_to(EXTENSIONS / name)
    found = Nodes(home)
    found.environment |= {"TORCH_EXTENSIONS_DIR": str(ops), "CXX": "/bin/false"}
    with found.running("--nodes", str(N_NODES)):
        yield found


@pytest.fixture(scope="module")
def launch(nodes, tmp_path_factory):
    """Launch, on the nodes from inside the cluster unless told otherwise."""
    given: list[Command] = []
    folder = tmp_path_factory.mktemp("jobs")
    job = folder / "job.yaml"
    job.write_text(JOB)
    inside = {
        "RAY_ADDRESS": f"127.0.0.1:{nodes.port}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": nodes.token().read_text(),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Chosen here, it would hold there too.
        "TORCH_EXTENSIONS_DIR": "",
    }

    def command(*words, **environment):
        home = folder / f"home-{len(given)}"
        one = Command("launch", job, "--json", *words, home=home, **(environment or inside))
        given.append(one)
        return one.wait()

    yield command
    for one in given:
        one.close()


@pytest.fixture(scope="module")
def losses_of_one_rank(launch):
    command = launch("--in-process", "--set", "resources.workers=1", RAY_ADDRESS="")
    assert command.exit_code == 0, command.stderr
    assert len(command.answer["losses"]) == 6
    return command.answer["losses"]


@pytest.mark.parametrize(
    ("settings", "ranks_of_each"),
    [
        (["resources.placement=spread"], [1, 1, 1, 1]),
        (["resources.placement=pack", "resources.cpus_per_worker=0.5"], [2, 2]),
    ],
    ids=["spread", "packed"],
)
def test_ranks_on_two_or_four_nodes_lose_as_one_rank_does(
    launch, losses_of_one_rank, settings, ranks_of_each
):
    command = launch(*(word for pair in settings for word in ("--set", pair)))
    assert command.exit_code == 0, command.stderr
    nodes = [row["node"] for row in command.answer["ranks"]]
    assert set(nodes) <= {f"node-{number}" for number in range(1, N_NODES + 1)}
    # The ranks of a node are next to each other.
    assert [len(list(ranks)) for _, ranks in groupby(nodes)] == ranks_of_each
    assert command.answer["losses"] == pytest.approx(losses_of_one_rank, rel=1e-5)
    for rank, node in enumerate(nodes):
        assert f"\n{rank:>4}  {node} " in command.stderr


def test_a_node_that_cannot_compile_says_so(launch, tmp_path):
    offload = ("zero.offload_optimizer=nvme", f"zero.nvme_path={tmp_path}", "zero.stage=3")
    settings = ("resources.workers=2", *offload)
    command = launch(*(word for pair in settings for word in ("--set", pair)))
    assert command.exit_code == 1
    words = r"node node-\d: DeepSpeed's async_io cannot be compiled: .*; install libaio .*"
    assert re.fullmatch(words, command.answer["message"])
