"""What every verb needs: to talk to the person, to answer in JSON, to find state and machine."""

import argparse
import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.forecast.forecast import Forecast
    from orchestrator.launch.home import Home
    from orchestrator.launch.on_ray.ray_train import RayLauncher
    from orchestrator.launch.open_run import Setting
    from orchestrator.plan.launch_plan import LaunchPlan
    from orchestrator.plan.resources import Machine
    from orchestrator.spec.load import JobFile
    from orchestrator.track.store import Store


def say(options: argparse.Namespace, text: str) -> None:
    """A line for the person: stdout, or stderr when stdout is for JSON."""
    print(text, file=options.voice.err if options.json else options.voice.out, flush=True)


def answer(options: argparse.Namespace, value: object) -> None:
    """The JSON object that stdout is for, when it was asked for."""
    if options.json:
        print(json.dumps(value))


def width_of(options: argparse.Namespace) -> int | None:
    """Columns of the terminal; `None` where the text goes elsewhere and nobody's lines break."""
    if options.json or not options.voice.out.isatty():
        return None
    return shutil.get_terminal_size().columns


def home_path(options: argparse.Namespace) -> Path:
    """The state folder that was asked for, by option or environment."""
    chosen = options.home or os.environ.get("ORCHESTRATOR_HOME")
    return Path(chosen) if chosen else Path(".orchestrator")


def machine_for(options: argparse.Namespace, launcher: "RayLauncher", *, joins: bool) -> "Machine":
    """What there is to run on; joins the launcher's cluster, if it has one."""
    from orchestrator.plan.resources import this_machine

    if not joins:
        return this_machine(visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"))
    with options.voice.libraries_write_to(None if options.verbose else Path(os.devnull)):
        return launcher.cluster()


def setting_for(home: "Home", store: "Store", *, started_unix_s: float) -> "Setting":
    """What a run gets from its surroundings.

    Args:
        home: the state folder.
        store: where it is tracked.
        started_unix_s: when the command was given.
    """
    from orchestrator.launch.git_commit import commit_here
    from orchestrator.launch.open_run import Setting
    from orchestrator.track.environment import mlflow_environment
    from orchestrator.track.mlflow import MlflowTracker

    os.environ.update(mlflow_environment())
    return Setting(
        home=home,
        open_tracker=lambda: MlflowTracker(store),
        started_unix_s=started_unix_s,
        user=os.environ.get("USER"),
        commit=commit_here(),
        extensions=home.extensions(os.environ),
    )


def make_ops_ready(
    options: argparse.Namespace, ops: Sequence[str], *, setting: "Setting", joins: bool
) -> None:
    """Compile what DeepSpeed needs here; on a cluster every node does it before its ranks start."""
    from orchestrator.launch.compiled_ops import make_ready

    if not joins:
        make_ready(
            ops,
            folder=setting.extensions,
            environment=os.environ,
            show=lambda line: say(options, line),
        )


def starting_text(ops: Sequence[str], *, joins: bool) -> str:
    """What is said before the ranks start."""
    if joins and ops:
        names = " and ".join(ops)
        return f"Starting the ranks; a node without DeepSpeed's {names} takes minutes to compile it"
    return "Starting the ranks; this takes about ten seconds"


def forecast_to_show(
    job: "JobFile", plan: "LaunchPlan", *, home: "Home", alone: bool
) -> "Forecast":
    """Forecast a plan where it would run, with the smallest change that fits if it does not.

    Args:
        job: as it was read.
        plan: its plan.
        home: the state folder.
        alone: it runs on this machine, whose memory is known.
    """
    from orchestrator.launch.compiled_ops import has_compiler
    from orchestrator.launch.forecasting import forecast_here
    from orchestrator.launch.strategy_grid import remedy

    forecaster = forecast_here(home, environment=os.environ, alone=alone)
    made = forecaster.forecast(plan)
    if not made.asks_for_a_change:
        return made
    change = remedy(job, plan, made, forecaster=forecaster, cpu_adam=has_compiler(os.environ))
    return dataclasses.replace(made, remedy=change)
