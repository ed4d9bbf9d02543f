"""The user's own code behind `factory: module:callable`: finding it, importing it, calling it.

Imports the user's module from the job file's folder or the current folder, and turns whatever goes
wrong there into one line that names the factory, the cause and the line of the user's file.
"""

import difflib
import importlib
import importlib.machinery
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from orchestrator.errors import UsageError

Factory = Callable[..., object]


def load_factory(path: str, *, folder: Path) -> Factory:
    """Import the callable that a job file names.

    Args:
        path: `module:callable`.
        folder: Where the job file lies; searched first, then the current folder. Both stay on
            `sys.path`, so that the user's code can import its neighbours later.

    Returns:
        The callable, not yet called.

    Raises:
        UsageError: The module is not found or does not import, or has no such callable.
    """
    module_name, _, name = path.partition(":")
    roots = _search_first(folder)
    _check_not_shadowed(path, module_name=module_name, roots=roots)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as err:
        if err.name is None or not f"{module_name}.".startswith(f"{err.name}."):
            raise _import_error(path, err) from err
        places = " or ".join(map(str, roots))
        raise UsageError(
            f"factory {path}: there is no module {err.name!r} in {places}; "
            f"put {err.name.replace('.', '/')}.py beside the job file"
        ) from err
    except (Exception, SystemExit) as err:
        raise _import_error(path, err) from err
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, _public_callables(module), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "define it, or correct the name"
        raise UsageError(f"factory {path}: {module_name} has no {name!r}; {hint}")
    factory = getattr(module, name)
    if not callable(factory):
        raise UsageError(
            f"factory {path}: {name!r} is {_a(factory)}, not callable; name a function or a class"
        )
    return factory  # type: ignore[no-any-return]


def call_factory(factory: Factory, *, path: str, config: Mapping[str, object]) -> object:
    """Call the user's factory with its `config:` as keyword arguments.

    Args:
        factory: What `load_factory` returned.
        path: `module:callable`, for messages.
        config: Keyword arguments.

    Returns:
        Whatever the factory returns, unchecked.

    Raises:
        UsageError: The arguments do not fit, or the factory raised.
    """
    try:
        inspect.signature(factory).bind(**config)
    except TypeError as err:
        raise UsageError(
            f"factory {path}: config does not fit its parameters: {err}; correct the `config:` keys"
        ) from err
    except ValueError:
        # Some callables written in C have no signature; calling them tells.
        pass
    try:
        return factory(**config)
    except Exception as err:
        raise UsageError(f"factory {path} raised {describe_error(err)}") from err


def describe_error(error: BaseException) -> str:
    """Say in one line what the user's code raised and where.

    Args:
        error: As caught, with its traceback.

    Returns:
        `KeyError: 'width' (my_models.py:12)`: type, first line of the message, innermost line of
        the user's code.
    """
    message = str(error).strip()
    if isinstance(error, SyntaxError):
        message = error.msg
    first_line = message.splitlines()[0] if message else ""
    place = _place(error)
    return (
        type(error).__name__ + (f": {first_line}" if first_line else "") + (place and f" ({place})")
    )


def _search_first(folder: Path) -> list[Path]:
    """Put the job file's folder and the current folder in front of `sys.path`."""
    roots = list(dict.fromkeys([folder.resolve(), Path.cwd()]))
    for root in reversed(roots):
        if str(root) in sys.path:
            sys.path.remove(str(root))
        sys.path.insert(0, str(root))
    return roots


def _check_not_shadowed(path: str, *, module_name: str, roots: list[Path]) -> None:
    """Refuse a module whose name another, already imported file has taken."""
    top = module_name.partition(".")[0]
    loaded = sys.modules.get(top)
    found = importlib.machinery.PathFinder.find_spec(top, [str(root) for root in roots])
    if loaded is None or found is None or found.origin is None:
        return
    loaded_from = getattr(loaded, "__file__", None)
    if loaded_from is None or Path(loaded_from).resolve() != Path(found.origin).resolve():
        raise UsageError(
            f"factory {path}: a module {top!r} is already loaded from "
            f"{loaded_from or 'Python itself'}; rename {found.origin}"
        )


def _import_error(path: str, error: BaseException) -> UsageError:
    module_name = path.partition(":")[0]
    return UsageError(f"factory {path}: importing {module_name} raised {describe_error(error)}")


def _place(error: BaseException) -> str:
    """Name file and line of the innermost frame that is neither Python's nor a library's."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(_after_this_module(error.__traceback__))
        if not frame.filename.startswith("<") and "site-packages" not in Path(frame.filename).parts
    ]
    own = [frame for frame in frames if not _is_standard_library(frame.filename)]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""


def _after_this_module(tb: TracebackType | None) -> TracebackType | None:
    """Drop the leading frames that belong to the caller's side of the call."""
    while tb is not None and Path(tb.tb_frame.f_code.co_filename).is_relative_to(_PACKAGE):
        tb = tb.tb_next
    return tb


def _is_standard_library(filename: str) -> bool:
    return Path(filename).is_relative_to(_STANDARD_LIBRARY)


def _public_callables(module: object) -> list[str]:
    return [key for key in vars(module) if not key.startswith("_") and callable(vars(module)[key])]


def _a(value: object) -> str:
    return f"of type {type(value).__name__}"


_PACKAGE = Path(__file__).resolve().parents[1]
_STANDARD_LIBRARY = Path(inspect.__file__).resolve().parent
