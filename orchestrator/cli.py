"""The command line: what may be typed, and the outermost frame where errors become exit codes.

Environment variables, the clock and the terminal enter here and in `verbs`, and are passed down;
nothing heavy is imported before a verb needs it.
"""

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from orchestrator.errors import (
    DoesNotFitError,
    ExitCode,
    InterruptedRunError,
    OrchestratorError,
    UsageError,
)
from orchestrator.launch.stop_signals import StopSignals
from orchestrator.terminal.voice import Voice, said_aloud
from orchestrator.units import parse_duration

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
            exit_code = int(_function(options.verb)(options, started_unix_s))
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
        answer: dict[str, Any] = {"error": str(err), "exit_code": int(err.exit_code)}
        if err.exit_code in _OUTCOMES:
            answer["outcome"] = _OUTCOMES[err.exit_code]
        if isinstance(err, DoesNotFitError):
            answer["forecast"] = err.forecast
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

    def verb(name: str, help_text: str, module: str, *, job: bool) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=help_text, description=help_text)
        sub.set_defaults(verb=f"{module}:{name}")
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

    verb("validate", "read and check a job file", "plan", job=True)
    plan = verb("plan", "show what would be launched, exactly", "plan", job=True)
    launch = verb("launch", "run a job", "launch", job=True)
    for sub in (plan, launch):
        sub.add_argument("--address", help="Ray cluster (else RAY_ADDRESS, else a Ray of its own)")
        sub.add_argument(
            "-v",
            "--verbose",
            action="store_true",
            help="let Ray and the ranks talk to the terminal",
        )
        sub.add_argument(
            "--no-forecast", action="store_true", help="without a forecast, some seconds earlier"
        )
    launch.add_argument(
        "--force", action="store_true", help="launch also what does not fit by its forecast"
    )
    launch.add_argument(
        "--in-process", action="store_true", help="one worker in this process, without Ray"
    )
    # What `submit` puts beside the job: the versions where it was given.
    launch.add_argument("--submitted-with", type=Path, help=argparse.SUPPRESS)
    submit = _add_submit(verb)
    for sub in (launch, submit):
        sub.add_argument(
            "--wait",
            type=_duration,
            default=0.0,
            metavar="TIME",
            help="how long to wait for a cluster that is full, such as 10m (default: not at all)",
        )
    _add_forecast(verb)
    _add_compare(verb)
    _add_report(verb)
    verb("doctor", "say what this machine has and lacks", "look", job=False)
    ui = verb("ui", "open MLflow on what was recorded", "look", job=False)
    ui.add_argument("--port", type=int, help="port to listen on (default: 5000 or the next free)")
    verb("schema", "print the JSON schema of the job file", "plan", job=False)
    return parser


def _add_submit(verb: Callable[..., argparse.ArgumentParser]) -> argparse.ArgumentParser:
    submit = verb("submit", "run a job on a Ray cluster, and follow it", "submit", job=True)
    submit.add_argument(
        "--no-forecast", action="store_true", help="without a forecast, some seconds earlier"
    )
    submit.add_argument(
        "--force", action="store_true", help="launch also what does not fit by its forecast"
    )
    submit.add_argument("--no-wait", action="store_true", help="do not follow it")
    status = verb("status", "say how a submitted job is, or all of them", "submit", job=False)
    status.add_argument("job_id", nargs="?", metavar="JOB_ID", help="which job (default: all)")
    logs = verb("logs", "show what a submitted job says, to its end", "submit", job=False)
    stop = verb("stop", "end a submitted job", "submit", job=False)
    for sub in (logs, stop):
        sub.add_argument("job_id", metavar="JOB_ID", help="which job")
    for sub in (submit, status, logs, stop):
        sub.add_argument(
            "--address",
            help="the cluster's dashboard, http://head:8265 (else RAY_API_SERVER_ADDRESS)",
        )
    return submit


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as err:
        raise argparse.ArgumentTypeError(str(err)) from err


def _add_compare(verb: Callable[..., argparse.ArgumentParser]) -> None:
    compare = verb("compare", "run a job's strategies side by side", "compare", job=True)
    compare.add_argument("--address", help="Ray cluster (else RAY_ADDRESS, else a Ray of its own)")
    compare.add_argument(
        "-v", "--verbose", action="store_true", help="let Ray and the ranks talk to the terminal"
    )
    compare.add_argument(
        "--no-forecast", action="store_true", help="without forecasts, some seconds earlier"
    )
    compare.add_argument(
        "--force", action="store_true", help="run also what does not fit by its forecast"
    )
    compare.add_argument(
        "--isolate", action="store_true", help="every strategy in processes of its own; slower"
    )
    compare.add_argument(
        "--fresh", action="store_true", help="do not go on with an unfinished comparison"
    )


def _add_report(verb: Callable[..., argparse.ArgumentParser]) -> None:
    report = verb("report", "rank runs that are already in MLflow", "report", job=False)
    report.add_argument("--experiment", metavar="NAME", help="all runs of it that have ended")
    report.add_argument(
        "--run",
        action="extend",
        nargs="+",
        default=[],
        metavar="ID",
        help="this run, or all strategies of this comparison; may be repeated",
    )
    report.add_argument(
        "--uri", help="tracking store, http://host:port or sqlite:///file (else the state folder's)"
    )
    report.add_argument(
        "--baseline", metavar="NAME", help="the run, as the report calls it, to hold others against"
    )


def _function(verb: str) -> Callable[[argparse.Namespace, float], int]:
    """The function of a verb, named `module:function` in `orchestrator.verbs`."""
    module, _, name = verb.partition(":")
    function: Callable[[argparse.Namespace, float], int] = getattr(
        importlib.import_module(f"orchestrator.verbs.{module}"), name
    )
    return function


def _add_forecast(verb: Callable[..., argparse.ArgumentParser]) -> None:
    forecast = verb("forecast", "say what a job will cost, before it runs", "forecast", job=False)
    forecast.add_argument("job", type=Path, nargs="?", metavar="JOB", help="job file (YAML)")
    forecast.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one key, such as zero.stage=3; may be repeated",
    )
    forecast.add_argument("--grid", action="store_true", help="every sensible strategy, in a table")
    forecast.add_argument("--workers", type=int, metavar="N", help="what if there were N ranks")
    forecast.add_argument(
        "--device", metavar="NAME", help="what if they were such GPUs: h200, a100-80gb; or cpu"
    )
    forecast.add_argument(
        "--ranks-per-node", type=int, metavar="N", help="how many share a node (default: all; 8)"
    )
    forecast.add_argument("--rank", type=int, metavar="R", help="which rank (default: the fullest)")
    forecast.add_argument(
        "--closed-form", action="store_true", help="by arithmetic alone, without a shadow run"
    )
    forecast.add_argument(
        "--terms", action="store_true", help="every term of the closed form with its source"
    )
    forecast.add_argument(
        "--params", type=float, metavar="P", help="the closed form for so many parameters, no model"
    )
    forecast.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16"), default="bf16", help="with --params"
    )
    forecast.add_argument(
        "--optimizer",
        choices=("adamw", "adam", "sgd", "momentum", "rmsprop", "adafactor", "lion"),
        default="adamw",
        help="with --params",
    )
    forecast.add_argument(
        "--accuracy", action="store_true", help="how far forecasts were from what was measured"
    )
    forecast.add_argument("--devices", action="store_true", help="the GPUs that --device knows")
