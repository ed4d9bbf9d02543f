"""What `ray up` reads, against the schema that comes with Ray and what its launcher asks for."""

import importlib.util
import json
import re
from pathlib import Path

import jsonschema
import pytest

from tests.cluster.files import RAY_FILES, TOP, as_bytes, documents, text


@pytest.fixture(scope="module")
def schema():
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "autoscaler" / "ray-schema.json"
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(params=RAY_FILES)
def name(request):
    return request.param


@pytest.fixture
def config(name):
    (only,) = documents(name)
    return only


def commands(config):
    return config["head_start_ray_commands"] + config["worker_start_ray_commands"]


def test_it_fits_rays_schema(config, schema):
    jsonschema.validate(config, schema)


def test_every_copied_file_of_the_repository_is_there(config):
    mounts = config["file_mounts"].values()
    missing = [m for m in mounts if not m.startswith("~") and not (TOP / m).exists()]
    assert missing == []


def test_all_that_setup_reads_is_copied_to_machines_without_a_checkout():
    (config,) = documents("ray-on-premise.yaml")
    needed = {"Makefile", ".setup.sh", ".constraints.txt", "pyproject.toml", "README.md"}
    assert needed | {"orchestrator", "jobs"} <= set(config["file_mounts"].values())
    assert config["setup_commands"] == ["make -C ~/orchestrator setup"]


def test_every_node_gets_the_token_as_a_file_and_must_use_it(config):
    """Source: Ray's documentation, Token authentication: ~/.ray/auth_token, RAY_AUTH_MODE."""
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    starts = [c for c in commands(config) if "ray start" in c]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token " in c.partition("ray start")[0] for c in starts)


def test_workers_join_the_head_that_ray_up_started(config):
    head, worker = (c for c in commands(config) if "ray start" in c)
    assert "--head --port=6379" in head
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert "--address=$RAY_HEAD_IP:6379" in worker


def test_the_head_on_premise_waits_for_as_many_workers_as_are_named():
    (config,) = documents("ray-on-premise.yaml")
    assert config["max_workers"] == len(config["provider"]["worker_ips"])


def test_the_nodes_share_the_state_folder():
    (own,) = documents("ray-on-premise.yaml")
    starts = [c for c in commands(own) if "ray start" in c]
    assert all("ORCHESTRATOR_HOME=/mnt/orchestrator" in c for c in starts)
    (aws,) = documents("ray-aws.yaml")
    assert "--volume /mnt/orchestrator:/state" in aws["docker"]["run_options"]
    assert any("mount -t nfs4" in c for c in aws["initialization_commands"])
    assert "ORCHESTRATOR_HOME=/state" in text("Dockerfile")


def test_every_node_says_how_much_of_dev_shm_its_object_store_takes(config):
    """Ray would take 30 % of the machine's memory, or all of /dev/shm if that is less."""
    starts = [c for c in commands(config) if "ray start" in c]
    sizes = [re.findall(r"--object-store-memory=(\d+)", c) for c in starts]
    assert sizes == [["1000000000"], ["1000000000"]]


def test_on_aws_the_containers_dev_shm_holds_twice_the_object_store():
    """Docker gives 64 MiB. Source: docker run reference, --shm-size."""
    (config,) = documents("ray-aws.yaml")
    options = " ".join(config["docker"]["run_options"])
    (size,) = re.findall(r"--shm-size=(\S+)", options)
    assert as_bytes(size) >= 2 * 1_000_000_000


def test_on_aws_no_group_of_rays_own_lets_ssh_in_from_everywhere():
    """Source: ray 2.60.0, _private/aws/config.py, `_create_default_ssh_inbound_rules`."""
    (config,) = documents("ray-aws.yaml")
    assert "security_group" not in config["provider"]
    kinds = config["available_node_types"].values()
    assert all(kind["node_config"]["SecurityGroupIds"] for kind in kinds)


def test_on_aws_the_head_trains_nothing_and_the_workers_are_all_there():
    (config,) = documents("ray-aws.yaml")
    head, worker = (config["available_node_types"][kind] for kind in ("head", "worker"))
    assert config["head_node_type"] == "head"
    assert head["resources"] == {"CPU": 0}
    assert worker["min_workers"] == worker["max_workers"] == config["max_workers"]
