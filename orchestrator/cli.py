"""The command line: one function a verb, and the outermost frame where errors become exit codes.

Environment variables, the clock and the terminal enter here and are passed down; nothing heavy is
imported before a verb needs it.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from orchestrator.errors import ExitCode, InterruptedRunError, OrchestratorError, UsageError
from orchestrator.launch.stop_signals import StopSignals
from orchestrator.terminal import Voice, said_aloud

if TYPE_CHECKING:
    from orchestrator.launch.ray_train import RayLauncher
    from orchestrator.plan.resources import Machine

# What became of a launch that ended before it had a record; of wrong input nothing became.
_OUTCOMES = {
    ExitCode.FAILED: "failed",
    ExitCode.DOES_NOT_FIT: "infeasible",
    ExitCode.INTERRUPTED: "interrupted",
}
JSON_HELP = "print one JSON object on stdout and everything else on stderr"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code.

    Args:
        arguments: the words after the program's name; `None` takes this process's.
    """
    started_unix_s = time.time()
    try:
        options = _parser().parse_args(arguments)
    except UsageError as err:
        return _report(err, as_json="--json" in (sys.argv if arguments is None else arguments))
    options.voice = Voice()
    with (
        said_aloud(options.voice, verbose=getattr(options, "verbose", False)),
        StopSignals(show=lambda line: options.voice.note(f"\n{line}")) as stopped,
    ):
        try:
            exit_code = int(options.verb(options, started_unix_s))
        except OrchestratorError as err:
            exit_code = _report(err, as_json=options.json)
        except KeyboardInterrupt:
            exit_code = _report(InterruptedRunError("interrupted"), as_json=options.json)
        except BrokenPipeError:
            # The reader of our output went away, as `| head` does.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ExitCode.FAILED
        except OSError as err:
            exit_code = _report(OrchestratorError(f"cannot go on: {err}"), as_json=options.json)
        if exit_code == ExitCode.INTERRUPTED:
            return stopped.exit_code or exit_code
        return exit_code


def _report(err: OrchestratorError, *, as_json: bool) -> int:
    sys.stderr.write(f"{err}\n")
    if as_json:
        answer = {"error": str(err), "exit_code": int(err.exit_code)}
        if err.exit_code in _OUTCOMES:
            answer["outcome"] = _OUTCOMES[err.exit_code]
        json.dump(answer, sys.stdout)
        sys.stdout.write("\n")
    return err.exit_code


class _Parser(argparse.ArgumentParser):
    """Tells a wrong command in one line, as every other mistake."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="orchestrator",
        description="Train on Ray with DeepSpeed and see what every sharding strategy costs.",
        epilog="Exit codes: 0 done, 1 the run failed, 2 wrong input, 3 it does not fit, "
        "4 out of memory, 130 interrupted (143 by SIGTERM).",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, help_text: str, function: Any, *, job: bool) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=help_text, description=help_text)
        sub.set_defaults(verb=function)
        sub.add_argument("--json", action="store_true", help=JSON_HELP)
        sub.add_argument(
            "--home", type=Path, help="state folder (else ORCHESTRATOR_HOME, else .orchestrator)"
        )
        if job:
            sub.add_argument("job", type=Path, metavar="JOB", help="job file (YAML)")
            sub.add_argument(
                "--set",
                action="append",
                default=[],
                metavar="KEY=VALUE",
                help="override one key, such as zero.stage=3; may be repeated",
            )
        return sub

    verb("validate", "read and check a job file", _validate, job=True)
    plan = verb("plan", "show what would be launched, exactly", _plan, job=True)
    launch = verb("launch", "run a job", _launch, job=True)
    for sub in (plan, launch):
        sub.add_argument("--address", help="Ray cluster (else RAY_ADDRESS, else a Ray of its own)")
        sub.add_argument(
            "-v",
            "--verbose",
            action="store_true",
            help="let Ray and the ranks talk to the terminal",
        )
    launch.add_argument(
        "--in-process", action="store_true", help="one worker in this process, without Ray"
    )
    verb("doctor", "say what this machine has and lacks", _doctor, job=False)
    ui = verb("ui", "open MLflow on what was recorded", _ui, job=False)
    ui.add_argument("--port", type=int, help="port to listen on (default: 5000 or the next free)")
    verb("schema", "print the JSON schema of the job file", _schema, job=False)
    return parser


def _say(options: argparse.Namespace, text: str) -> None:
    """A line for the person: stdout, or stderr when stdout is for JSON."""
    print(text, file=options.voice.err if options.json else options.voice.out, flush=True)


def _answer(options: argparse.Namespace, value: object) -> None:
    if options.json:
        print(json.dumps(value))


def _home_path(options: argparse.Namespace) -> Path:
    chosen = options.home or os.environ.get("ORCHESTRATOR_HOME")
    return Path(chosen) if chosen else Path(".orchestrator")


def _validate(options: argparse.Namespace, _started_unix_s: float) -> int:
    from orchestrator.spec.load import load_job
    from orchestrator.spec.shapes import resolve_shapes

    job = load_job(options.job, overrides=options.set)
    spec = resolve_shapes(job)
    _say(options, f"{options.job} is a valid job: {spec.name}")
    _answer(options, {"valid": True, "job": spec.model_dump(mode="json")})
    return ExitCode.DONE


def _plan(options: argparse.Namespace, _started_unix_s: float) -> int:
    from orchestrator.launch.cluster_address import read_address
    from orchestrator.launch.preflight import plan_job
    from orchestrator.launch.ray_train import RayLauncher
    from orchestrator.render import plan_text
    from orchestrator.spec.load import load_job

    job = load_job(options.job, overrides=options.set)
    address = read_address(options.address or os.environ.get("RAY_ADDRESS"))
    with RayLauncher(address=address) as launcher:
        machine = _machine(options, launcher, joins=address is not None)
        plan = plan_job(job, machine=machine, environment=os.environ)
    _say(options, plan_text(plan))
    if options.json:
        _answer(options, plan.to_json())
    else:
        print(f"\nDeepSpeed gets\n{json.dumps(plan.deepspeed, indent=2)}")
    return ExitCode.DONE


def _launch(options: argparse.Namespace, started_unix_s: float) -> int:
    from orchestrator.launch.cluster_address import read_address
    from orchestrator.launch.compiled_ops import make_ready
    from orchestrator.launch.git_commit import commit_here
    from orchestrator.launch.home import open_home
    from orchestrator.launch.in_process import InProcessLauncher
    from orchestrator.launch.preflight import plan_job
    from orchestrator.launch.ray_train import RayLauncher
    from orchestrator.launch.run import Setting, run_plan
    from orchestrator.render import plan_text, result_text, where_to_look
    from orchestrator.spec.load import load_job
    from orchestrator.terminal import Display
    from orchestrator.track.environment import mlflow_environment
    from orchestrator.track.mlflow import MlflowTracker
    from orchestrator.track.store import store_of

    if options.in_process and options.address:
        raise UsageError("--in-process runs without Ray and --address on one; keep one of the two")
    job = load_job(options.job, overrides=options.set)
    given = None if options.in_process else options.address or os.environ.get("RAY_ADDRESS")
    address = read_address(given)
    with RayLauncher(address=address, verbose=options.verbose) as ray_launcher:
        machine = _machine(options, ray_launcher, joins=address is not None)
        plan = plan_job(job, machine=machine, environment=os.environ)
        if options.in_process and plan.resources.workers != 1:
            raise UsageError(
                f"--in-process runs one worker and {options.job} asks for "
                f"{plan.resources.workers}; add --set resources.workers=1"
            )
        store = store_of(job, state=_home_path(options))
        home = open_home(_home_path(options))
        os.environ.update(mlflow_environment())
        _say(options, plan_text(plan))
        extensions = home.extensions(os.environ)
        make_ready(
            plan.compiled_ops,
            folder=extensions,
            environment=os.environ,
            show=lambda line: _say(options, line),
        )
        setting = Setting(
            home=home,
            open_tracker=lambda: MlflowTracker(store),
            started_unix_s=started_unix_s,
            user=os.environ.get("USER"),
            commit=commit_here(),
            extensions=extensions,
        )
        _say(options, "\nStarting the ranks; this takes about ten seconds")
        logs = home.run_folder(plan.spec.name, at_unix_s=started_unix_s) / "logs"
        with options.voice.libraries_write_to(None if options.verbose else logs / "driver.log"):
            display = Display(options.voice.err if options.json else options.voice.out)
            finished = run_plan(
                plan,
                job,
                launcher=InProcessLauncher() if options.in_process else ray_launcher,
                setting=setting,
                on_record=display.show,
            )
            display.close()
            ray_launcher.close()
    _say(
        options,
        "\n" + result_text(finished, look=where_to_look(finished, store=store, home=options.home)),
    )
    _answer(options, finished.record.to_json())
    if finished.failure is not None:
        sys.stderr.write(f"\n{finished.failure.message}\n")
        if finished.failure.details:
            sys.stderr.write(f"Details: {finished.folder / 'artifacts/logs/failure.txt'}\n")
        return finished.failure.exit_code
    return ExitCode.DONE


def _machine(options: argparse.Namespace, launcher: "RayLauncher", *, joins: bool) -> "Machine":
    """What there is to run on; joins the launcher's cluster, if it has one."""
    from orchestrator.plan.resources import this_machine

    if not joins:
        return this_machine(visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"))
    with options.voice.libraries_write_to(None if options.verbose else Path(os.devnull)):
        return launcher.cluster()


def _doctor(options: argparse.Namespace, _started_unix_s: float) -> int:
    from orchestrator.launch.doctor import examine_machine
    from orchestrator.render import doctor_text

    findings = examine_machine(state=_home_path(options), environment=os.environ)
    _say(options, doctor_text(findings))
    _answer(options, {"findings": [finding.to_json() for finding in findings]})
    broken = any(finding.level == "missing" for finding in findings)
    return ExitCode.FAILED if broken else ExitCode.DONE


def _ui(options: argparse.Namespace, _started_unix_s: float) -> int:
    from orchestrator.launch.home import open_home
    from orchestrator.track.open import choose_port, run_ui

    if options.port is not None:
        choose_port(options.port)
    home = open_home(_home_path(options))
    return run_ui(
        home.path,
        port=options.port,
        show=lambda line: _say(options, line),
        environment=os.environ,
    )


def _schema(_options: argparse.Namespace, _started_unix_s: float) -> int:
    from orchestrator.spec.schema import job_schema

    print(json.dumps(job_schema(), indent=2))
    return ExitCode.DONE
