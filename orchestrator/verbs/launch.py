"""`launch`: run a job."""

import argparse
import dataclasses
import os
import sys
from typing import TYPE_CHECKING

from orchestrator.errors import DoesNotFitError, ExitCode, UsageError
from orchestrator.verbs.base import (
    answer,
    forecast_to_show,
    home_path,
    machine_for,
    make_ops_ready,
    say,
    setting_for,
    starting_text,
)

if TYPE_CHECKING:
    from orchestrator.forecast.forecast import Forecast


def launch(options: argparse.Namespace, started_unix_s: float) -> int:
    """Run a job."""
    from orchestrator.launch.home import open_home
    from orchestrator.launch.in_process import InProcessLauncher
    from orchestrator.launch.on_ray.cluster_address import read_address
    from orchestrator.launch.on_ray.ray_train import RayLauncher
    from orchestrator.launch.preflight import plan_job
    from orchestrator.launch.run import run_plan
    from orchestrator.launch.submission.parcel import read_submitted
    from orchestrator.render.forecast import short_forecast_text
    from orchestrator.render.run import plan_text, result_text, where_to_look
    from orchestrator.spec.load import load_job
    from orchestrator.terminal.progress import Display
    from orchestrator.track.store import store_of

    if options.in_process and options.address:
        raise UsageError("--in-process runs without Ray and --address on one; keep one of the two")
    overrides, examined = options.set, None
    if options.submitted_with is not None:
        submitted = read_submitted(options.submitted_with)
        overrides, examined = submitted.overrides, submitted.examined
    job = load_job(options.job, overrides=overrides)
    given = None if options.in_process else options.address or os.environ.get("RAY_ADDRESS")
    address = read_address(given)
    with RayLauncher(
        address=address,
        verbose=options.verbose,
        wait_s=options.wait,
        show=lambda line: say(options, line),
    ) as ray_launcher:
        machine = machine_for(options, ray_launcher, joins=address is not None)
        plan = plan_job(job, machine=machine, environment=os.environ, examined=examined)
        if options.in_process and plan.resources.workers != 1:
            raise UsageError(
                f"--in-process runs one worker and {options.job} asks for "
                f"{plan.resources.workers}; add --set resources.workers=1"
            )
        store = store_of(job, state=home_path(options))
        home = open_home(home_path(options))
        say(options, plan_text(plan))
        if not options.no_forecast:
            made = forecast_to_show(job, plan, home=home, alone=address is None)
            say(options, short_forecast_text(made))
            plan = dataclasses.replace(
                plan, forecast=made, forced=_is_forced(options, made, force=options.force)
            )
        setting = setting_for(home, store, started_unix_s=started_unix_s)
        joins = address is not None
        make_ops_ready(options, plan.compiled_ops, setting=setting, joins=joins)
        say(options, f"\n{starting_text(plan.compiled_ops, joins=joins)}")
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
    say(
        options,
        "\n" + result_text(finished, look=where_to_look(finished, store=store, home=options.home)),
    )
    answer(options, finished.record.to_json())
    if finished.failure is not None:
        sys.stderr.write(f"\n{finished.failure.message}\n")
        if finished.failure.details:
            sys.stderr.write(f"Details: {finished.folder / 'artifacts/logs/failure.txt'}\n")
        return finished.failure.exit_code
    return ExitCode.DONE


def _is_forced(options: argparse.Namespace, made: "Forecast", *, force: bool) -> bool:
    """Whether it is launched against its forecast.

    Raises:
        DoesNotFitError: it is over the budget, and not forced.
    """
    from orchestrator.render.forecast import way_out

    if made.verdict == "TOO_BIG" and not force:
        raise DoesNotFitError(
            f"{options.job}: it does not fit: {made.reason}; "
            f"{way_out(made)}, or launch it all the same with --force",
            made.to_json(),
        )
    return made.verdict == "TOO_BIG"
