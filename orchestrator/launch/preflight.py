"""What is looked at before anything starts: the user's own code, the data, the compiled ops.

Whatever is wrong ends here, in one line, with nothing started and nothing to clean up.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import SpecError, UsageError
from orchestrator.launch.compiled_ops import has_compiler
from orchestrator.plan.launch_plan import LaunchPlan, make_plan
from orchestrator.plan.resources import Machine
from orchestrator.spec.data import FactoryData, TextData
from orchestrator.spec.load import JobFile
from orchestrator.spec.model import FactoryModel
from orchestrator.spec.shapes import resolve_shapes

EXAMINE_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What a look at the user's own model and data told."""

    n_params: int


def plan_job(
    job: JobFile,
    *,
    machine: Machine,
    environment: Mapping[str, str],
    examined: Examined | None = None,
    elsewhere: bool = False,
) -> LaunchPlan:
    """Make the plan of a job, looking into user code and data files where there are any.

    Args:
        job: the checked job file.
        machine: what there is to run on.
        environment: of this process.
        examined: what a look at the very same model and data told before; then there is no other.
        elsewhere: it runs on other machines, whose disks and compilers cannot be looked at.

    Raises:
        SpecError: something in the job file is wrong or does not fit.
        InfeasibleError: the machine has less than is asked for.
    """
    cpu_adam = elsewhere or has_compiler(environment)
    n_params = None if examined is None else examined.n_params
    if examined is None and has_user_parts(job):
        # Everything that needs no user code is checked first: it takes no time.
        make_plan(job, machine=machine, n_params=1, cpu_adam=cpu_adam)
        can_look = not (elsewhere and lies_elsewhere(job))
        n_params = examine(job, environment=environment).n_params if can_look else 1
    plan = make_plan(job, machine=machine, n_params=n_params, cpu_adam=cpu_adam)
    if not elsewhere:
        _check_nvme(job)
    return plan


def examine(job: JobFile, *, environment: Mapping[str, str]) -> Examined:
    """Build the user's model and data once, in a process of its own.

    Raises:
        SpecError: they cannot be built or do not fit together.
        UsageError: the process broke down or took too long.
    """
    request = {
        "spec": resolve_shapes(job).model_dump(mode="json"),
        "folder": str(job.path.absolute().parent),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.worker.examine"],
            input=json.dumps(request),
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=EXAMINE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as err:
        raise UsageError(
            f"building the model and data of {job.path} once took over {EXAMINE_TIMEOUT_S:.0f} s"
        ) from err
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if not lines or isinstance(lines[-1], str):
        raise _ended_without_answer(job, done, running=lines[-1] if lines else None)
    answer = lines[-1]
    if answer["problem"] is not None:
        raise SpecError([job.problem(answer["problem_key"], answer["problem"])])
    return Examined(n_params=answer["n_params"])


def _ended_without_answer(
    job: JobFile, done: subprocess.CompletedProcess[str], *, running: str | None
) -> SpecError | UsageError:
    """Say how the process ended, and whose code it was running."""
    last = (done.stderr.strip().splitlines() or [""])[-1]
    if running is None:
        return UsageError(f"building the model and data of {job.path} once failed: {last}")
    if done.returncode < 0:
        name = signal.strsignal(-done.returncode)
        how = f"was killed while it was being examined (signal {-done.returncode}: {name})"
        message = f"{how}; run it by itself to see why"
    else:
        how = f"ended the program while it was being examined (exit code {done.returncode})"
        message = f"{how}; raise an error instead"
        if done.returncode == 1 and last:
            # Python's own end: an error of a kind nobody expects there, or sys.exit("words").
            message = f"{how}: {last}"
    return SpecError([job.problem(running, message)])


def has_user_parts(job: JobFile) -> bool:
    """Whether a job has code or data of the user's own, which must be looked at."""
    data = job.spec.data
    return (
        isinstance(job.spec.model, FactoryModel)
        or isinstance(data, FactoryData)
        or (isinstance(data, TextData) and data.path is not None)
    )


def lies_elsewhere(job: JobFile) -> bool:
    """Whether a job's data is named by a path that this machine does not have."""
    data = job.spec.data
    if not isinstance(data, TextData) or data.path is None:
        return False
    return Path(data.path).is_absolute() and not Path(data.path).exists()


def _check_nvme(job: JobFile) -> None:
    path = job.spec.zero.nvme_path
    if path is not None and not Path(path).is_dir():
        message = f"{path} is no folder; make it on the NVMe disk or name another"
        raise SpecError([job.problem("zero.nvme_path", message)])
