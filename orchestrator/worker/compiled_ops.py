"""DeepSpeed's C++ extensions, built once in a process of their own, never by racing ranks.

Run as `python -m orchestrator.worker.compiled_ops cpu_adam async_io`. The caller names the folder
in TORCH_EXTENSIONS_DIR and holds a lock on it. Prints nothing on success; what the compiler says
goes to stderr.
"""

import sys


def build(name: str) -> None:
    """Compile and load one extension.

    Args:
        name: `cpu_adam` or `async_io`.

    Raises:
        RuntimeError: the compiler or a library it needs is missing, or it failed.
    """
    from deepspeed.ops.op_builder import AsyncIOBuilder, CPUAdamBuilder

    builders = {"cpu_adam": CPUAdamBuilder, "async_io": AsyncIOBuilder}
    builder = builders[name]()
    if not builder.is_compatible(verbose=False):
        raise RuntimeError(f"{name} cannot be built here: {builder.error_log or 'see doctor'}")
    builder.load(verbose=False)


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
