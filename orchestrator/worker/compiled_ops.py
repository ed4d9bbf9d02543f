"""DeepSpeed's C++ extensions, built once in a process of their own, never by racing ranks.

Run as `python -m orchestrator.worker.compiled_ops cpu_adam async_io`. The caller names the folder
in TORCH_EXTENSIONS_DIR and holds a lock on it. Prints nothing on success; what the compiler says
goes to stderr.
"""

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def load_built(names: Iterable[str], *, folder: Path) -> None:
    """Load extensions that lie ready, so that DeepSpeed finds them loaded.

    Its own way asks a helper process three times for the processor's name, which takes seconds,
    and lets every rank run ninja in the same folder. What is not there is left to it.

    Args:
        names: `cpu_adam`, `cpu_lion`, `fused_lion`, `async_io`.
        folder: where they were built (TORCH_EXTENSIONS_DIR).

    Source: deepspeed 0.19.8, ops/op_builder/builder.py, `OpBuilder.load`.
    """
    for name in names:
        if name == "async_io":
            load_built(["pin_memory"], folder=folder)
            # It also lends its symbols to async_io.
            _builder("pin_memory").load(verbose=False)
        path = folder / name / f"{name}.so"
        spec = importlib.util.spec_from_file_location(name, path)
        loaded = _builder(name)._loaded_ops
        if name in loaded or not path.is_file() or spec is None or spec.loader is None:
            continue
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        loaded[name] = module


def build(name: str) -> None:
    """Compile and load one extension.

    Args:
        name: `cpu_adam`, `cpu_lion`, `fused_lion` or `async_io`.

    Raises:
        RuntimeError: the compiler or a library it needs is missing, or it failed.
    """
    builder = _builder(name)
    if not builder.is_compatible(verbose=False):
        raise RuntimeError(f"{name} cannot be built here: {builder.error_log or 'see doctor'}")
    given = builder.cxx_args
    # Debug symbols take a fifth of the compiler's time, and nobody looks at them.
    builder.cxx_args = lambda: [*given(), "-g0"]
    builder.load(verbose=False)


def _builder(name: str) -> Any:
    from deepspeed.ops.op_builder import (
        AsyncIOBuilder,
        CPUAdamBuilder,
        CPULionBuilder,
        FusedLionBuilder,
        PinMemoryBuilder,
    )

    builders = {
        "cpu_adam": CPUAdamBuilder,
        "cpu_lion": CPULionBuilder,
        "fused_lion": FusedLionBuilder,
        "async_io": AsyncIOBuilder,
        "pin_memory": PinMemoryBuilder,
    }
    return builders[name]()


def main(names: list[str]) -> int:
    """Build every named extension; 0 when all are ready."""
    for name in names:
        try:
            build(name)
        except (RuntimeError, OSError, ImportError) as err:
            sys.stderr.write(f"{err}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
