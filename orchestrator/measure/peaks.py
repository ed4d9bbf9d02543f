"""Running peaks of one rank: the largest amounts it has held so far. Pure arithmetic."""

from dataclasses import dataclass

from orchestrator.measure.ledger import Ledger, completed
from orchestrator.measure.sample import RankFacts, RankSample


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPeaks:
    """The largest amounts one rank has held so far, in bytes; `None` until known."""

    device_bytes: int | None = None
    ledger: Ledger | None = None
    """What `device_bytes` was, as far as it was traced; adds up to it."""
    reserved_bytes: int | None = None
    rss_bytes: int | None = None
    pss_bytes: int | None = None
    host_bytes: int | None = None
    nvme_bytes: int | None = None

    def after_facts(self, facts: RankFacts) -> "RankPeaks":
        """The peaks once engine construction is known."""
        return _joined(
            self,
            RankPeaks(
                device_bytes=facts.init_peak_bytes,
                ledger=facts.init_peak_ledger,
                rss_bytes=facts.init_rss_peak_bytes,
                pss_bytes=facts.init_pss_bytes,
            ),
        )

    def after_sample(self, sample: RankSample) -> "RankPeaks":
        """The peaks once one more step is known."""
        phases = sample.phase_peak_bytes or {}
        fullest = max(phases, key=lambda phase: phases[phase], default=None)
        ledgers = sample.probed.peak_ledgers if sample.probed else {}
        return _joined(
            self,
            RankPeaks(
                device_bytes=None if fullest is None else phases[fullest],
                ledger=None if fullest is None else ledgers.get(fullest),
                reserved_bytes=sample.cuda.reserved_bytes if sample.cuda else None,
                rss_bytes=sample.rss_peak_bytes,
                pss_bytes=max(sample.resident.pss_bytes.values(), default=None)
                if sample.resident
                else None,
                host_bytes=sample.host_bytes,
                nvme_bytes=sample.nvme_bytes,
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RankStep:
    """One rank in one step, with its running peaks."""

    sample: RankSample
    peaks: RankPeaks


def known_max(*values: int | None) -> int | None:
    """The largest of what is known; `None` when nothing is."""
    return max((value for value in values if value is not None), default=None)


def _joined(one: RankPeaks, other: RankPeaks) -> RankPeaks:
    device_bytes = known_max(one.device_bytes, other.device_bytes)
    return RankPeaks(
        device_bytes=device_bytes,
        ledger=_ledger_of(one, other, device_bytes),
        reserved_bytes=known_max(one.reserved_bytes, other.reserved_bytes),
        rss_bytes=known_max(one.rss_bytes, other.rss_bytes),
        pss_bytes=known_max(one.pss_bytes, other.pss_bytes),
        host_bytes=known_max(one.host_bytes, other.host_bytes),
        nvme_bytes=known_max(one.nvme_bytes, other.nvme_bytes),
    )


def _ledger_of(one: RankPeaks, other: RankPeaks, device_bytes: int | None) -> Ledger | None:
    """The ledger of the larger peak.

    Where that was not traced, it is the larger of those that were, with the rest unattributed.
    """
    larger = max(one, other, key=lambda peaks: peaks.device_bytes or 0)
    known = [peaks.ledger for peaks in (one, other) if peaks.ledger is not None]
    traced = larger.ledger or max(known, key=lambda ledger: sum(ledger.values()), default=None)
    return None if traced is None else completed(traced, measured_bytes=device_bytes or 0)
