"""What answers at a cluster's address, and what is said of it; the answers come over real HTTP."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from orchestrator.errors import UsageError
from orchestrator.launch.submission.head import Head, read_url
from orchestrator.plan.resources import Node

VERSION = json.dumps({"version": "4", "ray_version": "2.60.0", "ray_commit": "abc"})
NODES = json.dumps(
    {
        "result": True,
        "data": {
            "result": {
                "result": [
                    {"state": "ALIVE", "resources_total": {"CPU": 2.0, "GPU": 1.0, "memory": 9e9}},
                    {"state": "ALIVE", "resources_total": {"CPU": 3.0}},
                    {"state": "DEAD", "resources_total": {"CPU": 64.0}},
                ]
            }
        },
    }
)


@pytest.fixture
def serve():
    """Answer each path with a status and a text; gives the address."""
    servers = []

    def start(**answers):
        class Answers(BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.partition("?")[0].strip("/").rpartition("/")[2]
                code, text = answers.get(name, (404, "<!doctype html>"))
                token = answers.get("token")
                if token and name != "version" and self.headers["Authorization"] != token:
                    code, text = (403, "no")
                self.send_response(code)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def nobody(tmp_path, monkeypatch):
    """A person without a token in the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))


def check(url, **environment):
    head = Head(url, environment=environment)
    head.check(ray_version="2.60.1")
    return head


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://head:8265", "http://head:8265"),
        ("http://head:8265/", "http://head:8265"),
        ("head:8265", "http://head:8265"),
        ("head", "http://head:8265"),
        ("https://ray.example.com", "https://ray.example.com"),
    ],
)
def test_an_address_is_read(text, url):
    assert read_url(text) == url


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "say which Ray cluster"),
        ("  ", "say which Ray cluster"),
        ("ray://head:10001", "'ray://head:10001' is no web address"),
        ("http://head:port", "'http://head:port'"),
        ("http://", "is no web address"),
    ],
)
def test_what_is_no_address_is_told_in_one_line(text, words):
    with pytest.raises(UsageError) as told:
        read_url(text)
    assert words in str(told.value)
    assert "ADDRESS=http://head:8265" in str(told.value)


def test_a_ray_of_the_same_minor_version_is_taken_and_its_nodes_are_counted(serve):
    url = serve(version=(200, VERSION), jobs=(200, "[]"), nodes=(200, NODES))
    head = check(url)
    machine = head.machine()
    assert machine.nodes == (Node(n_cpus=2, n_gpus=1), Node(n_cpus=3, n_gpus=0))
    assert (machine.n_cpus, machine.n_gpus) == (5, 1)
    assert machine.name == f"the cluster at {url}"


def test_another_minor_version_is_named(serve):
    told = VERSION.replace("2.60.0", "2.59.9")
    with pytest.raises(UsageError, match=r"runs Ray 2\.59\.9 and this is 2\.60\.1; install"):
        check(serve(version=(200, told)))


def test_what_is_no_ray_is_said_not_to_be_one(serve):
    # MLflow answers an unknown path with its page, or with 404.
    for answers in ({}, {"version": (200, "<!doctype html>")}, {"version": (200, '{"a": 1}')}):
        with pytest.raises(UsageError, match=r"is no Ray dashboard; .*5000 is MLflow's"):
            check(serve(**answers))


def test_nobody_at_the_address_is_told():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UsageError, match=r"no Ray cluster answers at .*: Connection refused"):
            check(url)


def test_a_token_is_shown_and_a_wrong_or_missing_one_is_told(serve, tmp_path):
    url = serve(version=(200, VERSION), jobs=(200, "[]"), token="Bearer right")
    assert check(url, RAY_AUTH_TOKEN="right").has_token
    with pytest.raises(UsageError, match="refuses this token; put the cluster's in RAY_AUTH_TOKEN"):
        check(url, RAY_AUTH_TOKEN="wrong")
    with pytest.raises(UsageError, match="wants a token; put"):
        check(url)
    path = tmp_path / "token"
    path.write_text("right\n")
    check(url, RAY_AUTH_TOKEN_PATH=str(path))
    with pytest.raises(
        UsageError, match=r"RAY_AUTH_TOKEN_PATH .*none cannot be read: No such file"
    ):
        check(url, RAY_AUTH_TOKEN_PATH=str(tmp_path / "none"))


def test_the_token_in_the_home_folder_is_found(serve, tmp_path):
    url = serve(version=(200, VERSION), jobs=(200, "[]"), token="Bearer at home")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("at home")
    assert check(url).has_token
