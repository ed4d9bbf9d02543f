"""What a window of allocations held, moment by moment: the arithmetic behind the ledger.

Pure: takes the history that a trace has written down, and touches no tensor.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.measure.ledger import UNATTRIBUTED, Ledger, empty_ledger

BY_MOMENT, BY_COLLECTIVE, BY_USE, BY_ROLE = range(4)
"""How sure a category is, in rising order: `BY_MOMENT` knows only when a storage was made,
`BY_USE` is a parameter or gradient seen in use, `BY_ROLE` a tensor that the engine keeps under a
name of its own."""


@dataclass(slots=True, kw_only=True)
class Block:
    """One storage from its making to its end."""

    category: str
    certainty: int = BY_MOMENT
    place: str = "device"
    """`device`, `host`, or `elsewhere`: not on the device and not the strategy's doing."""
    resting: bool = False
    """It was there before the window."""
    made_in: str | None = None
    """Phase."""
    live: bool = True
    address: int | None = None
    """Where it lies on a GPU."""
    seen_us: float = 0.0
    """When it was first seen, microseconds since 1970."""

    def final_category(self) -> str:
        """What it was for, by all that is known once the window is over."""
        if self.certainty > BY_MOMENT:
            return self.category
        # What construction, backward or the update left behind for good is no temporary.
        stays = self.resting or (self.live and self.made_in != "forward")
        return UNATTRIBUTED if stays else self.category


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A block came, grew or went, or (without a block) a phase began."""

    at_s: float
    """Seconds since the window began."""
    phase: str | None
    block: int | None
    n_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation: what changed from before it ran until its results were seen."""

    first_change: int
    end_change: int
    """One past the last."""
    scratch_category: str
    """What memory is for that it takes for itself."""
    on_host: bool


@dataclass(slots=True, kw_only=True)
class History:
    """A window as it was written down."""

    blocks: list[Block] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What the device held at one point of the window."""

    at_s: float
    """Seconds since the window began."""
    phase: str
    ledger: Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceResult:
    """What a window held, by phase."""

    peaks: dict[str, Ledger] = field(default_factory=dict)
    """Phase -> what the device held when it held most."""
    edges: dict[str, Ledger] = field(default_factory=dict)
    """Phase -> what the device held when the phase ended, the last time it did."""
    host_peak: Ledger = field(default_factory=empty_ledger)
    """What the strategy kept on the host when it kept most there."""
    resting: Ledger = field(default_factory=empty_ledger)
    """What the device held when the first phase began."""
    together_peak_bytes: int = 0
    """The most they held together: on a CPU run, what tensors took of memory."""
    timeline: tuple[Moment, ...] = ()
    """The window in at most as many moments as were asked for, each the fullest of its span."""

    def peak_bytes(self) -> dict[str, int]:
        """Phase -> the most that the device held."""
        return {phase: sum(ledger.values()) for phase, ledger in self.peaks.items()}

    @property
    def host_bytes(self) -> int:
        """The most that the strategy kept on the host."""
        return sum(self.host_peak.values())


def replay(
    history: History, *, operation_peaks: Sequence[int] = (), n_moments: int = 0
) -> TraceResult:
    """Go through a window and keep what was held when it was most.

    Args:
        history: the window.
        operation_peaks: the most bytes that each operation had taken while it ran, results
            included, in the order of the history's; empty where that is not known.
        n_moments: moments of the timeline.
    """
    return _Replay(history, operation_peaks, n_moments).result()


class _Replay:
    """The state at one point of the window, and what was most until there."""

    def __init__(self, history: History, operation_peaks: Sequence[int], n_moments: int) -> None:
        self._history = history
        self._scratch = _scratch_at(history, operation_peaks)
        self._device, self._host = empty_ledger(), empty_ledger()
        self._device_bytes = self._host_bytes = 0
        self._most: dict[str, int] = {}
        self._peaks: dict[str, Ledger] = {}
        self._edges: dict[str, Ledger] = {}
        self._host_most, self._host_peak = 0, empty_ledger()
        self._resting: Ledger | None = None
        self._together_most = 0
        until_s = history.changes[-1].at_s if history.changes else 0.0
        self._spans = _Spans(n_moments, until_s=until_s)

    def result(self) -> TraceResult:
        before: str | None = None
        for number, change in enumerate(self._history.changes):
            if change.phase != before and before is not None:
                self._edges[before] = dict(self._device)
            before = change.phase
            self._apply(change)
            self._look(change)
            # Results are there, and what the operation took for itself was, a moment ago.
            for operation, n_bytes in self._scratch.get(number + 1, ()):
                self._look(change, operation=operation, scratch_bytes=n_bytes)
        if before is not None:
            self._edges[before] = dict(self._device)
        return TraceResult(
            peaks=self._peaks,
            edges=self._edges,
            host_peak=self._host_peak,
            resting=self._resting or empty_ledger(),
            together_peak_bytes=self._together_most,
            timeline=tuple(self._spans.moments),
        )

    def _apply(self, change: Change) -> None:
        if change.block is None:
            return
        block = self._history.blocks[change.block]
        if block.place == "host":
            self._host[block.final_category()] += change.n_bytes
            self._host_bytes += change.n_bytes
        elif block.place == "device":
            self._device[block.final_category()] += change.n_bytes
            self._device_bytes += change.n_bytes

    def _look(
        self, change: Change, *, operation: Operation | None = None, scratch_bytes: int = 0
    ) -> None:
        """Keep this moment if it is the fullest so far."""
        on_host = scratch_bytes if operation is not None and operation.on_host else 0
        on_device = scratch_bytes - on_host
        category = operation.scratch_category if operation is not None else UNATTRIBUTED
        if self._host_bytes + on_host > self._host_most:
            self._host_most = self._host_bytes + on_host
            self._host_peak = _with(self._host, category, on_host)
        if change.phase is None:
            return
        if self._resting is None:
            self._resting = dict(self._device)
        together = self._device_bytes + self._host_bytes + scratch_bytes
        self._together_most = max(self._together_most, together)
        n_bytes = self._device_bytes + on_device
        if n_bytes > self._most.get(change.phase, -1):
            self._most[change.phase] = n_bytes
            self._peaks[change.phase] = _with(self._device, category, on_device)
        self._spans.see(change, n_bytes, self._device, category=category, extra=on_device)


def _scratch_at(
    history: History, operation_peaks: Sequence[int]
) -> dict[int, list[tuple[Operation, int]]]:
    """After so many changes -> operations that end there and what each took beyond its results."""
    found: dict[int, list[tuple[Operation, int]]] = {}
    # Where they do not match, none is surely that of its operation.
    if len(operation_peaks) != len(history.operations):
        return found
    for operation, peak_bytes in zip(history.operations, operation_peaks, strict=True):
        seen = history.changes[operation.first_change : operation.end_change]
        scratch_bytes = peak_bytes - max(0, sum(change.n_bytes for change in seen))
        if scratch_bytes > 0:
            found.setdefault(operation.end_change, []).append((operation, scratch_bytes))
    return found


def _with(ledger: Ledger, category: str, n_bytes: int) -> Ledger:
    return {**ledger, category: ledger[category] + n_bytes} if n_bytes else dict(ledger)


class _Spans:
    """The fullest moment of each of so many equal spans of a window."""

    def __init__(self, n_spans: int, *, until_s: float) -> None:
        self._n_spans = n_spans
        self._span_s = until_s / n_spans if n_spans and until_s > 0 else 0.0
        self._current = -1
        self._most = -1
        self.moments: list[Moment] = []

    def see(
        self, change: Change, n_bytes: int, ledger: Ledger, *, category: str, extra: int
    ) -> None:
        if self._span_s <= 0 or change.phase is None:
            return
        number = min(int(change.at_s / self._span_s), self._n_spans - 1)
        # A phase's first moment is kept apart, so that the change of phase is where it was.
        new = number != self._current or change.phase != self.moments[-1].phase
        if new or n_bytes > self._most:
            if not new:
                self.moments.pop()
            self._current, self._most = number, n_bytes
            held = _with(ledger, category, extra)
            self.moments.append(Moment(at_s=change.at_s, phase=change.phase, ledger=held))
