"""A process that runs shadows: imports the libraries once, then forks for every request.

Run as `python -m orchestrator.worker.shadow AT_ONCE`, with a pickled list of requests on stdin;
answers on stdout with a line `[number, answer]` each, as they are done. A request that ends its
process, or takes the machine's memory with it, is answered for; the others go on.
"""

import gc
import importlib
import json
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import IO, Any

import torch

from orchestrator.worker.examine import take_stdout
from orchestrator.worker.shadow.requests import Request, SelfTestRequest, answer

# What every shadow imports sooner or later; forked processes share it.
_IMPORTED_ONCE = (
    "orchestrator.worker.deepspeed_engine",
    "orchestrator.worker.torch_engine",
    "orchestrator.worker.shadow.run",
    "orchestrator.worker.profile",
    "deepspeed.runtime.zero.stage3",
    "deepspeed.ops.adam",
    # What a FakeTensorMode imports when it is made: a second.
    "torch._dynamo",
)


def serve(requests: Sequence[Request], answers: IO[str], *, at_once: int) -> None:
    """Answer every request in a process of its own, so many at a time."""
    context = multiprocessing.get_context("fork")
    waiting = list(enumerate(requests))
    running: dict[Connection, tuple[int, Any]] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            number, request = waiting.pop(0)
            inbox, outbox = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(request, outbox))
            process.start()
            outbox.close()
            running[inbox] = (number, process)
        for done in wait(list(running)):
            assert isinstance(done, Connection)
            number, process = running.pop(done)
            try:
                told = done.recv()
            except EOFError:
                process.join()
                told = {"problem": _ended(process.exitcode)}
            process.join()
            print(json.dumps([number, told]), file=answers, flush=True)


def _models_of(requests: Sequence[Request]) -> Iterator[str]:
    """The modules that build the models asked for; a user's own code runs in forks only."""
    for request in requests:
        family = None
        if not isinstance(request, SelfTestRequest):
            family = getattr(request.plan.spec.model, "family", None)
        if family is not None:
            yield f"orchestrator.models.{family}"


def _work(request: Request, outbox: Connection) -> None:
    outbox.send(answer(request))


def _ended(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"its process was killed ({signal.strsignal(-exit_code)})"
    return f"its process ended by itself (exit code {exit_code})"


def main() -> None:
    """Read the requests and answer them."""
    asked = pickle.load(sys.stdin.buffer)
    answers = take_stdout()
    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)
    for name in (*_IMPORTED_ONCE, *_models_of(asked)):
        importlib.import_module(name)
    # What is here by now stays: forks need neither look through it nor copy it.
    gc.collect()
    gc.freeze()
    serve(asked, answers, at_once=int(sys.argv[1]))


if __name__ == "__main__":
    main()
