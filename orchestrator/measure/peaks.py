"""Running peaks of one rank: the largest amounts it has held so far. Pure arithmetic."""

from dataclasses import dataclass

from orchestrator.measure.sample import RankFacts, RankSample


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPeaks:
    """The largest amounts one rank has held so far, in bytes; `None` until known."""

    device_bytes: int | None = None
    reserved_bytes: int | None = None
    rss_bytes: int | None = None
    host_bytes: int | None = None
    nvme_bytes: int | None = None

    def after_facts(self, facts: RankFacts) -> "RankPeaks":
        """The peaks once engine construction is known."""
        return _joined(self, RankPeaks(device_bytes=facts.init_peak_bytes))

    def after_sample(self, sample: RankSample) -> "RankPeaks":
        """The peaks once one more step is known."""
        return _joined(
            self,
            RankPeaks(
                device_bytes=max((sample.phase_peak_bytes or {}).values(), default=None),
                reserved_bytes=sample.reserved_bytes,
                rss_bytes=sample.rss_bytes,
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
    return RankPeaks(
        device_bytes=known_max(one.device_bytes, other.device_bytes),
        reserved_bytes=known_max(one.reserved_bytes, other.reserved_bytes),
        rss_bytes=known_max(one.rss_bytes, other.rss_bytes),
        host_bytes=known_max(one.host_bytes, other.host_bytes),
        nvme_bytes=known_max(one.nvme_bytes, other.nvme_bytes),
    )
