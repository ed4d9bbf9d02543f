"""`forecast`: what a job will cost, before it runs; or every strategy, or a mere size."""

import argparse
import dataclasses
import os
import time
from typing import TYPE_CHECKING

from orchestrator.errors import ExitCode, UsageError
from orchestrator.verbs.base import answer, home_path, say

if TYPE_CHECKING:
    from orchestrator.launch.forecasting import Forecaster, Where
    from orchestrator.launch.strategy_grid import GridRow

GPUS_PER_NODE = 8
"""Of a machine that one only thinks of, as in an HGX or DGX."""
GRID_S = 40.0
"""After so long no further strategy of a grid is shadow-run."""


def forecast(options: argparse.Namespace, _started_unix_s: float) -> int:
    """Say what a job will cost."""
    _check(options)
    if options.accuracy:
        return _accuracy(options)
    if options.devices:
        return _devices(options)
    if options.params is not None:
        return _by_count(options)
    return _of_job(options)


def _check(options: argparse.Namespace) -> None:
    asked = [
        name
        for name, given in (
            ("a job file", options.job),
            ("--params", options.params is not None),
            ("--accuracy", options.accuracy),
            ("--devices", options.devices),
        )
        if given
    ]
    if not asked:
        raise UsageError("say what to forecast: a job file, or --params 7.5e9")
    if len(asked) > 1:
        raise UsageError(f"{asked[0]} and {asked[1]} do not go together; keep one of the two")
    for name, number in (
        ("--workers", options.workers),
        ("--ranks-per-node", options.ranks_per_node),
    ):
        if number is not None and number < 1:
            raise UsageError(f"{name} is {number}; there is at least one")
    if options.params is not None and not 1 <= options.params < 1e18:
        raise UsageError(f"--params is {options.params:g}; give a number of parameters, as 7.5e9")


def _of_job(options: argparse.Namespace) -> int:
    from orchestrator.launch.compiled_ops import has_compiler
    from orchestrator.launch.forecasting import Forecaster, fullest_rank
    from orchestrator.launch.home import Home
    from orchestrator.launch.preflight import plan_job
    from orchestrator.launch.shadows import Shadows
    from orchestrator.launch.strategy_grid import grid, remedy
    from orchestrator.plan.resources import this_machine
    from orchestrator.plan.what_if import ANY_CPU_MACHINE, ANY_MACHINE, imagined
    from orchestrator.render.forecast import forecast_text, terms_text
    from orchestrator.spec.load import load_job

    began_s = time.perf_counter()
    where, device = _where(options)
    job = load_job(options.job, overrides=options.set)
    job, notes = imagined(job, workers=options.workers, device=device)
    mine = this_machine(visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"))
    wants_gpu = job.spec.resources.device == "cuda" or (
        job.spec.resources.device == "auto" and mine.n_gpus >= 1
    )
    machine = ANY_MACHINE if wants_gpu else ANY_CPU_MACHINE
    plan = plan_job(job, machine=machine, environment=os.environ)
    if options.rank is not None and not 0 <= options.rank < plan.batch.workers:
        raise UsageError(f"--rank is {options.rank}; there are 0 to {plan.batch.workers - 1}")
    home = Home(path=home_path(options))
    shadows = Shadows(cache=home.shadows(os.environ), environment=os.environ)
    forecaster = Forecaster(shadows, where=where, environment=os.environ)
    cpu_adam = has_compiler(os.environ)
    if options.grid:
        rows = grid(job, plan, forecaster=forecaster, cpu_adam=cpu_adam)
        for note in notes:
            say(options, note)
        return _grid(options, rows, forecaster, began_s)
    if options.closed_form:
        profile = forecaster.profiles([plan])[0]
        known = None if isinstance(profile, str) else profile
        why = profile if isinstance(profile, str) else None
        rank = fullest_rank(plan, known) if options.rank is None else options.rank
        made = forecaster.closed_form(plan, profile=known, rank=rank, why=why, notes=notes)
    else:
        made = forecaster.forecast(plan, rank=options.rank, notes=notes)
    if made.asks_for_a_change:
        change = remedy(job, plan, made, forecaster=forecaster, cpu_adam=cpu_adam)
        made = dataclasses.replace(made, remedy=change)
    say(options, forecast_text(made, name=plan.spec.name))
    if options.terms:
        say(options, f"\nThe closed form's terms\n{terms_text(made.terms)}")
    answer(options, {**made.to_json(), "seconds": time.perf_counter() - began_s})
    return ExitCode.DOES_NOT_FIT if made.verdict == "TOO_BIG" else ExitCode.DONE


def _where(options: argparse.Namespace) -> "tuple[Where, str | None]":
    """What the forecast is held against, and the kind of device the job is put on."""
    from orchestrator.forecast.device_overhead import load_probes
    from orchestrator.launch.forecasting import Where
    from orchestrator.launch.local_gpu import local_gpu
    from orchestrator.launch.node_memory import node_memory_bytes
    from orchestrator.measure.devices import device_called

    per_node = options.ranks_per_node
    probes = load_probes(home_path(options) / "probes")
    if options.device is None:
        gpu = local_gpu()
        node = node_memory_bytes() if options.workers is None or per_node else None
        where = Where(device=gpu, ranks_per_node=per_node, node_budget_bytes=node, probes=probes)
        return where, None
    if options.device.lower() == "cpu":
        return Where(device=None, ranks_per_node=per_node, node_budget_bytes=None), "cpu"
    device = device_called(options.device)
    where = Where(
        device=device,
        ranks_per_node=per_node or GPUS_PER_NODE,
        # A machine that one does not have: its memory is not known.
        node_budget_bytes=None,
        probes=probes,
    )
    return where, "cuda"


def _grid(
    options: argparse.Namespace, rows: "list[GridRow]", forecaster: "Forecaster", began_s: float
) -> int:
    from orchestrator.launch.strategy_grid import best_by_shadow, in_order
    from orchestrator.render.forecast import grid_text

    until_s = began_s + GRID_S
    if not options.closed_form:
        rows = best_by_shadow(rows, forecaster, clock=time.perf_counter, until_s=until_s)
    rows = in_order(rows)
    say(options, grid_text(rows))
    n_fitting = sum(row.forecast.verdict == "FITS" for row in rows)
    order = "fastest first by an estimate, bytes of rank 0"
    say(options, f"\n{n_fitting} of {len(rows)} strategies fit; {order}")
    seconds = time.perf_counter() - began_s
    answer(options, {"rows": [row.to_json() for row in rows], "seconds": seconds})
    return ExitCode.DONE


def _by_count(options: argparse.Namespace) -> int:
    from orchestrator.forecast.by_count import by_count
    from orchestrator.measure.devices import device_called
    from orchestrator.render.forecast import by_count_text

    rows = by_count(
        int(options.params),
        n_ranks=options.workers or 1,
        precision=options.precision,
        optimizer=options.optimizer,
    )
    wanted = (options.device or "cpu").lower()
    device = None if wanted == "cpu" else device_called(wanted)
    say(options, by_count_text(rows, n_params=int(options.params), device=device))
    answer(options, {"rows": [row.to_json() for row in rows]})
    return ExitCode.DONE


def _accuracy(options: argparse.Namespace) -> int:
    from orchestrator.forecast.accuracy import accuracy, accuracy_text
    from orchestrator.forecast.receipts import load_receipts

    receipts = load_receipts(home_path(options) / "receipts")
    for broken in receipts.unreadable:
        say(options, f"{broken.path} is left out: {broken.reason}")
    rows = accuracy(receipts.kept)
    if not receipts.kept:
        say(options, "No run has left a receipt yet; launch a job first")
    else:
        say(options, accuracy_text(rows))
    answer(options, {"rows": [dataclasses.asdict(row) for row in rows]})
    return ExitCode.DONE


def _devices(options: argparse.Namespace) -> int:
    from orchestrator.measure.devices import known_devices
    from orchestrator.render.forecast import devices_text

    say(options, devices_text(known_devices()))
    answer(options, {"rows": [dataclasses.asdict(device) for device in known_devices()]})
    return ExitCode.DONE
