"""Floating-point operations of a step, counted on fake tensors, and what a CPU could do at most.

Counted are matrix products, convolutions and attention, forward and backward, without what
activation checkpointing computes again: the model's own work, so that the share of the peak that it
reaches does not grow with recomputation (MFU; Chowdhery et al., PaLM, arXiv:2204.02311,
appendix B).
"""

import time
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from orchestrator.errors import UsageError
from orchestrator.models.build import build_model
from orchestrator.spec.model import ModelSection
from orchestrator.worker.engine import Batch
from orchestrator.worker.objective import parts_of

GEMM_SIZE = 1024
"""Rows and columns of the product by which a CPU is measured: 12 MiB in fp32, past every cache of
one core."""
GEMM_S = 0.2
"""Seconds that the measuring goes on, at least three products."""
# What a user's model may raise when it meets tensors without values.
_NOT_COUNTABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    UsageError,
    ValueError,
)


def count_flops(section: ModelSection, batch: Batch, *, folder: Path) -> int | None:
    """Count the operations of one micro-batch, forward and backward.

    Takes no memory and computes nothing; the random generators are as before.

    Args:
        section: the job's model, every size filled in.
        batch: tensors of the shapes that the model is called with, on the CPU.
        folder: where the job file lies, for factories.

    Returns:
        Operations, a multiplication and an addition being two; `None` for a model that looks at
        values, or computes nothing that is counted.
    """
    try:
        # Attention counts as its two products, whichever kernel the device takes.
        with (
            torch.random.fork_rng(devices=[]),
            FakeTensorMode() as fake,
            sdpa_kernel(SDPBackend.MATH),
        ):
            model = build_model(section, folder=folder).train()
            inputs = {name: fake.from_tensor(value) for name, value in batch.items()}
            with FlopCounterMode(display=False) as counter:
                loss, logits = parts_of(model(**inputs))
                end = loss if loss is not None else logits
                if end is None:
                    return None
                # The loss itself has nothing that is counted.
                end.sum().backward()
    except _NOT_COUNTABLE:
        return None
    return int(counter.get_total_flops()) or None


def measured_gemm_flops_per_s(dtype: torch.dtype) -> float:
    """How many operations a second this process reaches in a large matrix product.

    All ranks measure at the same time, each with the threads it has, so that what they share is
    shared here too.
    """
    left, right = (torch.ones(GEMM_SIZE, GEMM_SIZE, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    torch.mm(left, right, out=out)
    fastest_s = float("inf")
    began_s = time.perf_counter()
    n_products = 0
    while n_products < 3 or time.perf_counter() - began_s < GEMM_S:
        start_s = time.perf_counter()
        torch.mm(left, right, out=out)
        fastest_s = min(fastest_s, time.perf_counter() - start_s)
        n_products += 1
    return 2 * GEMM_SIZE**3 / fastest_s
