"""`submit`, `status`, `logs` and `stop`: jobs on a Ray cluster, through its Jobs API."""

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import ExitCode, OrchestratorError
from orchestrator.verbs.base import answer, say

if TYPE_CHECKING:
    from orchestrator.launch.submission.head import Head
    from orchestrator.launch.submission.jobs import Jobs, JobState
    from orchestrator.plan.launch_plan import LaunchPlan
    from orchestrator.spec.load import JobFile


def submit(options: argparse.Namespace, started_unix_s: float) -> int:
    """Run a job on a cluster, and show what it says."""
    from orchestrator.launch.preflight import plan_job
    from orchestrator.launch.submission.parcel import pack
    from orchestrator.spec.load import load_job
    from orchestrator.units import as_bytes

    job = load_job(options.job, overrides=options.set)
    head = _head(options)
    plan = plan_job(job, machine=head.machine(), environment=os.environ, elsewhere=True)
    with tempfile.TemporaryDirectory(prefix="orchestrator-submit-") as folder:
        parcel = pack(job, plan, folder=Path(folder), overrides=options.set)
        jobs = _jobs(options, head)
        job_id = _new_id(job, at_unix_s=started_unix_s)
        with options.voice.libraries_write_to(Path(os.devnull)):
            jobs.send(
                parcel,
                job_id=job_id,
                name=job.spec.name,
                entrypoint=_entrypoint(options, job=parcel.job, job_id=job_id),
            )
    say(
        options,
        f"Submitted {job_id} to {head.url}: {as_bytes(parcel.n_bytes)} in "
        f"{time.time() - started_unix_s:.1f} s, {_size(plan)}",
    )
    if options.no_wait:
        say(options, _later(head.url, job_id))
        answer(options, {"job_id": job_id, "status": "submitted"})
        return ExitCode.DONE
    return _follow(options, jobs, job_id, url=head.url)


def status(options: argparse.Namespace, _started_unix_s: float) -> int:
    """Say how a job is, or all of them."""
    head = _head(options)
    jobs = _jobs(options, head)
    states = [jobs.state(options.job_id)] if options.job_id else jobs.all()
    if not states:
        say(options, f"No job was submitted to {head.url}")
    for state in states:
        say(options, _line(state))
    rows = [state.to_json() for state in states]
    answer(options, rows[0] if options.job_id else {"jobs": rows})
    return ExitCode.DONE


def logs(options: argparse.Namespace, _started_unix_s: float) -> int:
    """Show what a job says, from its beginning to its end, and end as it does."""
    head = _head(options)
    jobs = _jobs(options, head)
    jobs.state(options.job_id)
    return _follow(options, jobs, options.job_id, url=head.url)


def stop(options: argparse.Namespace, _started_unix_s: float) -> int:
    """End a job."""
    head = _head(options)
    state = _jobs(options, head).stop(options.job_id)
    say(options, _line(state))
    answer(options, state.to_json())
    return ExitCode.DONE if state.is_over else ExitCode.FAILED


def _head(options: argparse.Namespace) -> "Head":
    from importlib.metadata import version

    from orchestrator.launch.submission.head import Head, read_url

    given = options.address or os.environ.get("RAY_API_SERVER_ADDRESS")
    head = Head(read_url(given), environment=os.environ)
    head.check(ray_version=version("ray"))
    if head.has_token:
        # Else Ray's client keeps it to itself.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    return head


def _jobs(options: argparse.Namespace, head: "Head") -> "Jobs":
    from orchestrator.launch.submission.jobs import Jobs

    with options.voice.libraries_write_to(Path(os.devnull)):
        return Jobs(head.url)


def _new_id(job: "JobFile", *, at_unix_s: float) -> str:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(at_unix_s))
    return f"{job.spec.name}-{stamp}-{int(at_unix_s * 1000) % 1000:03d}"


def _entrypoint(options: argparse.Namespace, *, job: str, job_id: str) -> str:
    """The command that the cluster runs; its shell knows where state lies there.

    It runs from a copy in the state folder: Ray unpacks what was sent once more for a second node
    on the same machine, and takes away what lay there while the job runs.

    Source: ray 2.60.0, _private/runtime_env/working_dir.py: `overwrite=True`.
    """
    from orchestrator.launch.submission.parcel import SUBMITTED

    words = ["--submitted-with", SUBMITTED, "--wait", f"{options.wait:g}"]
    flags = {"--json": options.json, "--no-forecast": options.no_forecast, "--force": options.force}
    words += [flag for flag, given in flags.items() if given]
    return (
        'sent="$PWD" home="${ORCHESTRATOR_HOME:-$HOME/.orchestrator}" && '
        f'copy="$home/submitted/{job_id}" && mkdir -p "$copy" && cp -R . "$copy" && cd "$copy" && '
        f'exec python -m orchestrator launch "$sent"/{shlex.quote(job)} --home "$home" '
        f"{shlex.join(words)}"
    )


def _follow(options: argparse.Namespace, jobs: "Jobs", job_id: str, *, url: str) -> int:
    shown = _Shown(options)
    try:
        state = jobs.follow(job_id, show=shown.take)
    except KeyboardInterrupt:
        shown.end(job_id)
        sys.stderr.write(f"\nNo longer followed; {job_id} goes on. {_later(url, job_id)}\n")
        return ExitCode.INTERRUPTED
    shown.end(job_id)
    if state.status == "STOPPED":
        sys.stderr.write(f"{job_id} was stopped\n")
    elif state.exit_code is None and state.final_code:
        raise OrchestratorError(f"{job_id} did not begin on the cluster: {state.message[:300]}")
    return state.final_code


class _Shown:
    """What a job says, on its way to the terminal; with `--json` its answer to stdout alone."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._line = ""
        self._answer = ""

    def take(self, text: str) -> None:
        if not self._options.json:
            self._write(text)
            return
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._sort(line)

    def end(self, job_id: str) -> None:
        """Nothing more comes."""
        if not self._options.json:
            return
        self._sort(self._line)
        try:
            found = json.loads(self._answer)
        except ValueError:
            found = {"error": "the job gave no answer"}
        answer(self._options, {**found, "job_id": job_id})

    def _sort(self, line: str) -> None:
        if line.startswith("{"):
            self._answer = line
        elif line:
            self._write(f"{line}\n")

    def _write(self, text: str) -> None:
        voice = self._options.voice
        print(text, end="", file=voice.err if self._options.json else voice.out, flush=True)


def _size(plan: "LaunchPlan") -> str:
    n = plan.resources.workers
    return f"{n} worker{'s' if n != 1 else ''} on {plan.resources.device}"


def _later(url: str, job_id: str) -> str:
    return f"Later: make status (or logs, or stop) ADDRESS={url} JOB_ID={job_id}"


def _line(state: "JobState") -> str:
    started = state.started_unix_s
    at = "-" if started is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(started))
    code = "" if state.exit_code is None else f", exit code {state.exit_code}"
    said = (
        f"  {state.message[:160]}" if state.status == "FAILED" and state.exit_code is None else ""
    )
    return f"{state.job_id}  {state.status.lower()}{code}, submitted {at}{said}"
