"""Stage 3's weights in flight: what is gathered at every moment of forward and backward.

Pure arithmetic on a trace's moments. The rules are those of DeepSpeed's coordinator once it has
learnt the order of modules, from the second micro-batch on: fetch what a module needs, prefetch
what comes next, give back what is not needed again soon.

Source: deepspeed 0.19.8, runtime/zero/partitioned_param_coordinator.py; partition_parameters.py:
1329 (`_all_gather_dtype`: a flat buffer), :795 (and a copy of each parameter out of it), :1373
(`_all_gather_sequential`: a single parameter is gathered in place).
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.forecast.layout import shard_elements
from orchestrator.forecast.profile import ModelProfile, Moment
from orchestrator.forecast.setup import Setup

_NEVER = -1


class Most(NamedTuple):
    """What gathering took when it took most."""

    gathered_bytes: int
    copied_bytes: int
    """Gloo's copy of what it receives."""


@dataclass(slots=True, kw_only=True)
class _Flat:
    """A buffer into which several parameters are gathered."""

    members: tuple[int, ...]
    n_bytes: int
    unpacked: bool = False
    waiting: set[int] = field(default_factory=set)


class Gathering:
    """Which parameters are whole, moment after moment: call `at` in order.

    Args:
        setup: a strategy of stage 3.
        profile: the model.
        moments: one micro-batch, forward and backward.
    """

    def __init__(self, setup: Setup, profile: ModelProfile, moments: Sequence[Moment]) -> None:
        self._setup = setup
        self._modules = profile.modules
        self._sizes = [p.n_elements for p in profile.parameters]
        self._padded = [shard_elements(n, setup.n_ranks) * setup.n_ranks for n in self._sizes]
        threshold = setup.persistence_threshold_elements
        self._persistent = {i for i, n in enumerate(self._sizes) if n <= threshold}
        self.gathered_bytes = 0
        self.collectives: list[int] = []
        """Bytes of each all-gather so far, as it comes out."""
        self._flats: dict[int, _Flat | None] = {}
        """Parameter in flight -> the buffer it comes in; `None` if it comes alone."""
        self._whole: dict[int, int] = {}
        """Parameter -> bytes it takes whole."""
        self._users: dict[int, set[int]] = defaultdict(set)
        self._saved: dict[int, int] = {}
        """Parameter -> bytes that the graph of a recomputed block still holds."""
        self._step = 0
        self._available = 0
        self._order = [m.subject for m in moments if m.kind in ("enter", "enter_backward")]
        self._uses: dict[int, list[int]] = defaultdict(list)
        self._passed = [0]
        self._queue: list[tuple[int, int]] = []
        for step, module in enumerate(self._order):
            own = sorted(set(self._modules[module]))
            for parameter in own:
                self._uses[parameter].append(step)
                self._queue.append((parameter, step))
            n_elements = sum(self._sizes[p] for p in self._modules[module])
            self._passed.append(self._passed[-1] + n_elements)
        self._next = 0
        self._fetched_for: dict[int, int] = defaultdict(lambda: _NEVER)
        if setup.n_ranks > 1:
            # They were gathered after the last update.
            for parameter in self._persistent:
                self._make_whole(parameter, self._padded[parameter])

    def at(self, moment: Moment) -> Most:
        """Do what the engine does at a moment.

        Returns:
            The most until it was done.
        """
        if self._setup.n_ranks == 1:
            return Most(0, 0)
        if moment.kind in ("enter", "enter_backward"):
            return self._enter(moment.subject)
        if moment.kind == "gradient":
            self.gathered_bytes -= self._saved.pop(moment.subject, 0)
        else:
            self._leave(moment.subject, recomputed=moment.backward and moment.kind == "leave")
        return self._now()

    def _now(self) -> Most:
        return Most(self.gathered_bytes, 0)

    def _enter(self, module: int) -> Most:
        """Fetch, unpack, prefetch."""
        needed = set(self._modules[module])
        seen = [self._gather(needed)]
        for parameter in needed:
            self._users[parameter].add(module)
            seen.append(self._wait(parameter))
        self._take_from_queue(needed)
        seen.append(self._prefetch())
        self._step += 1
        return max(seen, key=sum)

    def _leave(self, module: int, *, recomputed: bool) -> None:
        kept = self._needed_soon(module)
        for parameter in set(self._modules[module]):
            self._users[parameter].discard(module)
            if parameter not in kept and not self._users[parameter]:
                self._release(parameter, recomputed=recomputed)

    def _needed_soon(self, module: int) -> set[int]:
        kept = set()
        until = self._passed[self._step] + self._setup.max_reuse_distance_elements
        for parameter in self._modules[module]:
            uses = self._uses[parameter]
            index = bisect_left(uses, self._step)
            again = index < len(uses) and self._passed[uses[index]] < until
            skipped = self._fetched_for[parameter] > self._step
            if again or skipped or parameter in self._persistent:
                kept.add(parameter)
        return kept

    def _gather(self, parameters: Iterable[int]) -> Most:
        """Start the all-gather of what is not there."""
        missing = tuple(p for p in sorted(parameters) if not self._is_there(p))
        if not missing:
            return self._now()
        self._available += sum(self._sizes[p] for p in missing)
        n_bytes = self._setup.weight_bytes * sum(self._padded[p] for p in missing)
        self.collectives.append(n_bytes)
        if len(missing) == 1:
            self._flats[missing[0]] = None
            self._whole[missing[0]] = n_bytes
        else:
            flat = _Flat(members=missing, n_bytes=n_bytes, waiting=set(missing))
            self._flats.update(dict.fromkeys(missing, flat))
        self.gathered_bytes += n_bytes
        # On a CPU gloo receives into a copy (torch 2.13.0, ProcessGroupGloo.cpp, `allgather`).
        return Most(self.gathered_bytes, n_bytes if self._setup.device == "cpu" else 0)

    def _wait(self, parameter: int) -> Most:
        """Wait for a parameter, and unpack the buffer that it came in."""
        flat = self._flats.pop(parameter, None)
        if flat is None:
            return self._now()
        if not flat.unpacked:
            flat.unpacked = True
            for member in flat.members:
                self._make_whole(member, self._sizes[member])
        most = self._now()
        flat.waiting.discard(parameter)
        if not flat.waiting:
            self.gathered_bytes -= flat.n_bytes
        return most

    def _take_from_queue(self, needed: set[int]) -> None:
        expected = {p for p in needed if self._fetched_for[p] < self._step}
        taken: set[int] = set()
        while self._next < len(self._queue) and len(taken) < len(expected):
            parameter, step = self._queue[self._next]
            self._next += 1
            self._fetched_for[parameter] = step
            taken.add(parameter)

    def _prefetch(self) -> Most:
        if self._setup.prefetch_bucket_elements == 0:
            return self._now()
        room = self._setup.max_live_elements - self._available
        most = min(room, self._setup.prefetch_bucket_elements)
        wanted: set[int] = set()
        n_elements = 0
        while self._next < len(self._queue) and n_elements < most:
            parameter, step = self._queue[self._next]
            self._next += 1
            self._fetched_for[parameter] = max(self._fetched_for[parameter], step)
            if not self._is_there(parameter) and parameter not in wanted:
                wanted.add(parameter)
                n_elements += self._sizes[parameter]
        return self._gather(wanted)

    def _is_there(self, parameter: int) -> bool:
        return parameter in self._whole or parameter in self._flats

    def _make_whole(self, parameter: int, n_elements: int) -> None:
        n_bytes = self._setup.weight_bytes * n_elements
        self._whole[parameter] = n_bytes
        self.gathered_bytes += n_bytes

    def _release(self, parameter: int, *, recomputed: bool) -> None:
        """Give a parameter back, if it is whole.

        What a recomputed block saves for its backward is detached from the parameter, so the memory
        stays although the engine has given it back, and is gathered a second time.

        Source:
            torch 2.13.0, torch/utils/checkpoint.py, `_recomputation_hook`: `x.detach()`.
        """
        flat = self._flats.get(parameter)
        in_flight = parameter in self._flats and not (flat is not None and flat.unpacked)
        if in_flight or parameter not in self._whole:
            return
        n_bytes = self._whole.pop(parameter)
        self._available -= self._sizes[parameter]
        if recomputed:
            self._saved[parameter] = self._saved.get(parameter, 0) + n_bytes
        else:
            self.gathered_bytes -= n_bytes
