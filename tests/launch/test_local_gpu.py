import pytest

from orchestrator.launch.local_gpu import local_gpu


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Put a program in place of NVIDIA's, the only one that can be found."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def write(script):
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    return write


@pytest.mark.usefixtures("driver")
def test_without_the_driver_s_program_there_is_no_gpu():
    assert local_gpu() is None


# As the program names them.
@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H200", "H200 SXM"),
        ("Tesla T4", "T4"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM4 80GB"),
        ("NVIDIA GeForce RTX 4090", "GeForce RTX 4090"),
    ],
)
def test_the_name_that_the_driver_gives_is_found_in_the_table(driver, told, name):
    driver(f"echo '{told}'")
    found = local_gpu()
    assert found is not None
    assert found.name == name


def test_it_is_the_first_of_several(driver):
    driver("echo 'NVIDIA H200'; echo 'Tesla T4'")
    found = local_gpu()
    assert found is not None
    assert found.name == "H200 SXM"


def test_the_program_is_asked_for_names_alone(driver):
    driver('[ "$*" = "--query-gpu=name --format=csv,noheader" ] && echo "NVIDIA H200"')
    assert local_gpu() is not None


@pytest.mark.parametrize(
    "script",
    [
        "echo 'NVIDIA GB999 Ultra'",
        "echo 'NVIDIA H100 80GB HBM3 MIG 1g.10gb'",
        # As a driver without a device ends.
        "echo 'No devices were found'; exit 6",
        "echo 'NVIDIA H200'; exit 9",
        "true",
    ],
    ids=["unknown", "a slice", "no device", "failed", "silent"],
)
def test_a_gpu_that_is_not_surely_known_is_none(driver, script):
    driver(script)
    assert local_gpu() is None


def test_a_program_that_cannot_be_run_is_none(driver, tmp_path):
    driver("")
    (tmp_path / "nvidia-smi").write_bytes(b"\x7fELF but not really")
    assert local_gpu() is None
