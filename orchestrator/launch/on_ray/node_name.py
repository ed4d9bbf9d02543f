"""What the node of a rank is called. Runs on a Ray worker."""

import ray


def node_name() -> str:
    """The name this node was started with (`ray start --node-name`), or else its machine's.

    Source: ray 2.60.0, _private/node.py: a node without a name is called by its address.
    """
    from orchestrator.worker.place import this_node

    number = ray.get_runtime_context().get_node_id()
    for node in ray.nodes():
        if node["NodeID"] == number and node["NodeName"] != node["NodeManagerAddress"]:
            return str(node["NodeName"])
    return this_node()
