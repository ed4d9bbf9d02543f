"""The address of a Ray cluster: read, and tried before Ray itself is asked to connect.

Ray waits for minutes for a cluster that is not there, and its library aborts the process after.
Opens one TCP connection; imports no Ray.
"""

import socket
from collections.abc import Mapping

from orchestrator.errors import UsageError

AUTO = "auto"
CONNECT_TIMEOUT_S = 5.0

# The client's half of an HTTP/2 greeting (RFC 9113, 3.4), which every gRPC server answers.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_HEAD_BYTES = 9
_SETTINGS = 4
_WAY_OUT = "start one (ray start --head) or leave the address out"


def read_address(text: str | None) -> str | None:
    """Read an address as `--address` or RAY_ADDRESS gives it.

    Args:
        text: `host:port` of the cluster's head, `auto` for the cluster this machine is part of,
            `local` or nothing for a Ray of the run's own.

    Returns:
        `host:port` or `auto`; `None` for a Ray of the run's own.

    Raises:
        UsageError: it is none of these.
    """
    if text is None or text.strip() in ("", "local"):
        return None
    address = text.strip()
    if address == AUTO:
        return AUTO
    if "://" in address:
        raise UsageError(
            f"Ray address {address}: a run starts on a machine of the cluster; "
            "give the head's host:port (6379 unless it was started with another), or auto"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise UsageError(f"Ray address {address!r} is not host:port; write one such as host:6379")
    return address


def check_answers(
    address: str, *, environment: Mapping[str, str], timeout_s: float = CONNECT_TIMEOUT_S
) -> None:
    """See that something that may be a Ray head answers.

    Args:
        address: `host:port`.
        environment: RAY_USE_TLS says that the cluster greets in another way.
        timeout_s: longest wait for a connection, and again for an answer.

    Raises:
        UsageError: nothing answers, or not as Ray does.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection(
            (host.strip("[]"), int(port)), timeout=timeout_s
        ) as connection:
            if environment.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return
            connection.sendall(_GREETING)
            answer = connection.recv(_HEAD_BYTES, socket.MSG_WAITALL)
    except TimeoutError as err:
        raise UsageError(
            f"no Ray cluster answers at {address}: silence for {timeout_s:g} s; {_WAY_OUT}"
        ) from err
    except OSError as err:
        reason = err.strerror or str(err)
        raise UsageError(f"no Ray cluster answers at {address}: {reason}; {_WAY_OUT}") from err
    if len(answer) < _HEAD_BYTES or answer[3] != _SETTINGS:
        raise UsageError(f"what answers at {address} is no Ray cluster; {_WAY_OUT}")
