"""Jobs of a Ray cluster: sent, followed, stopped. A thin layer over Ray's own client."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import ExitCode, UsageError
from orchestrator.launch.submission.parcel import Parcel

AGAIN_S = 1.0
"""Between two tries to follow a log whose connection broke."""
PATIENCE_S = 120.0
"""Longest that a cluster which went away is waited for."""
STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """What a cluster says of a job."""

    job_id: str
    name: str
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    message: str
    started_unix_s: float | None
    ended_unix_s: float | None
    exit_code: int | None
    """The job's own; `None` before its end, or if it never began."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def final_code(self) -> int:
        """What following it ends with."""
        if self.status == "STOPPED":
            return ExitCode.INTERRUPTED
        if self.exit_code is not None:
            return self.exit_code
        return ExitCode.DONE if self.status == "SUCCEEDED" else ExitCode.FAILED

    def to_json(self) -> dict[str, Any]:
        """As `--json` gives it."""
        return {
            "job_id": self.job_id,
            "name": self.name,
            "status": self.status.lower(),
            "message": self.message,
            "started_unix_s": self.started_unix_s,
            "ended_unix_s": self.ended_unix_s,
            "exit_code": self.exit_code,
        }


class Jobs:
    """The jobs of the cluster at an address; `Head.check` comes before.

    Args:
        url: of its dashboard.

    Raises:
        UsageError: it went away meanwhile.
    """

    def __init__(self, url: str) -> None:
        from ray.job_submission import JobSubmissionClient

        self._url = url
        # It tells of every connection that closes, to whoever looks on.
        logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.ERROR)
        with _told(url):
            self._client = JobSubmissionClient(url)

    def send(self, parcel: Parcel, *, job_id: str, name: str, entrypoint: str) -> None:
        """Upload a parcel and start it as a job.

        Args:
            parcel: what the job needs.
            job_id: what it is to be called; new.
            name: the job file's.
            entrypoint: the command, run in the parcel's folder.

        Raises:
            UsageError: the cluster does not take it.
        """
        with _told(self._url):
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=job_id,
                runtime_env={"working_dir": str(parcel.folder)},
                metadata={"name": name},
            )

    def state(self, job_id: str) -> JobState:
        """What became of a job so far.

        Raises:
            UsageError: there is none of that name, or the cluster does not answer.
        """
        with _told(self._url, job_id=job_id):
            return _state(self._client.get_job_info(job_id))

    def all(self) -> list[JobState]:
        """Every job that was submitted, the newest first."""
        with _told(self._url):
            found = [_state(one) for one in self._client.list_jobs() if one.submission_id]
        return sorted(found, key=lambda one: one.started_unix_s or 0.0, reverse=True)

    def logs(self, job_id: str) -> str:
        """All that a job has said so far."""
        with _told(self._url, job_id=job_id):
            return str(self._client.get_job_logs(job_id))

    def follow(self, job_id: str, *, show: Callable[[str], None]) -> JobState:
        """Show what a job says until it ends; a connection that breaks is made again.

        Args:
            job_id: which one.
            show: takes pieces of text, in order, each once.

        Raises:
            UsageError: there is no such job, or the cluster is gone for good.
        """
        n_shown = 0
        own_words = _WithoutHeader(show)

        def take(text: str) -> None:
            nonlocal n_shown
            own_words.take(text)
            n_shown += len(text)

        lost_s: float | None = None
        while True:
            with contextlib.suppress(RuntimeError, OSError, asyncio.TimeoutError):
                asyncio.run(self._tail(job_id, n_known=n_shown, take=take))
            try:
                state = self.state(job_id)
                if state.is_over:
                    take(self.logs(job_id)[n_shown:])
                    own_words.end()
                    return state
                lost_s = None
            except UsageError:
                lost_s = time.monotonic() if lost_s is None else lost_s
                if time.monotonic() - lost_s > PATIENCE_S:
                    raise
            time.sleep(AGAIN_S)

    def stop(self, job_id: str) -> JobState:
        """End a job and wait until it has ended, a minute at most."""
        with _told(self._url, job_id=job_id):
            self._client.stop_job(job_id)
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        while not (state := self.state(job_id)).is_over and time.monotonic() < deadline_s:
            time.sleep(AGAIN_S / 2)
        return state

    async def _tail(self, job_id: str, *, n_known: int, take: Callable[[str], None]) -> None:
        """Hand on what comes after so many characters, which were shown before."""
        n_seen = 0
        async for text in self._client.tail_job_logs(job_id):
            new = text[max(0, n_known - n_seen) :]
            n_seen += len(text)
            if new:
                take(new)


class _WithoutHeader:
    """Leaves out what Ray writes at the head of a log before a job's command says anything.

    Source: ray 2.60.0, dashboard/modules/job: job_supervisor.py, job_manager.py.
    """

    _LAST = "Running entrypoint for job "

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._head: str | None = ""

    def take(self, text: str) -> None:
        """Hand on what comes behind the header."""
        if self._head is None:
            self._show(text)
            return
        self._head += text
        _, found, last = self._head.partition(self._LAST)
        _, newline, rest = last.partition("\n")
        if found and newline:
            self._head = None
            if rest:
                self._show(rest)

    def end(self) -> None:
        """Nothing more comes: without a command, what Ray wrote is all there is."""
        if self._head:
            self._show(self._head)


def _state(info: Any) -> JobState:
    return JobState(
        job_id=info.submission_id,
        name=(info.metadata or {}).get("name", "-"),
        status=str(getattr(info.status, "value", info.status)),
        message=" ".join((info.message or "").split()),
        started_unix_s=None if info.start_time is None else info.start_time / 1000,
        ended_unix_s=None if info.end_time is None else info.end_time / 1000,
        exit_code=info.driver_exit_code,
    )


@contextlib.contextmanager
def _told(url: str, *, job_id: str | None = None) -> Iterator[None]:
    """Say in one line what Ray's client raises."""
    try:
        yield
    except (RuntimeError, OSError) as err:
        text = " ".join(str(err).split())
        if job_id is not None and "does not exist" in text:
            raise UsageError(
                f"the cluster at {url} has no job {job_id}; see make status ADDRESS={url}"
            ) from err
        raise UsageError(f"the cluster at {url} does not do it: {text[:300]}") from err
