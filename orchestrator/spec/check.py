"""Plain values against the sections of a job: the spec, or everything that is wrong with it.

Pure. Rules across keys are in `rules`.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from orchestrator.spec.finding import Finding
from orchestrator.spec.job import JobSpec
from orchestrator.spec.messages import findings_of


def check_values(values: Mapping[str, Any]) -> JobSpec | tuple[Finding, ...]:
    """Build the spec, or say what is wrong, key by key."""
    try:
        return JobSpec.model_validate(values)
    except ValidationError as err:
        return findings_of(err, values)
