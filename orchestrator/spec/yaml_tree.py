"""YAML text as plain Python values, and where each key stands; a closed and safe part of YAML.

Walks PyYAML's events itself, without recursion: no tags, anchors or merges, no duplicate or
non-text keys, bounded depth and size. Collects every problem it can, up to the first that leaves
the values unknown. Touches nothing outside.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from orchestrator.spec.finding import Finding, join_key, show_text, show_value
from orchestrator.spec.origin import START, Place
from orchestrator.spec.scalar import resolve_scalar

MOST_CHARACTERS = 256 * 1024
DEEPEST = 32
MOST_VALUES = 20_000

_CORE_TAG = "tag:yaml.org,2002:"
_UNSAFE = re.compile("[\0\ud800-\udfff]")
_HINTS = {
    "mapping values are not allowed": "indent it like its neighbours, or quote text with a colon",
    "could not find expected ':'": "write key: value",
    "expected <block end>": "indent it like its neighbours",
    "found unexpected end of stream": "close the quote",
    "<stream end>": "close the bracket",
    "cannot start any token": "quote the text",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What was read, and what was wrong with it."""

    value: Any
    places: dict[str, Place]
    """Dotted key -> where the key (or the list's item) stands."""
    faults: tuple[tuple[Place, Finding], ...] = ()
    unread: frozenset[str] = frozenset()
    """Keys whose value could not be read and is null here."""
    complete: bool = True
    """False: reading stopped early, and `value` is None."""


def read_yaml(text: str, *, override: int = 0) -> Tree:
    """Read one YAML document.

    Args:
        text: the document.
        override: 0 for a file, n for the value of the n-th `--set`; goes into the places.
    """
    builder = _Builder(override=override)
    try:
        _feed(builder, text)
    except _StopError as stop:
        builder.fault(stop.place, stop.key, stop.message)
        return Tree(value=None, places={}, faults=tuple(builder.faults), complete=False)
    value = builder.root[0] if builder.root else None
    return Tree(
        value=value,
        places=builder.places,
        faults=tuple(builder.faults),
        unread=frozenset(builder.unread),
    )


class _StopError(Exception):
    """Reading cannot go on."""

    def __init__(self, place: Place, message: str, *, key: str = "") -> None:
        super().__init__(place, message, key)
        self.place = place
        self.message = message
        self.key = key


@dataclass(slots=True)
class _Frame:
    """An open list or mapping."""

    items: Any
    key: str
    """Its own dotted key."""
    pending: str | None = None
    """Mapping: the key whose value comes next."""
    dropping: bool = False
    """Mapping: the value that comes next has no usable key."""
    lines: dict[str, int] = field(default_factory=dict)
    """Mapping: line of each key."""

    @property
    def awaits_key(self) -> bool:
        return isinstance(self.items, dict) and self.pending is None and not self.dropping


class _Builder:
    """Turns events into values."""

    def __init__(self, *, override: int) -> None:
        self.override = override
        self.root: list[Any] = []
        self.places: dict[str, Place] = {"": Place(override, 1, 1)}
        self.faults: list[tuple[Place, Finding]] = []
        self.unread: set[str] = set()
        self._open = [_Frame(items=self.root, key="")]
        self._n_documents = 0
        self._n_values = 0

    def place(self, mark: Any) -> Place:
        return Place(self.override, mark.line + 1, mark.column + 1)

    def fault(self, place: Place, key: str, message: str) -> None:
        self.faults.append((place, Finding(key=key, message=message)))

    def take(self, event: Any) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self._n_documents += 1
                if self._n_documents > 1:
                    message = "a second document; keep one, without --- between keys"
                    raise _StopError(self.place(event.start_mark), message)
            case yaml.ScalarEvent() | yaml.AliasEvent():
                self._leaf(event)
            case yaml.CollectionStartEvent():
                self._start(event)
            case yaml.CollectionEndEvent():
                self._keep(self._open.pop().items)

    def _leaf(self, event: Any) -> None:
        place = self.place(event.start_mark)
        if self._open[-1].awaits_key:
            self._key(event, place)
            return
        key = self._enter(event, place)
        self._keep(self._scalar(event, place, key))

    def _start(self, event: Any) -> None:
        place = self.place(event.start_mark)
        if self._open[-1].awaits_key:
            message = "a key is a list or a mapping; quote it to make it text"
            raise _StopError(place, message, key=self._open[-1].key)
        key = self._enter(event, place)
        items: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._open.append(_Frame(items=items, key=key))
        if len(self._open) - 1 > DEEPEST:
            raise _StopError(place, f"more than {DEEPEST} levels deep; write it flatter")

    def _enter(self, event: Any, place: Place) -> str:
        """Begin a value: its dotted key, its place, and what may not decorate it."""
        self._n_values += 1
        if self._n_values > MOST_VALUES:
            message = f"more than {MOST_VALUES:,} values; keep data out of the job file"
            raise _StopError(place, message)
        frame = self._open[-1]
        if isinstance(frame.items, dict):
            key = frame.key if frame.pending is None else join_key(frame.key, frame.pending)
        elif len(self._open) == 1:
            key = ""
        else:
            key = join_key(frame.key, len(frame.items))
            self.places[key] = place
        self._refuse_decoration(event, place, key)
        return key

    def _refuse_decoration(self, event: Any, place: Place, key: str) -> None:
        if event.anchor is not None:
            message = "anchors and aliases (&, *) are not supported; write it out"
            raise _StopError(place, message, key=key)
        if getattr(event, "tag", None) is not None:
            tag = show_text(event.tag.replace(_CORE_TAG, "!!"))
            raise _StopError(place, f"tags such as {tag} are not supported; remove it", key=key)

    def _key(self, event: Any, place: Place) -> None:
        frame = self._open[-1]
        frame.dropping = True
        self._refuse_decoration(event, place, frame.key)
        name = event.value
        key = join_key(frame.key, name)
        if event.implicit[0] and name == "<<":
            message = "merging (<<) is not supported; write the keys out"
            raise _StopError(place, message, key=key)
        if event.implicit[0] and not _is_text(name):
            shown = show_text(name)
            self.fault(place, frame.key, f"the key {shown} is not text; quote it, or name it")
        elif _UNSAFE.search(name):
            self.fault(place, key, "a character that is not text; remove it")
        elif name in frame.lines:
            first = frame.lines[name]
            self.fault(place, key, f"duplicate key, first given on line {first}; keep one of them")
        else:
            frame.pending, frame.dropping = name, False
            frame.lines[name] = place.line
            self.places[key] = place

    def _scalar(self, event: Any, place: Place, key: str) -> Any:
        if _UNSAFE.search(event.value):
            self.fault(place, key, "a character that is not text; remove it")
            self.unread.add(key)
            return None
        if not event.implicit[0]:
            return event.value
        try:
            return resolve_scalar(event.value)
        except ValueError as err:
            self.fault(place, key, str(err))
            self.unread.add(key)
            return None

    def _keep(self, value: Any) -> None:
        frame = self._open[-1]
        if isinstance(frame.items, list):
            frame.items.append(value)
        elif frame.pending is not None:
            frame.items[frame.pending] = value
        frame.pending, frame.dropping = None, False


def _is_text(name: str) -> bool:
    try:
        return isinstance(resolve_scalar(name), str)
    except ValueError:
        return False


def _feed(builder: _Builder, text: str) -> None:
    """Give every event of a text to the builder.

    Raises:
        _StopError: the text is not YAML, or goes past a bound.
    """
    if len(text) > MOST_CHARACTERS:
        size = f"larger than {MOST_CHARACTERS // 1024} KiB"
        raise _StopError(builder.places[""], f"{size}; keep data out of the job file")
    try:
        loader = yaml.SafeLoader(text)
    except yaml.reader.ReaderError as err:
        place = _at_index(text, err.position, builder.override)
        raise _StopError(place, _bad_character(err)) from err
    try:
        while loader.check_event():
            builder.take(loader.get_event())  # type: ignore[no-untyped-call]
    except yaml.MarkedYAMLError as err:
        place = builder.place(err.problem_mark or err.context_mark or loader.get_mark())
        raise _StopError(place, _syntax(text, place, err.problem or err.context or "")) from err
    except (ValueError, OverflowError) as err:
        # PyYAML lets some out, such as chr() of an escape beyond Unicode.
        place = builder.place(loader.get_mark())
        raise _StopError(place, "not valid YAML; check escapes and directives") from err


def _at_index(text: str, index: int, override: int) -> Place:
    before = text[:index]
    return Place(override, before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1)


def _bad_character(err: Any) -> str:
    code = err.character if isinstance(err.character, int) else ord(err.character)
    return f"the character U+{code:04X} is not allowed; save the file as UTF-8 text"


def _syntax(text: str, place: Place, problem: str) -> str:
    lines = text.splitlines()
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    if r"'\t'" in problem or re.match(r" *\t", line):
        return "a tab; indent with spaces, and quote text that has tabs in it"
    hint = next((hint for words, hint in _HINTS.items() if words in problem), None)
    return f"not valid YAML: {problem}; {hint or 'check indentation, quotes and brackets'}"


def require_mapping(tree: Tree) -> Tree:
    """Refuse a file that is empty or not a mapping of keys."""
    if not tree.complete or isinstance(tree.value, dict):
        return tree
    message = (
        "the file is empty; a job needs name, model, data and training"
        if tree.value is None
        else f"expected keys such as name: and model:, got {show_value(tree.value)}"
    )
    fault = (START, Finding(key="", message=message))
    return Tree(value=None, places={}, faults=(*tree.faults, fault), complete=False)
