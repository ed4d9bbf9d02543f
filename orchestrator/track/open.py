"""The MLflow page on the embedded store: an `mlflow server` of ours for as long as a person looks.

Starts a child process, listens on 127.0.0.1 only, and ends the child by its pid.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from orchestrator.errors import ExitCode, UsageError
from orchestrator.track.environment import server_environment
from orchestrator.track.store import Store, create_store, embedded_store

HOST = "127.0.0.1"
DEFAULT_PORT = 5000
_TRIED_PORTS = 100
_START_S = 120.0
_STOP_S = 10.0


def server_command(store: Store, *, port: int) -> list[str]:
    """The command that serves a store to this machine alone.

    Args:
        store: the embedded store.
        port: TCP port, 1 to 65535.
    """
    # Any port of these names, so that the page also opens through an SSH tunnel.
    allowed = ("localhost", "localhost:*", HOST, f"{HOST}:*")
    return [
        sys.executable,
        *("-m", "mlflow", "server"),
        *("--backend-store-uri", store.uri),
        *("--default-artifact-root", store.artifact_root.as_uri() if store.artifact_root else ""),
        *("--host", HOST),
        *("--port", str(port)),
        *("--workers", "1"),
        *("--allowed-hosts", ",".join(allowed)),
        "--no-serve-artifacts",
    ]


def choose_port(port: int | None) -> int:
    """Find a port to listen on.

    Args:
        port: the one asked for; `None`: 5000, or the next free one.

    Raises:
        UsageError: it is no port, or in use.
    """
    if port is None:
        return _free_port(DEFAULT_PORT)
    if not 1 <= port <= 65535:
        raise UsageError(f"port {port} is out of range; take one from 1024 to 65535")
    try:
        _listen(port)
    except PermissionError as err:
        raise UsageError(f"port {port} is reserved for the system; take one above 1023") from err
    except OSError as err:
        raise UsageError(f"port {port} is in use; {_free_port(port)} is free") from err
    return port


def run_ui(
    state: Path,
    *,
    port: int | None,
    show: Callable[[str], None],
    environment: Mapping[str, str],
) -> ExitCode:
    """Serve the MLflow page until Ctrl-C; the store is made if it is missing.

    Args:
        state: the state folder.
        port: the port asked for, or `None`.
        show: takes lines for the user.
        environment: the environment variables of this process.

    Returns:
        DONE after Ctrl-C or a request to terminate; FAILED if the server ended by itself.

    Raises:
        UsageError: the port cannot be used, or the state folder not be written.
        TrackingUnavailableError: the store cannot be made.
    """
    chosen = choose_port(port)
    store = embedded_store(state)
    log_path = state / "logs" / "mlflow_server.log"
    try:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log_path.write_bytes(b"")
    except OSError as err:
        raise UsageError(f"{log_path} cannot be written: {err.strerror}") from err
    with _terminations_as_interrupts():
        try:
            show("Starting MLflow; this takes about ten seconds")
            if store.database is not None:
                create_store(store.database)
            return _serve(
                server_command(store, port=chosen),
                environment={**environment, **server_environment()},
                url=f"http://{HOST}:{chosen}",
                log_path=log_path,
                show=show,
            )
        except KeyboardInterrupt:
            show("MLflow is stopped")
            return ExitCode.DONE


def _serve(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    url: str,
    log_path: Path,
    show: Callable[[str], None],
) -> ExitCode:
    with (
        log_path.open("ab") as log_file,
        # A session of its own, so that Ctrl-C reaches it once: through us.
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            cwd=log_path.parent,
            start_new_session=True,
            umask=0o077,
        ) as server,
    ):
        try:
            if _wait_until_up(server, url):
                show(f"MLflow is at {url} (Ctrl-C ends it)")
            else:
                show(f"MLflow does not answer at {url}; its words are in {log_path}")
            server.wait()
        finally:
            _stop(server)
    show(f"MLflow ended by itself, exit code {server.returncode}; its last words:")
    show("\n".join(log_path.read_text(errors="replace").splitlines()[-5:]))
    return ExitCode.FAILED


def _wait_until_up(server: "subprocess.Popen[bytes]", url: str) -> bool:
    # A proxy of the environment must not be asked for this machine's own address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s and server.poll() is None:
        try:
            with opener.open(f"{url}/health", timeout=2):
                return True
        except OSError:
            time.sleep(0.2)
    return False


def _stop(server: "subprocess.Popen[bytes]") -> None:
    if server.poll() is not None:
        return
    server.terminate()
    try:
        server.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        # The session is the child's alone: this takes its workers with it.
        os.killpg(server.pid, signal.SIGKILL)


@contextmanager
def _terminations_as_interrupts() -> Iterator[None]:
    """Let `kill` and a closed terminal end the server as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signals = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _free_port(first: int) -> int:
    for port in range(first, min(first + _TRIED_PORTS, 65536)):
        try:
            _listen(port)
        except OSError:
            continue
        return port
    raise UsageError(f"no port from {first} to {first + _TRIED_PORTS - 1} is free; take another")


def _listen(port: int) -> None:
    with socket.socket() as probe:
        # A server that has just ended leaves the port bound but usable.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        probe.listen()
