"""A shadow run against real ranks, and against accounting done by hand where there are none.

P parameters, N ranks. Adam keeps two fp32 numbers a parameter and one step count a tensor; the fp32
master weights of ZeRO count as optimizer state.
"""

import ctypes.util
import math
import os
from typing import Any

import pytest

from orchestrator.forecast.allocator_settings import AllocatorSettings
from orchestrator.forecast.shadow_result import ShadowResult
from orchestrator.launch.shadows import Shadows
from orchestrator.plan.resources import Machine
from orchestrator.worker.shadow.requests import ShadowRequest
from tests import small_jobs

pytestmark = pytest.mark.ray

CLOSE = 0.005
GPT2: dict[str, Any] = {
    "model": {"family": "gpt2", "config": {"n_embd": 64, "n_layer": 2, "n_head": 2}},
    "data": {"source": "synthetic", "kind": "tokens", "sequence_length": 128},
}
RESNET: dict[str, Any] = {
    "model": {
        "family": "resnet",
        "config": {"embedding_size": 32, "hidden_sizes": [64, 128], "depths": [1, 1]},
    },
    "data": {"source": "synthetic", "image_size": 32, "channels": 1},
}
IMAGES = {"source": "synthetic", "image_size": 8, "channels": 1}
# Its largest tensor is over 1 MiB a rank, below which DeepSpeed does not swap.
WIDE: dict[str, Any] = {
    "model": {"family": "mlp", "config": {"hidden_sizes": [1000, 900]}},
    "data": IMAGES,
}
ON_HOST = {"stage": 3, "offload_optimizer": "cpu", "offload_params": "cpu"}
ON_NVME = {"stage": 3, "offload_optimizer": "nvme", "offload_params": "nvme"}
needs_libaio = pytest.mark.skipif(
    ctypes.util.find_library("aio") is None, reason="NVMe needs libaio"
)
# What real ranks run, two of them each.
REAL: dict[str, dict[str, Any]] = {
    "gpt2-0": {**GPT2, "zero": {"stage": 0}, "training": {"global_batch_size": 32}},
    "gpt2-2-bf16": {**GPT2, "zero": {"stage": 2}, "training": {"precision": "bf16"}},
    "gpt2-3-ckpt": {
        **GPT2,
        "zero": {"stage": 3},
        "training": {"activation_checkpointing": True},
    },
    "gpt2-3-host": {**GPT2, "zero": ON_HOST},
    "resnet-0": {**RESNET, "zero": {"stage": 0}},
    "resnet-2-host": {**RESNET, "zero": {"stage": 2, "offload_optimizer": "cpu"}},
    "resnet-3-bf16": {**RESNET, "zero": {"stage": 3}, "training": {"precision": "bf16"}},
    "wide-nvme": {**WIDE, "zero": ON_NVME},
}
REAL_CASES = [pytest.param(name, marks=needs_libaio if "nvme" in name else ()) for name in REAL]

# Layers of 64 x 127, 127 x 63 and 63 x 10 with their biases: nothing that ranks divide evenly.
SHAPES = [(127, 64), (127,), (63, 127), (63,), (10, 63), (10,)]
SIZES = [math.prod(shape) for shape in SHAPES]
P = sum(SIZES)
MLP: dict[str, Any] = {
    "model": {"family": "mlp", "config": {"hidden_sizes": [127, 63]}},
    "data": IMAGES,
}
GPUS = Machine(n_cpus=64, n_gpus=8, name="8 GPUs")
MANY = Machine(n_cpus=5000, n_gpus=0, name="many CPUs")
LORA = """
import torch

class Adapted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.base = torch.nn.Linear(64, 10)
        self.base.requires_grad_(False)
        self.down = torch.nn.Linear(64, 4, bias=False)
        self.up = torch.nn.Linear(4, 10, bias=False)

    def forward(self, pixel_values, labels=None):
        x = pixel_values.flatten(1)
        return self.base(x) + self.up(self.down(x))

def build():
    return Adapted()
"""
N_ADAPTED = 64 * 4 + 4 * 10
# Name -> what is planned; shadows of rank 0 unless the name says otherwise.
IMAGINED: dict[str, dict[str, Any]] = {
    "1000 ranks": {
        "machine": MANY,
        **MLP,
        "zero": {"stage": 3},
        "resources": {"workers": 1000},
        "training": {"global_batch_size": 4000},
    },
    "3 ranks": {
        **MLP,
        "zero": {"stage": 2},
        "resources": {"workers": 3},
        "training": {"global_batch_size": 24},
    },
    "4 micro-batches": {**MLP, "zero": {"stage": 2}, "training": {"global_batch_size": 32}},
    "8 micro-batches": {**MLP, "zero": {"stage": 2}, "training": {"global_batch_size": 64}},
    "adapted": {
        "model": {"factory": "adapted:build"},
        "data": IMAGES,
        "n_params": N_ADAPTED,
        "zero": {"stage": 2},
    },
    **{
        f"cuda-{stage}-{precision}": {
            "machine": GPUS,
            **MLP,
            "zero": {"stage": stage},
            "training": {"precision": precision},
        }
        for stage, precision in ((0, "fp32"), (1, "fp16"), (2, "fp16"), (3, "fp16"), (3, "bf16"))
    },
    "cuda-host": {"machine": GPUS, **MLP, "zero": ON_HOST, "training": {"precision": "fp16"}},
    **{
        name: {**MLP, "training": {"optimizer": {"name": name}}}
        for name in ("sgd", "adam", "adafactor", "rmsprop")
    },
    "momentum": {**MLP, "training": {"optimizer": {"name": "sgd", "momentum": 0.9}}},
    "lion": {"machine": GPUS, **MLP, "training": {"optimizer": {"name": "lion"}}},
}
RANKS = {"1000 ranks": (0, 999), "3 ranks": (0, 2)}


@pytest.fixture(scope="session")
def swap_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("nvme")


@pytest.fixture(scope="session")
def real(train, swap_folder):
    """Train one of `REAL`; each is trained once."""
    return lambda name: train(**_with_folder(REAL[name], swap_folder))


@pytest.fixture(scope="session")
def shadows(tmp_path_factory, swap_folder):
    """(Name, rank) -> the shadow; all are run side by side."""
    folder = tmp_path_factory.mktemp("shadows")
    (folder / "adapted.py").write_text(LORA, encoding="utf-8")
    wanted = [(name, rank) for name in REAL for rank in (0, 1)]
    wanted += [(name, rank) for name in IMAGINED for rank in RANKS.get(name, (0,))]
    requests = [
        ShadowRequest(
            plan=small_jobs.plan_job(
                folder, **_with_folder({**REAL, **IMAGINED}[name], swap_folder)
            ),
            rank=rank,
            sample=None,
            allocator=AllocatorSettings(),
        )
        for name, rank in wanted
    ]
    answers = Shadows(cache=None, environment=os.environ).ask(requests)
    return dict(zip(wanted, answers, strict=True))


@pytest.fixture
def shadow(shadows):
    def look_up(name, rank=0):
        found = shadows[name, rank]
        assert isinstance(found, ShadowResult), found
        assert found.rank == rank
        return found

    return look_up


def _padded(n_elements, *, n_ranks):
    """As ZeRO 1 and 2 lay parameters out: every rank's part begins at an even element.

    Source: deepspeed 0.19.8, runtime/zero/stage_1_and_2.py, `nccl_start_alignment_factor`.
    """
    return math.ceil(n_elements / (2 * n_ranks)) * 2 * n_ranks


def _with_folder(changes, folder):
    if "nvme" not in changes.get("zero", {}).values():
        return changes
    return {**changes, "zero": {**changes["zero"], "nvme_path": str(folder)}}


@pytest.mark.parametrize("name", REAL_CASES)
class TestAgainstRealRanks:
    def test_every_phase_peaks_where_it_did(self, shadow, real, name):
        outcome = real(name)
        assert outcome.errors == {}
        for rank in (0, 1):
            measured = {
                "init": outcome.facts(rank).init_peak_bytes,
                **outcome.phase_peaks(rank),
            }
            assert shadow(name, rank).phase_peak_bytes == pytest.approx(measured, rel=CLOSE)

    def test_every_category_is_what_it_was_in_the_fullest_phase(self, shadow, real, name):
        for rank in (0, 1):
            ledgers = real(name).probed(rank).peak_ledgers
            fullest = max(ledgers, key=lambda phase: sum(ledgers[phase].values()))
            close = CLOSE * sum(ledgers[fullest].values())
            found = shadow(name, rank).peak_ledgers[fullest]
            assert found == pytest.approx(ledgers[fullest], abs=close)

    def test_host_and_disk_hold_what_they_did(self, shadow, real, name):
        for rank in (0, 1):
            sample = next(s for s in real(name).samples(rank) if s.probed)
            found = shadow(name, rank)
            assert sum(found.host_ledger.values()) == sample.host_bytes
            assert found.nvme_bytes == sample.nvme_bytes

    def test_the_model_has_as_many_parameters(self, shadow, real, name):
        assert shadow(name).n_params == real(name).facts().n_params


def test_offloaded_tensors_lie_on_the_host_or_on_disk(shadow):
    assert sum(shadow("gpt2-0").host_ledger.values()) == 0
    assert sum(shadow("gpt2-3-host").host_ledger.values()) > 0
    assert shadow("gpt2-3-host").nvme_bytes is None
    # The one matrix of 1000 x 900 is swapped: weight, master weight and Adam's two, fp32.
    nvme_bytes = shadow("wide-nvme").nvme_bytes
    assert nvme_bytes is not None
    assert nvme_bytes >= 4 * 4 * 1000 * 900 / 2


@pytest.mark.parametrize("name", [*REAL, *IMAGINED])
def test_the_second_step_is_like_the_third(shadow, name):
    assert shadow(name).steps_agree


def test_a_thousand_ranks_share_every_tensor(shadow):
    share = sum(math.ceil(size / 1000) for size in SIZES)
    for rank in (0, 999):
        held = shadow("1000 ranks", rank).peak_ledgers["step"]
        assert held["params"] == held["gradients"] == 4 * share
        # Master weights and Adam's two, and its step count.
        assert held["optimizer"] == 12 * share + 4


def test_ranks_hold_the_gradients_of_their_own_part(shadow):
    part = _padded(P, n_ranks=3) // 3
    assert part < SIZES[0]
    first, last = (shadow("3 ranks", rank).peak_ledgers["step"] for rank in (0, 2))
    # The whole first matrix, of which a part is wanted.
    assert first["gradients"] == 4 * SIZES[0]
    # All from the second matrix on, and what fills the last part up.
    assert last["gradients"] == 4 * (sum(SIZES[2:]) + 3 * part - P)
    assert first["optimizer"] == last["optimizer"] == 12 * part + 4


def test_more_micro_batches_send_more_and_hold_the_same(shadow):
    four, eight = shadow("4 micro-batches"), shadow("8 micro-batches")
    assert four.phase_peak_bytes == eight.phase_peak_bytes
    sent = [{(c.name, c.phase): c.payload_bytes for c in one.collectives} for one in (four, eight)]
    reduced = ("allreduce_", "backward")
    assert [one.pop(reduced) for one in sent] == [4 * 4 * P, 8 * 4 * P]
    assert sent[0] == sent[1]


def test_the_optimizer_keeps_nothing_for_frozen_parameters(shadow):
    found = shadow("adapted")
    assert found.n_params == N_ADAPTED
    assert found.peak_ledgers["step"]["optimizer"] == 12 * N_ADAPTED / 2 + 4


@pytest.mark.parametrize("name", [name for name in IMAGINED if name.startswith("cuda")])
def test_the_allocator_of_a_gpu_reserves_what_holds_every_tensor(shadow, name):
    found = shadow(name)
    memory = found.device_memory
    assert memory is not None
    fullest_bytes = max(found.phase_peak_bytes.values())
    # Rounded up to blocks of 512 bytes, in segments of 2 MiB.
    assert memory.reserved_peak_bytes >= memory.allocated_peak_bytes >= fullest_bytes
    assert memory.reserved_peak_bytes % 2**21 == 0
    assert memory.reserved_peak_bytes == max(memory.phase_reserved_bytes.values())
    assert memory.phase_reserved_bytes.keys() == found.peak_ledgers.keys()


def test_a_cpu_has_no_segments(shadow):
    assert shadow("adam").device_memory is None


def test_half_precision_keeps_weights_in_two_bytes_and_the_optimizer_in_four(shadow):
    held = shadow("cuda-1-fp16").peak_ledgers["step"]
    padded = _padded(P, n_ranks=2)
    assert held["params"] == 2 * padded
    assert held["optimizer"] == 12 * padded / 2 + 4


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sgd", 0),
        ("momentum", 4 * P),
        ("rmsprop", 4 * P + 4 * len(SHAPES)),
        ("adam", 8 * P + 4 * len(SHAPES)),
        ("lion", 4 * P),
        # A row and a column of each matrix, whole biases.
        ("adafactor", 4 * sum(map(sum, SHAPES)) + 4 * len(SHAPES)),
    ],
)
def test_an_optimizer_keeps_as_many_moments_as_it_has(shadow, name, expected):
    assert shadow(name).peak_ledgers["step"]["optimizer"] == expected
