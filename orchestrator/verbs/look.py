"""`doctor` and `ui`: look at this machine, and at what was recorded."""

import argparse
import os

from orchestrator.errors import ExitCode
from orchestrator.verbs.base import answer, home_path, say


def doctor(options: argparse.Namespace, _started_unix_s: float) -> int:
    """Say what this machine has and lacks."""
    from orchestrator.launch.doctor import examine_machine
    from orchestrator.render.run import doctor_text

    findings = examine_machine(state=home_path(options), environment=os.environ)
    say(options, doctor_text(findings))
    answer(options, {"findings": [finding.to_json() for finding in findings]})
    broken = any(finding.level == "missing" for finding in findings)
    return ExitCode.FAILED if broken else ExitCode.DONE


def ui(options: argparse.Namespace, _started_unix_s: float) -> int:
    """Open MLflow on what was recorded."""
    from orchestrator.launch.home import open_home
    from orchestrator.track.open import choose_port, run_ui

    if options.port is not None:
        choose_port(options.port)
    home = open_home(home_path(options))
    return run_ui(
        home.path,
        port=options.port,
        show=lambda line: say(options, line),
        environment=os.environ,
    )
