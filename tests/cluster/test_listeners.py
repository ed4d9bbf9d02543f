"""What the files of cluster/ make listen, and who can reach it."""

import re

import pytest

from tests.cluster.files import (
    CLUSTER,
    KUBERNETES_FILES,
    RAY_FILES,
    document,
    documents,
    groups,
    ray_clusters,
    text,
)

EVERYWHERE = re.compile(r"0\.0\.0\.0|\[?::\]?(?=[\s:\"',]|$)")
RAY_LABELS = {"orchestrator-network": "ray"}
# Where an address that others reach is named, and how often: each is looked at by a test below.
LOOKED_AT = {
    "kuberay-raycluster.yaml": 1,
    "kuberay-rayjob.yaml": 1,
    "mlflow-postgres.yaml": 1,
    "README.md": 1,
}


def without_comments(name):
    return re.sub(r"(?m)(^|\s)#.*$", "", text(name)) if not name.endswith(".md") else text(name)


@pytest.mark.parametrize("name", sorted(p.name for p in CLUSTER.iterdir() if p.is_file()))
def test_nothing_else_listens_on_every_address(name):
    assert len(EVERYWHERE.findall(without_comments(name))) == LOOKED_AT.get(name, 0)


def test_the_readme_opens_mlflow_only_with_a_password():
    (line,) = [line for line in text("README.md").splitlines() if "0.0.0.0" in line]
    assert "--password-file" in line
    assert "--allowed-hosts" in line


@pytest.mark.parametrize("cluster", ray_clusters().values(), ids=ray_clusters())
def test_a_ray_head_that_pods_reach_asks_for_a_token(cluster):
    assert cluster["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "0.0.0.0"
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"


@pytest.mark.parametrize("name", RAY_FILES)
def test_the_dashboard_of_a_head_that_ray_up_starts_is_for_the_head_alone(name):
    (config,) = documents(name)
    (head,) = [c for c in config["head_start_ray_commands"] if "ray start" in c]
    assert re.findall(r"--dashboard-host=(\S+)", head) == ["127.0.0.1"]


def test_ray_up_on_aws_opens_no_port_of_the_container():
    (config,) = documents("ray-aws.yaml")
    assert not [o for o in config["docker"]["run_options"] if re.match(r"-p\b|--publish", o)]


@pytest.mark.parametrize("name", KUBERNETES_FILES)
def test_no_service_is_reached_from_outside_kubernetes(name):
    assert not [d for d in documents(name) if d["kind"] in ("Ingress", "HTTPRoute", "Gateway")]
    services = [d["spec"] for d in documents(name) if d["kind"] == "Service"]
    assert {s["type"] for s in services} <= {"ClusterIP"}
    pods = text(name)
    assert "hostPort" not in pods
    assert "hostNetwork" not in pods


def test_every_ray_pod_is_under_the_policy_that_keeps_others_out():
    policy = document("kuberay-raycluster.yaml", kind="NetworkPolicy")["spec"]
    assert policy["podSelector"] == {"matchLabels": RAY_LABELS}
    assert policy["policyTypes"] == ["Ingress"]
    nodes, operator = policy["ingress"]
    assert nodes == {"from": [{"podSelector": {"matchLabels": RAY_LABELS}}]}
    assert operator["ports"] == [{"port": 8265}]
    for cluster in ray_clusters().values():
        for group in groups(cluster):
            assert group["template"]["metadata"]["labels"] == RAY_LABELS
    job = document("kuberay-rayjob.yaml", kind="RayJob")["spec"]
    assert job["submitterPodTemplate"]["metadata"]["labels"] == RAY_LABELS


@pytest.mark.parametrize(
    ("server", "client", "port"),
    [("mlflow", RAY_LABELS, 5000), ("mlflow-postgres", {"app": "mlflow"}, 5432)],
)
def test_only_ray_reaches_mlflow_and_only_mlflow_reaches_postgresql(server, client, port):
    policy = document("mlflow-postgres.yaml", kind="NetworkPolicy", called=server)["spec"]
    deployment = document("mlflow-postgres.yaml", kind="Deployment", called=server)["spec"]
    assert policy["podSelector"]["matchLabels"] == deployment["template"]["metadata"]["labels"]
    assert policy["policyTypes"] == ["Ingress"]
    allowed = {"from": [{"podSelector": {"matchLabels": client}}], "ports": [{"port": port}]}
    assert policy["ingress"] == [allowed]


def mlflow_container():
    deployment = document("mlflow-postgres.yaml", kind="Deployment", called="mlflow")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return container


def test_mlflow_on_kubernetes_answers_to_its_own_names_alone():
    """Of MLflow's patterns a star must not stand where somebody can have a domain."""
    options = dict(o.partition("=")[::2] for o in mlflow_container()["command"] if "=" in o)
    hosts = options["--allowed-hosts"].split(",")
    assert hosts[0] == "mlflow:5000"
    ends = {host.rpartition(":")[0].rpartition(".")[2] for host in hosts}
    assert ends == {"mlflow", "svc", "local", "localhost", "1"}
    assert "--disable-security-middleware" not in mlflow_container()["command"]
    # The middleware is uvicorn's; mlflow 3.17.2 says so of --gunicorn-opts and --waitress-opts.
    assert not {"--gunicorn-opts", "--waitress-opts"} & options.keys()


def test_mlflow_on_kubernetes_runs_no_jobs_over_http_and_few_processes():
    environment = {e["name"]: e.get("value") for e in mlflow_container()["env"]}
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    options = dict(o.partition("=")[::2] for o in mlflow_container()["command"] if "=" in o)
    assert 1 <= int(options["--workers"]) < 4  # 4 is mlflow's own choice
