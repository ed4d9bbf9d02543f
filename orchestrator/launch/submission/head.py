"""The head of a Ray cluster, asked over HTTP before anything is sent to it.

Imports no Ray: what is wrong is told within seconds, in one line.
"""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import UsageError
from orchestrator.plan.resources import Machine, Node

DEFAULT_PORT = 8265
ANSWER_TIMEOUT_S = 5.0
_MOST_NODES = 10_000


def read_url(text: str | None) -> str:
    """Read the address of a dashboard as `--address` gives it.

    Args:
        text: `http://head:8265`, or `head:8265`.

    Raises:
        UsageError: there is none, or it is none.
    """
    way_out = "such as ADDRESS=http://head:8265, where the cluster's dashboard answers"
    if text is None or not text.strip():
        raise UsageError(f"say which Ray cluster: an address {way_out}")
    url = text.strip()
    if "://" not in url:
        url = f"http://{url}"
    try:
        parts = urllib.parse.urlsplit(url)
        has_port = parts.port is not None
    except ValueError as err:
        raise UsageError(f"Ray address {text!r}: {err}; write one {way_out}") from err
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"Ray address {text!r} is no web address; write one {way_out}")
    port = "" if has_port or parts.scheme == "https" else f":{DEFAULT_PORT}"
    return f"{parts.scheme}://{parts.netloc}{port}{parts.path.rstrip('/')}"


class Head:
    """The dashboard of a cluster.

    Args:
        url: as `read_url` gives it.
        environment: where Ray's token is found: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or
            `~/.ray/auth_token`, in this order.
    """

    def __init__(self, url: str, *, environment: Mapping[str, str]) -> None:
        self.url = url
        self._token = _token(environment)

    @property
    def has_token(self) -> bool:
        """Whether there is a token to show."""
        return self._token is not None

    def check(self, *, ray_version: str) -> None:
        """See that a Ray of the same minor version answers, and takes the token.

        Raises:
            UsageError: it does not.
        """
        told = self._ask("/api/version")
        theirs = told.get("ray_version")
        if not isinstance(theirs, str):
            raise self._no_ray()
        if theirs.split(".")[:2] != ray_version.split(".")[:2]:
            raise UsageError(
                f"the cluster at {self.url} runs Ray {theirs} and this is {ray_version}; "
                "install the same on both"
            )
        # The version is told to everybody.
        self._ask("/api/jobs/")

    def nodes(self) -> list[Node]:
        """Say what each node has that is alive.

        Raises:
            UsageError: it does not answer.
        """
        told = self._ask(f"/api/v0/nodes?limit={_MOST_NODES}&detail=true")
        try:
            rows = told["data"]["result"]["result"]
            return [
                Node(
                    n_cpus=float(row["resources_total"].get("CPU", 0.0)),
                    n_gpus=float(row["resources_total"].get("GPU", 0.0)),
                )
                for row in rows
                if row["state"] == "ALIVE"
            ]
        except (KeyError, TypeError, AttributeError) as err:
            raise UsageError(f"the cluster at {self.url} does not tell its nodes: {err}") from err

    def machine(self) -> Machine:
        """All its nodes together, as a plan sees them.

        Raises:
            UsageError: it does not answer.
        """
        nodes = self.nodes()
        return Machine(
            n_cpus=sum(node.n_cpus for node in nodes),
            n_gpus=sum(node.n_gpus for node in nodes),
            name=f"the cluster at {self.url}",
            nodes=tuple(nodes),
        )

    def _ask(self, path: str) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}{path}")
        if self._token is not None:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as answer:
                told = json.load(answer)
        except urllib.error.HTTPError as err:
            if err.code in (401, 403):
                raise self._refused() from err
            raise self._no_ray() from err
        except (urllib.error.URLError, TimeoutError, ConnectionError) as err:
            reason = getattr(err, "reason", err)
            words = getattr(reason, "strerror", None) or str(reason)
            raise UsageError(
                f"no Ray cluster answers at {self.url}: {words}; give the address of its "
                "dashboard, port 8265 unless it was started with another"
            ) from err
        except (ValueError, OSError) as err:
            raise self._no_ray() from err
        # Of jobs there is a list.
        return told if isinstance(told, dict) else {"rows": told}

    def _refused(self) -> UsageError:
        has = "refuses this token" if self.has_token else "wants a token"
        return UsageError(
            f"the Ray cluster at {self.url} {has}; put the cluster's in RAY_AUTH_TOKEN, or the "
            "path of a file with it in RAY_AUTH_TOKEN_PATH"
        )

    def _no_ray(self) -> UsageError:
        return UsageError(
            f"what answers at {self.url} is no Ray dashboard; give the address of one, port 8265 "
            "unless it was started with another (5000 is MLflow's)"
        )


def _token(environment: Mapping[str, str]) -> str | None:
    """The token that Ray itself would take.

    Source: ray 2.60.0, docs, "Token authentication": the order of precedence.
    """
    if token := environment.get("RAY_AUTH_TOKEN"):
        return token
    chosen = environment.get("RAY_AUTH_TOKEN_PATH")
    path = Path(chosen) if chosen else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError as err:
        if chosen:
            raise UsageError(f"RAY_AUTH_TOKEN_PATH {path} cannot be read: {err.strerror}") from err
        return None
