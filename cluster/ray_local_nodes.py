"""Ray nodes that listen on 127.0.0.1 alone; started and ended by ray-local.sh.

`ray start` cannot do it: it puts an address that others can reach in the place of 127.0.0.1, and
then listens on every interface; told not to by RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0, which
ray-local.sh sets for the drivers of jobs, it refuses a second node. So all are made through Ray's
own class for several nodes on one machine. A file with the address says that they are ready.

What Ray writes goes below RAY_TMPDIR, its address among it: a job that did not find it there would
join any other Ray that runs on this machine.

Source:
    ray 2.60.0: scripts/scripts.py, `start`; _private/services.py, `resolve_ip_for_localhost`;
    cluster_utils.py, `Cluster`.
"""

import argparse
import signal
import threading
from pathlib import Path

LOOPBACK = "127.0.0.1"
OBJECT_STORE_BYTES = 200 * 2**20
"""Of each node, in /dev/shm: little goes through it, gradients never do."""


def main() -> None:
    """Start the nodes, wait for SIGTERM, and stop them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dashboard-port", type=int, required=True)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--cpus", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    chosen = parser.parse_args()

    from ray.cluster_utils import Cluster

    node = {
        "node_ip_address": LOOPBACK,
        "num_cpus": chosen.cpus,
        "object_store_memory": OBJECT_STORE_BYTES,
    }
    head = {
        **node,
        "node_name": "node-1",
        "gcs_server_port": chosen.port,
        "include_dashboard": True,
        "dashboard_host": LOOPBACK,
        "dashboard_port": chosen.dashboard_port,
        "dashboard_agent_listen_port": 0,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for number in range(2, chosen.nodes + 1):
            cluster.add_node(**node, node_name=f"node-{number}")
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        (chosen.folder / "ready").write_text(cluster.address, encoding="utf-8")
        stop.wait()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
