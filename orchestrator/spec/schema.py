"""The JSON schema of the job file, for editors that check and complete YAML while it is written.

Read off the sections; `job.schema.json` beside this module is its committed copy. Rules across keys
are not in it.
"""

import json
from typing import Any

from orchestrator.spec.job import JobSpec

SCHEMA_FILE = "job.schema.json"
"""Beside this module; the first line of a job file points to it."""


def job_schema() -> dict[str, Any]:
    """Build the schema: closed, with a title and a description of every key."""
    schema = JobSpec.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Job file of the orchestrator",
        "description": "One training run: what is trained, on what, how it is sharded.",
    }


def schema_text() -> str:
    """Write the schema as the committed file has it."""
    return json.dumps(job_schema(), indent=2, ensure_ascii=False) + "\n"
