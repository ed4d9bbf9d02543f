import contextlib
import socket
import threading
import time

import pytest

from orchestrator.errors import UsageError
from orchestrator.launch.on_ray.cluster_address import check_answers, read_address


@pytest.fixture
def serve():
    """A server that says something to whoever connects, and listens to nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def start(words):
            def work():
                # The test may be over before.
                with contextlib.suppress(OSError):
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(1000)
                        connection.sendall(words)

            threading.Thread(target=work, daemon=True).start()
            return f"127.0.0.1:{server.getsockname()[1]}"

        yield start


@pytest.mark.parametrize("text", [None, "", " ", "local"])
def test_without_an_address_a_run_has_a_ray_of_its_own(text):
    assert read_address(text) is None


@pytest.mark.parametrize("text", ["head:6379", "10.0.0.1:6379", "[::1]:6379", "auto", " auto "])
def test_an_address_is_taken_as_it_is(text):
    assert read_address(text) == text.strip()


@pytest.mark.parametrize("text", ["head", "head:", ":6379", "head:0", "head:65536", "head:x"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(UsageError, match=r"is not host:port; write one such as host:6379$"):
        read_address(text)


@pytest.mark.parametrize("text", ["ray://head:10001", "http://head:8265"])
def test_other_doors_of_a_cluster_are_refused_with_the_right_one(text):
    with pytest.raises(UsageError, match=r"give the head's host:port"):
        read_address(text)


def test_a_server_that_greets_as_grpc_does_may_be_a_cluster(serve):
    # An empty SETTINGS frame: RFC 9113, 6.5.
    check_answers(serve(b"\0\0\0\x04\0\0\0\0\0"), environment={})


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", b""])
def test_another_server_is_no_cluster(serve, words):
    with pytest.raises(UsageError, match=r"is no Ray cluster; start one \(ray start --head\)"):
        check_answers(serve(words), environment={})


def test_a_server_that_says_nothing_is_not_waited_for():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(UsageError, match=r"silence for 0.2 s"):
            check_answers(address, environment={}, timeout_s=0.2)
        assert time.monotonic() - started < 2


def test_with_tls_the_greeting_is_left_to_ray(serve):
    check_answers(serve(b"\x16\x03"), environment={"RAY_USE_TLS": "1"})
