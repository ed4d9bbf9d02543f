"""What the ranks of a turn have told, as its folder's spool has it."""

import time
from pathlib import Path

from orchestrator.measure.sample import RankDone, RankFacts, Record
from orchestrator.measure.summary import RunTally
from orchestrator.track.spool import records_in


def began_unix_s(first: Record | None) -> float:
    """When a run began, by what its ranks told first; now, where that does not say."""
    if not isinstance(first, RankFacts):
        return time.time()
    return first.time_unix_s - sum(first.startup_s.values())


def is_whole(folder: Path) -> bool:
    """Whether every rank is done with what a folder has the records of."""
    spool_path = folder / "records.jsonl"
    if not spool_path.is_file():
        return False
    told = list(records_in(spool_path))
    facts = next((record for record in told if isinstance(record, RankFacts)), None)
    done = {record.rank for record in told if isinstance(record, RankDone)}
    return facts is not None and len(done) >= facts.world_size


def tally_of(folder: Path) -> RunTally:
    """What a folder's records add up to."""
    tally = RunTally()
    for record in records_in(folder / "records.jsonl"):
        tally.take(record)
    return tally
