"""Who holds a cluster, asked on two nodes that Ray's own class for several nodes starts."""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
LOOPBACK = "127.0.0.1"
ASK = f"""
import json, subprocess, sys, time
import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group, remove_placement_group

from orchestrator.launch.on_ray.cluster_holders import holders, holders_text

class Held:
    def there(self):
        return True

held = ray.remote(Held)
node = {{"num_cpus": 2, "node_ip_address": "{LOOPBACK}", "object_store_memory": 80 * 2**20}}
cluster = Cluster(initialize_head=True, head_node_args=node)
cluster.add_node(**node, resources={{"second": 1}})
ray.init(address=cluster.address, log_to_driver=False, logging_level=40)
told = {{"nobody": [len(holders()), holders_text()]}}

actor = held.options(num_cpus=0.5, resources={{"second": 1}}).remote()
group = placement_group([{{"CPU": 1}}, {{"CPU": 1}}], strategy="SPREAD")
ray.get(group.ready())
# What takes from a group is not to be counted again.
inside = held.options(num_cpus=1, placement_group=group).remote()
ray.get([actor.there.remote(), inside.there.remote()])
told["own"] = holders_text()
ray.kill(actor)
ray.kill(inside)
remove_placement_group(group)

while ray.available_resources()["CPU"] < 4:
    time.sleep(0.1)
subprocess.run([sys.executable, sys.argv[1], cluster.address, "password"], check=True)
told["left"] = holders_text()
print(json.dumps(told))
ray.shutdown()
cluster.shutdown()
"""
LEAVE = """
import ray, sys
ray.init(sys.argv[1], namespace="theirs", log_to_driver=False, logging_level=40)

@ray.remote(num_cpus=1)
class Left:
    def there(self):
        return True

ray.get(Left.options(name="left", lifetime="detached").remote().there.remote())
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    for name, text in (("ask.py", ASK), ("leave.py", LEAVE)):
        (folder / name).write_text(text)
    # Ray's sockets need a short name.
    temporary = tempfile.mkdtemp(prefix="h", dir="/tmp")
    done = subprocess.run(
        [sys.executable, folder / "ask.py", folder / "leave.py"],
        env={
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": temporary,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(temporary)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_cluster_that_nobody_holds_names_nobody(told):
    assert told["nobody"] == [0, ""]


def test_actors_and_groups_of_a_job_are_added_up_wherever_they_are(told):
    own = r", held by ask\.py on 127\.0\.0\.1 \(2\.5 CPUs, since \d\d:\d\d\)"
    assert re.fullmatch(own, told["own"])


def test_what_a_job_left_behind_is_named_after_it_without_its_arguments(told):
    left = r", held by what is left of leave\.py on 127\.0\.0\.1 \(1 CPU, since \d\d:\d\d\)"
    assert re.fullmatch(left, told["left"])
