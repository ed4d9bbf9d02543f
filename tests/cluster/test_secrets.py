"""No file of cluster/ holds a secret, and none is put where others can read it."""

import re

import pytest

from tests.cluster.files import CLUSTER, KUBERNETES_FILES, documents, pod_templates, text

FILES = sorted(p.name for p in CLUSTER.iterdir() if p.is_file())
SECRET_NAME = re.compile(r"TOKEN|PASSWORD|SECRET|KEY|PASS$|CREDENTIAL", re.IGNORECASE)
PODS = pod_templates()
LOOKS_SECRET = {
    "a token": re.compile(r"\b[0-9a-f]{32,}\b|(?<![\w/+])[\w/+]{40,}(?![\w/+])"),
    "an AWS key": re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    "a private key": re.compile(r"BEGIN [A-Z ]*PRIVATE KEY"),
    "a password in an address": re.compile(r"\w+://[\w.-]+:(?!\d+\b)[^@\s/\"']+@"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("pattern", LOOKS_SECRET.values(), ids=LOOKS_SECRET)
def test_nothing_looks_like_a_secret(pattern, name):
    assert pattern.findall(text(name)) == []


def test_the_patterns_would_notice_one():
    token = "3f9c0a" * 8
    assert LOOKS_SECRET["a token"].findall(f"token: {token}") == [token]
    uri = "postgresql://mlflow:hunter2@db.example.com/mlflow"
    assert LOOKS_SECRET["a password in an address"].findall(uri)
    assert not LOOKS_SECRET["a password in an address"].findall(uri.replace(":hunter2", ""))


@pytest.mark.parametrize("name", KUBERNETES_FILES)
def test_no_secret_is_written_down_for_kubernetes(name):
    assert [d["kind"] for d in documents(name) if d["kind"] == "Secret"] == []


@pytest.mark.parametrize("template", PODS.values(), ids=PODS)
def test_variables_with_a_secret_come_from_kubernetes_secrets(template):
    for container in template["spec"]["containers"]:
        for variable in container.get("env", []):
            if SECRET_NAME.search(variable["name"]):
                assert "value" not in variable
                assert variable["valueFrom"].keys() == {"secretKeyRef"}


def test_the_password_of_postgresql_is_the_same_secret_on_both_sides():
    keys = [
        variable["valueFrom"]["secretKeyRef"]
        for name, template in PODS.items()
        for container in template["spec"]["containers"]
        for variable in container.get("env", [])
        if name.startswith("mlflow-postgres.yaml") and "valueFrom" in variable
    ]
    assert len(keys) == 2
    assert keys[0] == keys[1]
    made = f"create secret generic {keys[0]['name']} --from-literal={keys[0]['key']}="
    assert made in text("mlflow-postgres.yaml")


def test_the_image_takes_in_no_state_and_no_history():
    lines = text("Dockerfile.dockerignore").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {r.removeprefix("!") for r in rules if r.startswith("!")} == {
        ".constraints.txt",
        "README.md",
        "jobs",
        "orchestrator",
        "pyproject.toml",
    }
    copied = re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", text("Dockerfile"))
    named = {word for line in copied for word in line.split()}
    assert named == {r.removeprefix("!") for r in rules if r.startswith("!")}
