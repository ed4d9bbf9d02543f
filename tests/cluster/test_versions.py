"""What runs on a cluster is what .constraints.txt pins."""

import re

import pytest

from tests.cluster.files import CLUSTER, TOP, documents, locked, pod_templates, ray_clusters, text

LOCKED = locked()
# The CUDA that torch's wheels bring, by torch's version. Source: the wheel's own metadata,
# `Requires-Dist: cuda-toolkit[...]==13.0.3; platform_system == "Linux"`.
CUDA_OF_TORCH = {"2.13.0": "13.0"}
NAMED = re.compile(r"\b(ray|torch|deepspeed|mlflow|transformers|numpy)(?:==|:v?|-?)(\d+\.\d+\.\d+)")
FILES = sorted(p.name for p in CLUSTER.iterdir() if p.is_file())


@pytest.mark.parametrize("name", FILES)
def test_every_version_that_is_named_is_the_locked_one(name):
    wrong = [m[0] for m in NAMED.finditer(text(name)) if LOCKED[m[1]] != m[2]]
    assert wrong == []


@pytest.mark.parametrize("cluster", ray_clusters().values(), ids=ray_clusters())
def test_kuberay_is_told_the_locked_version_of_ray(cluster):
    assert cluster["rayVersion"] == LOCKED["ray"]


def test_every_image_of_ours_names_the_locked_version_of_ray():
    pods = pod_templates().values()
    images = [c["image"] for pod in pods for c in pod["spec"]["containers"]]
    (aws,) = documents("ray-aws.yaml")
    ours = [i for i in (*images, aws["docker"]["image"]) if "orchestrator" in i]
    assert len(ours) == 7
    tags = {image.rpartition(":")[2] for image in ours}
    assert tags <= {f"ray{LOCKED['ray']}-cpu", f"ray{LOCKED['ray']}-cuda"}


def test_no_image_is_whatever_is_newest():
    pods = pod_templates().values()
    images = [c["image"] for pod in pods for c in pod["spec"]["containers"]]
    images += re.findall(r"(?m)^FROM (\S+:\S+)", text("Dockerfile"))
    tags = [image.partition(":")[2] for image in images]
    assert all(tag and tag != "latest" for tag in tags), images


def test_the_image_has_the_python_that_setup_takes():
    """`.setup.sh` refuses others; the lowest is what the lock was written with."""
    project = (TOP / "pyproject.toml").read_text(encoding="utf-8")
    lowest = re.search(r'requires-python = ">=(\d+\.\d+)"', project)
    setup = (TOP / ".setup.sh").read_text(encoding="utf-8")
    assert lowest
    assert f"({lowest[1].replace('.', ', ')}) <= sys.version_info" in setup
    assert re.findall(r"(?m)^ARG PYTHON=(\S+)", text("Dockerfile")) == [lowest[1]]


def test_the_compiler_of_the_cuda_image_is_for_the_cuda_of_the_locked_torch():
    cuda = CUDA_OF_TORCH[LOCKED["torch"]]
    source = text("Dockerfile")
    (image,) = re.findall(r"FROM nvidia/cuda:(\d+\.\d+)\.\d+-devel", source)
    assert image == cuda
    assert f"COPY --from=toolkit /usr/local/cuda-{cuda} /usr/local/cuda\n" in source


@pytest.mark.parametrize("package", ["psycopg[binary]", "Flask-WTF"])
def test_what_only_a_server_needs_has_one_version_everywhere(package):
    name = re.escape(package)
    named = [re.findall(rf"{name}==([\w.]+)", text(f)) for f in ("Dockerfile", "mlflow.sh")]
    found = {version for versions in named for version in versions}
    bare = package.partition("[")[0].lower()
    assert len(found | ({LOCKED[bare]} if bare in LOCKED else set())) == 1


def test_machines_without_an_image_install_what_is_locked():
    setup = (TOP / ".setup.sh").read_text(encoding="utf-8")
    assert "--constraint .constraints.txt" in setup
    assert "--constraint .constraints.txt" in text("Dockerfile")
