"""`compare`: run every strategy of a job side by side and say which is best."""

import argparse
import os
from typing import TYPE_CHECKING

from orchestrator.errors import ExitCode
from orchestrator.verbs.base import (
    answer,
    home_path,
    machine_for,
    make_ops_ready,
    say,
    setting_for,
    width_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.launch.comparison.folder import ComparisonFolder
    from orchestrator.launch.comparison.planned import PlannedStrategy
    from orchestrator.launch.comparison.record import Compared
    from orchestrator.launch.home import Home
    from orchestrator.plan.resources import Machine
    from orchestrator.spec.load import JobFile


def compare(options: argparse.Namespace, started_unix_s: float) -> int:
    """Run every strategy of a job side by side."""
    from orchestrator.launch.comparison.comparison import Comparison
    from orchestrator.launch.comparison.planned import plan_strategies, with_forecasts
    from orchestrator.launch.forecasting import forecast_here
    from orchestrator.launch.home import open_home
    from orchestrator.launch.on_ray.cluster_address import read_address
    from orchestrator.launch.on_ray.ray_train import RayLauncher
    from orchestrator.render.compare import compared_text, planned_text
    from orchestrator.spec.load import load_job
    from orchestrator.terminal.comparison import ComparisonDisplay
    from orchestrator.track.store import store_of

    job = load_job(options.job, overrides=options.set)
    address = read_address(options.address or os.environ.get("RAY_ADDRESS"))
    with RayLauncher(address=address, verbose=options.verbose) as ranks:
        machine = machine_for(options, ranks, joins=address is not None)
        planned = plan_strategies(job, machine=machine, environment=os.environ)
        assert job.spec.compare is not None
        store = store_of(job, state=home_path(options))
        home = open_home(home_path(options))
        if not options.no_forecast:
            forecaster = forecast_here(home, environment=os.environ, alone=address is None)
            planned = with_forecasts(planned, forecaster, force=options.force)
        say(options, planned_text(planned, name=job.spec.name))
        setting = setting_for(home, store, started_unix_s=started_unix_s)
        ops = tuple(dict.fromkeys(op for one in planned for op in one.plan.compiled_ops))
        make_ops_ready(options, ops, setting=setting, joins=address is not None)
        folder = _folder(options, job, planned, home=home, machine=machine, at=started_unix_s)
        logs = folder.path / "logs"
        with options.voice.libraries_write_to(None if options.verbose else logs / "driver.log"):
            display = ComparisonDisplay(
                options.voice.err if options.json else options.voice.out,
                n_rounds=job.spec.compare.rounds,
            )
            comparison = Comparison(
                job,
                planned,
                folder=folder,
                setting=setting,
                launcher=ranks,
                watcher=display,
                isolated=options.isolate,
            )
            n_settled = comparison.take_up()
            if n_settled:
                say(options, f"{n_settled} of {len(planned)} strategies have their outcome already")
            compared = comparison.run()
            display.close()
        folder.release()
    say(
        options,
        "\n" + compared_text(compared, store=store, home=options.home, width=width_of(options)),
    )
    answer(options, _as_json(compared))
    return _exit_code(compared)


def _folder(
    options: argparse.Namespace,
    job: "JobFile",
    planned: "Sequence[PlannedStrategy]",
    *,
    home: "Home",
    machine: "Machine",
    at: float,
) -> "ComparisonFolder":
    """The folder of the comparison: that of an unfinished one of the very same, or a new one."""
    from orchestrator.launch.comparison.folder import (
        fingerprint,
        new_folder,
        outdated,
        unfinished,
    )

    assert job.spec.compare is not None
    print_of_all = fingerprint(planned, job.spec.compare, machine=machine)
    found = None if options.fresh else unfinished(home, fingerprint=print_of_all)
    if found is None:
        left = outdated(home, name=job.spec.name, fingerprint=print_of_all)
        if left is not None and not options.fresh:
            say(
                options,
                f"\n{left} was not finished and is left as it is: since then the job, the code "
                "here, a version or the machine has changed",
            )
        return new_folder(home, name=job.spec.name, at_unix_s=at, fingerprint=print_of_all)
    say(options, f"\nGoing on with {found.key}, which was not finished (--fresh begins anew)")
    return found


def _as_json(compared: "Compared") -> dict[str, object]:
    return {
        **compared.reported.ranking.to_json(),
        "report": str(compared.reported.path),
        "run_id": None if compared.tracked is None else compared.tracked.run_id,
        "interrupted": compared.interrupted,
        "seconds": compared.seconds,
    }


def _exit_code(compared: "Compared") -> ExitCode:
    """Not fitting is a result; failing for another reason is a failure."""
    if compared.interrupted:
        return ExitCode.INTERRUPTED
    if any(one.has_failed for one in compared.contestants):
        return ExitCode.FAILED
    if any(one.has_ended_well for one in compared.contestants):
        return ExitCode.DONE
    return ExitCode.DOES_NOT_FIT
