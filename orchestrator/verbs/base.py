"""What every verb needs: to talk to the person, to answer in JSON, to find state and machine."""

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.launch.ray_train import RayLauncher
    from orchestrator.plan.resources import Machine


def say(options: argparse.Namespace, text: str) -> None:
    """A line for the person: stdout, or stderr when stdout is for JSON."""
    print(text, file=options.voice.err if options.json else options.voice.out, flush=True)


def answer(options: argparse.Namespace, value: object) -> None:
    """The JSON object that stdout is for, when it was asked for."""
    if options.json:
        print(json.dumps(value))


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
