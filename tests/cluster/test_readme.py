"""cluster/README.md leads to what is there, and leaves nothing out."""

import re

from tests.cluster.files import CLUSTER, TOP, text

PARTS_OF_OTHERS = {"README.md", "Dockerfile.dockerignore", "ray_local_nodes.py"}
README = text("README.md")


def test_every_link_leads_to_a_file():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (CLUSTER / link).exists()] == []


def test_every_path_in_a_command_is_there():
    paths = re.findall(r"\b((?:cluster|jobs)/[\w.-]+\w)", README)
    assert paths
    assert [path for path in paths if not (TOP / path).exists()] == []


def test_every_file_is_told_of():
    told = set(re.findall(r"[\w-]+\.(?:sh|yaml)|Dockerfile", README))
    here = {p.name for p in CLUSTER.iterdir() if p.is_file()}
    assert here - PARTS_OF_OTHERS - told == set()


def test_every_yaml_file_begins_with_what_it_shows_what_it_needs_and_how_to_run_it():
    for path in CLUSTER.glob("*.yaml"):
        header = path.read_text(encoding="utf-8").split("\n\n")[0]
        words = re.findall(r"(?m)^# (\w+): +\S", header)
        assert words[:3] == ["Shows", "Needs", "Run"], path.name
        assert f"cluster/{path.name}" in header
