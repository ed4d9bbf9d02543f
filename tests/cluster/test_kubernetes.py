"""The Kubernetes files, against the schemas of Kubernetes and the fields of KubeRay."""

import kubernetes_validate  # type: ignore[import-untyped]
import pytest

from tests.cluster.files import (
    KUBERNETES_FILES,
    as_bytes,
    document,
    documents,
    groups,
    pod_templates,
    ray_clusters,
    text,
)

VERSIONS = ("1.30", "1.37")
KUBERAY = "ray.io/v1"
# Fields of KubeRay's custom resources that are used here, and what each takes. `pod` is a template
# of Kubernetes' own. Source: ray-project/kuberay, docs/reference/api.md, its tables for ray.io/v1
# (release 1.6); authOptions since 1.5.1.
WORDS = {"keys": str, "values": str}
RAY_CLUSTER_SPEC = {
    "rayVersion": str,
    "authOptions": {"mode": ("disabled", "token")},
    "headGroupSpec": {
        "serviceType": ("ClusterIP", "NodePort", "LoadBalancer"),
        "rayStartParams": WORDS,
        "template": "pod",
    },
    "workerGroupSpecs": [
        {
            "groupName": str,
            "replicas": int,
            "minReplicas": int,
            "maxReplicas": int,
            "rayStartParams": WORDS,
            "template": "pod",
        }
    ],
}
RAY_JOB_SPEC = {
    "entrypoint": str,
    "submissionMode": ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    "backoffLimit": int,
    "activeDeadlineSeconds": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "submitterPodTemplate": "pod",
    "rayClusterSpec": RAY_CLUSTER_SPEC,
}
PODS = pod_templates()


def mistakes(value, shape, *, at):
    """What in a custom resource is not as the table says."""
    if isinstance(shape, list):
        right = isinstance(value, list) and value
        entries = [m for i, v in enumerate(value) for m in mistakes(v, shape[0], at=f"{at}[{i}]")]
        return entries if right else [f"{at}: not a list with entries"]
    if shape is WORDS:
        return [f"{at}.{k}: {v!r} is not text" for k, v in value.items() if not isinstance(v, str)]
    if isinstance(shape, dict):
        unknown = [f"{at}.{key}: not a field" for key in value.keys() - shape.keys()]
        known = value.keys() & shape.keys()
        return unknown + [m for k in known for m in mistakes(value[k], shape[k], at=f"{at}.{k}")]
    if isinstance(shape, tuple):
        return [] if value in shape else [f"{at}: {value!r} is none of {shape}"]
    if shape == "pod":  # looked into by a test of its own
        return [] if value.keys() <= {"metadata", "spec"} else [f"{at}: not a pod template"]
    return [] if type(value) is shape else [f"{at}: {value!r} is not {shape.__name__}"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", KUBERNETES_FILES)
def test_kubernetes_own_kinds_fit_its_schemas(name, version):
    own = [d for d in documents(name) if d["apiVersion"] != KUBERAY]
    for d in own:
        kubernetes_validate.validate(d, version, strict=True)
    assert own or name == "kuberay-rayjob.yaml"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("template", PODS.values(), ids=PODS)
def test_every_pod_template_is_a_pod(template, version):
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    kubernetes_validate.validate(pod, version, strict=True)


def test_the_ray_cluster_has_only_fields_that_kuberay_knows():
    d = document("kuberay-raycluster.yaml", kind="RayCluster")
    assert d["apiVersion"] == KUBERAY
    assert mistakes(d["spec"], RAY_CLUSTER_SPEC, at="spec") == []


def test_the_ray_job_has_only_fields_that_kuberay_knows():
    d = document("kuberay-rayjob.yaml", kind="RayJob")
    assert d["apiVersion"] == KUBERAY
    assert mistakes(d["spec"], RAY_JOB_SPEC, at="spec") == []


def test_the_table_would_notice_a_mistake():
    wrong = {
        "rayVersion": 2.6,
        "token": "x",
        "authOptions": {"mode": "none"},
        "headGroupSpec": {"rayStartParams": {"num-cpus": 0}},
    }
    assert sorted(mistakes(wrong, RAY_CLUSTER_SPEC, at="spec")) == [
        "spec.authOptions.mode: 'none' is none of ('disabled', 'token')",
        "spec.headGroupSpec.rayStartParams.num-cpus: 0 is not text",
        "spec.rayVersion: 2.6 is not str",
        "spec.token: not a field",
    ]


@pytest.mark.parametrize("name", ["kuberay-raycluster.yaml", "kuberay-rayjob.yaml"])
def test_the_head_trains_nothing_and_the_workers_are_all_there(name):
    cluster = ray_clusters()[name]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in cluster["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] > 0


def test_both_ways_make_the_same_cluster():
    a, b = ray_clusters().values()
    job_volume = {"job"}
    for group in (*groups(a), *groups(b)):
        spec = group["template"]["spec"]
        spec["volumes"] = [v for v in spec["volumes"] if v["name"] not in job_volume]
        mounts = spec["containers"][0]["volumeMounts"]
        spec["containers"][0]["volumeMounts"] = [m for m in mounts if m["name"] not in job_volume]
    assert a == b


def volume(template, mount_path):
    """The volume that the first container sees there."""
    mounts = template["spec"]["containers"][0]["volumeMounts"]
    (name,) = [m["name"] for m in mounts if m["mountPath"] == mount_path]
    (found,) = [v for v in template["spec"]["volumes"] if v["name"] == name]
    return found


@pytest.mark.parametrize("name", ["kuberay-raycluster.yaml", "kuberay-rayjob.yaml"])
def test_every_node_has_a_dev_shm_that_holds_its_object_store_within_its_memory(name):
    for group in groups(ray_clusters()[name]):
        shm = volume(group["template"], "/dev/shm")["emptyDir"]
        assert shm["medium"] == "Memory"
        size = as_bytes(shm["sizeLimit"])
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert int(group["rayStartParams"]["object-store-memory"]) < size
        assert size <= as_bytes(limits["memory"]) / 4


@pytest.mark.parametrize("name", ["kuberay-raycluster.yaml", "kuberay-rayjob.yaml"])
def test_every_node_has_the_same_state_volume_which_many_may_write(name):
    claims = {
        volume(g["template"], "/state")["persistentVolumeClaim"]["claimName"]
        for g in groups(ray_clusters()[name])
    }
    claim = document("kuberay-raycluster.yaml", kind="PersistentVolumeClaim")
    assert claims == {claim["metadata"]["name"]}
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert "ORCHESTRATOR_HOME=/state" in text("Dockerfile")


def test_the_job_that_runs_is_the_one_in_the_config_map():
    spec = document("kuberay-rayjob.yaml", kind="RayJob")["spec"]
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]
    config_map = volume(head, "/job")["configMap"]["name"]
    path = spec["entrypoint"].split()[2]
    assert path.startswith("/job/")
    key = path.removeprefix("/job/")
    assert f"create configmap {config_map} --from-file={key}=" in text("kuberay-rayjob.yaml")


@pytest.mark.parametrize("template", PODS.values(), ids=PODS)
def test_no_pod_runs_as_root_or_holds_a_key_to_kubernetes(template):
    spec = template["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    for container in spec["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("template", PODS.values(), ids=PODS)
def test_every_container_says_what_memory_it_takes(template):
    for container in template["spec"]["containers"]:
        assert container["resources"]["requests"]["memory"]
        assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", ["mlflow", "mlflow-postgres"])
def test_services_lead_to_their_pods_and_one_pod_at_a_time_has_the_volume(name):
    deployment = document("mlflow-postgres.yaml", kind="Deployment", called=name)["spec"]
    service = document("mlflow-postgres.yaml", kind="Service", called=name)["spec"]
    assert service["selector"] == deployment["template"]["metadata"]["labels"]
    named = [p["name"] for p in deployment["template"]["spec"]["containers"][0]["ports"]]
    assert [p["targetPort"] for p in service["ports"]] == named
    assert deployment["replicas"] == 1
    assert deployment["strategy"] == {"type": "Recreate"}
    (claimed,) = [
        v["persistentVolumeClaim"]["claimName"]
        for v in deployment["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in v
    ]
    document("mlflow-postgres.yaml", kind="PersistentVolumeClaim", called=claimed)
