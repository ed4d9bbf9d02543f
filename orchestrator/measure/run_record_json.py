"""A run's record read back from its JSON form, such as the `summary.json` that a run keeps. Pure.

What was not a finite number when it was written is `None` now; a loss that was is NaN again.
"""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from orchestrator.measure.run_record import Circumstances, RankRow, RunRecord, StepTimes
from orchestrator.measure.sample import CudaMemory, EvalResult, GpuState


def run_record_from_json(values: Mapping[str, Any]) -> RunRecord:
    """Turn the output of `RunRecord.to_json` back into the record.

    Args:
        values: as `launch --json` prints it.

    Raises:
        KeyError: a key is missing.
        TypeError: a value is of another kind.
    """
    circumstances = values["circumstances"]
    forecast = values["forecast"]
    return RunRecord(
        run_id=values["run_id"],
        name=values["name"],
        outcome=values["outcome"],
        message=values["message"],
        losses=tuple(math.nan if loss is None else float(loss) for loss in values["losses"]),
        skipped_steps=values["skipped_steps"],
        samples_per_s=values["samples_per_s"],
        samples_per_s_quartiles=_pair(values["samples_per_s_quartiles"]),
        tokens_per_s=values["tokens_per_s"],
        flops_per_s=values["flops_per_s"],
        mfu_ratio=values["mfu_ratio"],
        first_step_s=values["first_step_s"],
        startup_s=dict(values["startup_s"]),
        evals=tuple(EvalResult(**{"time_unix_s": math.nan, **one}) for one in values["evals"]),
        ranks=tuple(map(_rank_row, values["ranks"])),
        circumstances=Circumstances(
            **{**_known(Circumstances, circumstances), "devices": tuple(circumstances["devices"])}
        ),
        forecast=forecast,
        forecast_peak_bytes=None if forecast is None else forecast["device_bytes"]["total"],
        forecast_error_ratio=values["forecast_error_ratio"],
    )


def _rank_row(values: Mapping[str, Any]) -> RankRow:
    taken = _known(RankRow, values)
    taken["step_s"] = StepTimes(**_known(StepTimes, taken["step_s"]))
    for name, part in (("cuda", CudaMemory), ("gpu", GpuState)):
        if taken[name] is not None:
            taken[name] = part(**_known(part, taken[name]))
    return RankRow(**taken)


def _known(cls: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a class; what a newer version has beside them is left out."""
    return {field.name: values[field.name] for field in fields(cls) if field.name in values}


def _pair(values: Any) -> tuple[float, float] | None:
    return None if values is None else (float(values[0]), float(values[1]))
