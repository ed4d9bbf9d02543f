"""The whole job file as one closed, frozen object, and the rules that span several keys.

Rules about one key live on the key; rules about numbers of workers and devices live in `plan`.
"""

from typing import Annotated, Any

from pydantic import Field

from orchestrator.spec.base import Section
from orchestrator.spec.data import DataSection
from orchestrator.spec.model import ModelSection
from orchestrator.spec.sections import (
    CheckpointSection,
    CompareSection,
    FailuresSection,
    MeasureSection,
    ResourcesSection,
    TrackingSection,
    TrainingSection,
    ZeroSection,
)

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"


class JobSpec(Section):
    """What the user wrote, checked."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    """Lower-case letters, digits, dots, dashes, underscores; at most 63."""
    model: ModelSection
    """What is trained."""
    data: DataSection
    """What it is trained on."""
    training: TrainingSection
    """How it is trained."""
    zero: ZeroSection = ZeroSection()
    """How it is sharded."""
    deepspeed: dict[str, Any] | str = Field(default_factory=dict)
    """DeepSpeed settings passed on as they stand: a mapping, or the path of a JSON file."""
    resources: ResourcesSection = ResourcesSection()
    """What it runs on."""
    measure: MeasureSection = MeasureSection()
    """How closely it is measured."""
    checkpoint: CheckpointSection = CheckpointSection()
    """When state is saved."""
    failures: FailuresSection = FailuresSection()
    """What happens when a rank dies."""
    tracking: TrackingSection = TrackingSection()
    """Where records go."""
    compare: CompareSection | None = None
    """Which strategies `compare` runs."""
