"""`validate`, `plan` and `schema`: check a job, show what would be launched, describe the file."""

import argparse
import dataclasses
import json
import os

from orchestrator.errors import ExitCode
from orchestrator.verbs.base import answer, forecast_to_show, home_path, machine_for, say


def validate(options: argparse.Namespace, _started_unix_s: float) -> int:
    """Read and check a job file."""
    from orchestrator.spec.load import load_job
    from orchestrator.spec.shapes import resolve_shapes

    job = load_job(options.job, overrides=options.set)
    spec = resolve_shapes(job)
    say(options, f"{options.job} is a valid job: {spec.name}")
    answer(options, {"valid": True, "job": spec.model_dump(mode="json")})
    return ExitCode.DONE


def plan(options: argparse.Namespace, _started_unix_s: float) -> int:
    """Show what would be launched, exactly."""
    from orchestrator.launch.home import Home
    from orchestrator.launch.on_ray.cluster_address import read_address
    from orchestrator.launch.on_ray.ray_train import RayLauncher
    from orchestrator.launch.preflight import plan_job
    from orchestrator.render.forecast import short_forecast_text
    from orchestrator.render.run import plan_text
    from orchestrator.spec.load import load_job

    job = load_job(options.job, overrides=options.set)
    address = read_address(options.address or os.environ.get("RAY_ADDRESS"))
    with RayLauncher(address=address) as launcher:
        machine = machine_for(options, launcher, joins=address is not None)
        plan = plan_job(job, machine=machine, environment=os.environ)
    say(options, plan_text(plan))
    if not options.no_forecast:
        home = Home(path=home_path(options))
        made = forecast_to_show(job, plan, home=home, alone=address is None)
        say(options, short_forecast_text(made))
        plan = dataclasses.replace(plan, forecast=made)
    if options.json:
        answer(options, plan.to_json())
    else:
        print(f"\nDeepSpeed gets\n{json.dumps(plan.deepspeed, indent=2)}")
    return ExitCode.DONE


def schema(_options: argparse.Namespace, _started_unix_s: float) -> int:
    """Print the JSON schema of the job file."""
    from orchestrator.spec.schema import job_schema

    print(json.dumps(job_schema(), indent=2))
    return ExitCode.DONE
