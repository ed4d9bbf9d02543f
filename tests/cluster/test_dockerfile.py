"""The image's build arguments, its user and what it installs."""

import re

import pytest

from tests.cluster.files import TOP, pod_templates, text

# Instructions, each on one line.
LINES = [
    line
    for line in re.sub(r"\\\n\s*", " ", text("Dockerfile")).splitlines()
    if line and not line.startswith("#")
]


def stages() -> dict[str, tuple[str, list[str]]]:
    """Name -> (what it starts from, its instructions)."""
    found: dict[str, tuple[str, list[str]]] = {}
    for line in LINES:
        if match := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            found[match[2]] = (match[1], [])
        elif found:
            list(found.values())[-1][1].append(line)
    return found


STAGES = stages()


def default(argument):
    (value,) = re.findall(rf"(?m)^ARG {argument}=(\S+)$", "\n".join(LINES))
    return value


def base_of(stage):
    """What an image is made on, going down through the stages."""
    start = STAGES[stage][0].replace("${VARIANT}", default("VARIANT"))
    return base_of(start) if start in STAGES else start


@pytest.mark.parametrize("variant", ["cpu", "cuda"])
def test_each_variant_is_a_stage_on_the_same_python(variant):
    assert base_of(variant) == "python:${PYTHON}-slim-bookworm"


def test_without_an_argument_it_is_the_cpu_image():
    assert default("VARIANT") == "cpu"
    assert STAGES["node"][0] == "${VARIANT}"
    assert list(STAGES)[-1] == "node"


def test_arguments_are_declared_where_they_are_used():
    """Source: Dockerfile reference, "Understand how ARG and FROM interact"."""
    for _, lines in STAGES.values():
        for name in ("VARIANT", "PYTHON"):
            uses = [
                i for i, line in enumerate(lines) if f"${name}" in line or f"${{{name}}}" in line
            ]
            assert not uses or f"ARG {name}" in lines[: uses[0]]


def test_only_the_cpu_variant_takes_torch_without_cuda():
    index = "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu"
    assert [name for name, (_, lines) in STAGES.items() if index in " ".join(lines)] == ["cpu"]


def test_the_build_fails_with_the_torch_of_the_other_variant():
    (line,) = [line for line in STAGES["node"][1] if "torch.version.cuda" in line]
    assert "assert (torch.version.cuda is None) == ('$VARIANT' == 'cpu')" in line


def test_cuda_ops_can_be_compiled_in_the_cuda_variant():
    lines = " ".join(STAGES["cuda"][1])
    assert "CUDA_HOME=/usr/local/cuda " in lines
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in lines


def test_what_ci_installs_to_compile_is_installed_here():
    ci = (TOP / ".ci" / "run").read_text(encoding="utf-8")
    (packages,) = re.findall(r"packages=\((.+)\)", ci)
    to_compile = {"g++", "libaio-dev"}
    assert to_compile <= set(packages.split())
    installed = next(line for line in STAGES["base"][1] if "apt-get install" in line)
    assert to_compile <= set(installed.split())


def test_kuberay_and_ray_up_find_the_programs_they_call():
    """Source: KubeRay's default probes (`wget --tries 1 ...`); ray 2.60.0, command_runner.py."""
    installed = next(line for line in STAGES["base"][1] if "apt-get install" in line)
    assert {"wget", "rsync", "openssh-client"} <= set(installed.split())


def test_it_runs_as_the_user_that_kubernetes_gives_it():
    lines = STAGES["node"][1]
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["1000:1000"]
    # Nothing is installed by that user.
    assert not [line for line in lines[lines.index("USER 1000:1000") :] if line.startswith("RUN")]
    made = next(line for line in lines if "useradd" in line)
    assert "--uid 1000 " in made
    ours = [
        t["spec"]["securityContext"]
        for t in pod_templates().values()
        if "orchestrator:" in t["spec"]["containers"][0]["image"]
    ]
    assert len(ours) == 6
    assert {(c["runAsUser"], c["runAsGroup"]) for c in ours} == {(1000, 1000)}


def test_ray_in_it_wants_a_token_unless_told_otherwise():
    environment = " ".join(line for line in STAGES["node"][1] if line.startswith("ENV"))
    assert "RAY_AUTH_MODE=token" in environment
    assert "RAY_USAGE_STATS_ENABLED=0" in environment


def test_it_is_installed_where_a_login_shell_finds_it():
    """Source: Debian's /etc/profile sets PATH to /usr/local/bin and the like, and nothing else."""
    installs = [line for line in LINES if "pip install" in line]
    assert len(installs) == 2
    assert not [line for line in LINES if "venv" in line or "--target" in line or "--user " in line]
