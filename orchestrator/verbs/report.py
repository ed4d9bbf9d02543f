"""`report`: rank runs that are already in MLflow, launched together or not."""

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import ExitCode, UsageError
from orchestrator.verbs.base import answer, home_path, say, width_of

if TYPE_CHECKING:
    from orchestrator.launch.past_runs import PastRuns
    from orchestrator.track.store import Store


def report(options: argparse.Namespace, started_unix_s: float) -> int:
    """Write the report of a comparison on runs that are over."""
    if options.experiment is None and not options.run:
        raise UsageError(
            "say which runs: --experiment NAME, or --run ID once or more; "
            "as in make report EXPERIMENT=resnet"
        )
    from orchestrator.track.mlflow_read import shown_uri
    from orchestrator.track.store import store_at

    store = store_at(options.uri, state=home_path(options))
    past = _read(options, store)
    baseline = past.entry_name(options.baseline)

    from orchestrator.launch.comparison.report import write_report
    from orchestrator.launch.home import open_home
    from orchestrator.launch.past_runs import ranked
    from orchestrator.render.report import reported_text, told_of
    from orchestrator.track.outbox import Outbox

    folder = open_home(home_path(options)).report_folder(past.name, at_unix_s=started_unix_s)
    outbox = Outbox(folder)
    # Nobody delivers it: its files lie where a person looks for them.
    outbox.artifacts = folder
    with options.voice.libraries_write_to(Path(os.devnull)):
        reported = write_report(
            outbox,
            ranked(past, baseline=baseline),
            name=past.name,
            controls=past.controls(baseline),
            told=told_of(past, store=shown_uri(store)),
        )
    seconds = time.time() - started_unix_s
    say(
        options,
        reported_text(
            reported, past, baseline=options.baseline, seconds=seconds, width=width_of(options)
        ),
    )
    answer(
        options,
        {
            **reported.ranking.to_json(),
            "report": str(reported.path),
            "left_out": [one.to_json() for one in past.left_out],
            "seconds": seconds,
        },
    )
    return ExitCode.DONE


def _read(options: argparse.Namespace, store: "Store") -> "PastRuns":
    from orchestrator.launch.past_runs import past_runs
    from orchestrator.track.mlflow_read import MlflowRunReader, reading_environment

    os.environ.update(reading_environment())
    with options.voice.libraries_write_to(Path(os.devnull)):
        reader = MlflowRunReader(store)
        return past_runs(reader, experiment=options.experiment, run_ids=options.run)
