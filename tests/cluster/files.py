"""What lies in cluster/, read for the tests that compare it with other sources."""

import re
from pathlib import Path
from typing import Any

import yaml

TOP = Path(__file__).parents[2]
CLUSTER = TOP / "cluster"
RAY_FILES = ("ray-on-premise.yaml", "ray-aws.yaml")
KUBERNETES_FILES = ("kuberay-raycluster.yaml", "kuberay-rayjob.yaml", "mlflow-postgres.yaml")
SCRIPTS = ("ray-local.sh", "mlflow.sh")


def text(name: str) -> str:
    return (CLUSTER / name).read_text(encoding="utf-8")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text(name)))


def document(name: str, *, kind: str, called: str | None = None) -> dict[str, Any]:
    """The one document of this kind (and name)."""
    found = [
        d for d in documents(name) if d["kind"] == kind and called in (None, d["metadata"]["name"])
    ]
    assert len(found) == 1, f"{name}: {len(found)} of kind {kind}"
    return found[0]


def locked() -> dict[str, str]:
    """Package, in lower case, -> version of .constraints.txt."""
    lines = (TOP / ".constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.lower().split("==") for line in lines)


def ray_clusters() -> dict[str, dict[str, Any]]:
    """The specification of every Ray cluster that KubeRay would make, by file."""
    return {
        "kuberay-raycluster.yaml": document("kuberay-raycluster.yaml", kind="RayCluster")["spec"],
        "kuberay-rayjob.yaml": document("kuberay-rayjob.yaml", kind="RayJob")["spec"][
            "rayClusterSpec"
        ],
    }


def groups(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    """The head's and the workers' groups of such a cluster."""
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pod_templates() -> dict[str, dict[str, Any]]:
    """Every pod that the Kubernetes files make, by file and name of its first container."""
    found = {}
    for name in KUBERNETES_FILES:
        for d in documents(name):
            spec = d.get("spec", {})
            cluster = spec if d["kind"] == "RayCluster" else spec.get("rayClusterSpec")
            templates = [g["template"] for g in groups(cluster)] if cluster else []
            templates += [spec[key] for key in ("submitterPodTemplate",) if key in spec]
            templates += [spec["template"]] if d["kind"] == "Deployment" else []
            for template in templates:
                found[f"{name}:{template['spec']['containers'][0]['name']}"] = template
    return found


def as_bytes(quantity: str) -> int:
    """Bytes of a Kubernetes quantity, such as 1.5Gi, or of docker's, such as 2g.

    Source:
        Kubernetes' documentation, Resource Management, "Memory resource units"; docker run
        --shm-size: b, k, m, g are powers of 1024.
    """
    match = re.fullmatch(r"([\d.]+)(|Ki|Mi|Gi|k|m|g)", quantity)
    assert match, quantity
    powers = {"": 0, "k": 1, "Ki": 1, "m": 2, "Mi": 2, "g": 3, "Gi": 3}
    return int(float(match[1]) * 1024 ** powers[match[2]])
