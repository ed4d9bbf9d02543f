"""What each strategy holds, in bytes a parameter, against the accounting done by hand.

P parameters, N = 2 ranks, L = elements of the largest parameter, B = elements of the reduce bucket,
Adam with 8 bytes of state a parameter. fp32 unless said otherwise.

Source: the accounting of DeepSpeed 0.19.8 (runtime/zero/stage_1_and_2.py, stage3.py) done by hand;
Rajbhandari et al., ZeRO (arXiv:1910.02054), section 5, for the shares.
"""

import gc

import pytest

from tests.worker.ranks import run_ranks

pytestmark = pytest.mark.ray

MODEL = {"family": "mlp", "config": {"hidden_sizes": [1000, 900]}}
P = 64 * 1000 + 1000 + 1000 * 900 + 900 + 900 * 10 + 10
L = 1000 * 900
B = P // 8
# Few samples, so that activations are small beside a million parameters.
TRAINING = {"steps": 3, "global_batch_size": 4, "micro_batch_size": 2}
CLOSE = 0.02


def job(zero, *, precision="fp32", accumulated_in=None):
    sections = {"model": MODEL, "zero": zero, "training": {**TRAINING, "precision": precision}}
    if accumulated_in is not None:
        sections["deepspeed"] = {"data_types": {"grad_accum_dtype": accumulated_in}}
    return sections


@pytest.fixture
def trained(train):
    def run(zero, **settings):
        outcome = train(**job(zero, **settings))
        assert outcome.errors == {}
        return outcome

    return run


def count_resting_bytes(plan, place, *, put):
    """Take three steps, then add up every tensor that is left, without the trace."""
    import torch

    from orchestrator.data.build import build_data
    from orchestrator.models.build import build_model
    from orchestrator.worker.engines import build_engine
    from orchestrator.worker.place import join_process_group
    from orchestrator.worker.probes.storages import live_storages

    device = torch.device("cpu")
    join_process_group(place, device=device, timeout_s=60)
    batch = build_data(plan.spec.data, folder=plan.folder).train.batch(range(2))
    before = live_storages()
    model = build_model(plan.spec.model, folder=plan.folder)
    engine = build_engine(plan, model, device=device)
    for _ in range(3):
        engine.backward(engine.forward(batch), last=True)
        engine.step(lr=1e-3)
    gc.collect()
    left = [t for key, t in live_storages().items() if key not in before]
    put(sum(t.untyped_storage().nbytes() for t in left if t.device.type == "cpu"))


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        # weights 4, Adam 8
        (0, 12),
        # weights 4; halves of master weights 4 and Adam 8
        (1, 4 + 12 / 2),
        (2, 4 + 12 / 2),
        # halves of weights 4, master weights 4, gradients 4 and Adam 8; the bucket
        (3, 20 / 2 + 4 * B / P),
    ],
)
def test_what_rests_between_steps_is_what_the_stage_keeps(plan, stage, expected):
    made = plan(**job({"stage": stage}))
    assert made.n_params == P
    outcome = run_ranks(made, work=count_resting_bytes)
    assert outcome.errors == {}
    assert len(outcome.records) == 2
    for resting_bytes in outcome.records:
        assert resting_bytes / P == pytest.approx(expected, rel=CLOSE)


@pytest.mark.parametrize(
    ("stage", "precision", "expected"),
    [
        (0, "fp32", 12),
        (1, "fp32", 10),
        (2, "fp32", 10),
        # weights 2; master weights 4 and Adam 8, whole or halved
        (0, "bf16", 2 + 12),
        (1, "bf16", 2 + 12 / 2),
        (2, "bf16", 2 + 12 / 2),
    ],
)
def test_the_forward_peak_is_what_rests_and_the_activations(trained, stage, precision, expected):
    outcome = trained({"stage": stage}, precision=precision)
    for rank in (0, 1):
        peak = outcome.phase_peaks(rank)["forward"] / P
        assert peak == pytest.approx(expected, rel=CLOSE)
        assert peak > expected


@pytest.mark.parametrize(
    ("stage", "precision", "expected"),
    [
        # gradients, and their flat copy for the all-reduce
        (0, "fp32", {"backward": 12 + 4 + 4}),
        (0, "bf16", {"backward": 14 + 2 + 2}),
        # half of: averaged gradients 2 and their flat copy, then 4 in fp32 and two temporaries of 4
        (1, "bf16", {"step": 8 + (4 + 8) / 2}),
        (2, "bf16", {"step": 8 + (4 + 8) / 2}),
        (3, "bf16", {"step": 16 / 2 + 2 * B / P + (4 + 8) / 2}),
    ],
)
def test_the_other_peaks_are_those_by_hand(trained, stage, precision, expected):
    peaks = trained({"stage": stage}, precision=precision).phase_peaks()
    for phase, bytes_per_parameter in expected.items():
        assert peaks[phase] / P == pytest.approx(bytes_per_parameter, rel=CLOSE)


# Elements of the parameters that a rank's half of stages 1 and 2 touches: the largest lies in both.
TOUCHED = {0: 64 * 1000 + 1000 + L, 1: L + 900 + 900 * 10 + 10}
WITHIN = 0.01


@pytest.mark.parametrize(
    ("stage", "precision", "accumulated_in", "params", "optimizer", "gradients"),
    [
        (0, "fp32", None, 4, 8, 0),
        (0, "bf16", None, 2, 4 + 8, 0),
        (1, "fp32", None, 4, (4 + 8) / 2, 0),
        (1, "bf16", None, 2, (4 + 8) / 2, 0),
        # DeepSpeed's BF16_Optimizer keeps whole gradients in fp32
        (1, "bf16", "fp32", 2, (4 + 8) / 2, 4),
        (2, "fp32", None, 4, (4 + 8) / 2, 0),
        (2, "bf16", None, 2, (4 + 8) / 2, 0),
        (2, "bf16", "fp32", 2, (4 + 8) / 2, 0),
        # stage 3 keeps its share of the gradients for ever
        (3, "fp32", None, 4 / 2, (4 + 8) / 2, 4 / 2),
        (3, "bf16", None, 2 / 2, (4 + 8) / 2, 2 / 2),
        (3, "bf16", "fp32", 2 / 2, (4 + 8) / 2, 4 / 2),
    ],
)
def test_the_ledger_of_what_rests_is_the_accounting_by_hand(
    trained, stage, precision, accumulated_in, params, optimizer, gradients
):
    outcome = trained({"stage": stage}, precision=precision, accumulated_in=accumulated_in)
    for rank in (0, 1):
        rests = outcome.probed(rank).edge_ledgers["step"]
        assert rests["params"] / P == pytest.approx(params, rel=WITHIN)
        assert rests["optimizer"] / P == pytest.approx(optimizer, rel=WITHIN)
        assert rests["gradients"] / P == pytest.approx(gradients, rel=WITHIN)
        assert rests["temporaries"] == 0
        assert rests["unattributed"] / P < 0.01


@pytest.mark.parametrize(
    ("stage", "precision", "gradients"),
    [
        (0, "fp32", {0: 4, 1: 4}),
        (0, "bf16", {0: 2, 1: 2}),
        (1, "fp32", {rank: 4 * n / P for rank, n in TOUCHED.items()}),
        (2, "fp32", {rank: 4 * n / P for rank, n in TOUCHED.items()}),
        (2, "bf16", {rank: 2 * n / P for rank, n in TOUCHED.items()}),
        (3, "fp32", {0: 4 / 2, 1: 4 / 2}),
    ],
)
def test_gradients_after_backward_are_those_the_rank_owns(trained, stage, precision, gradients):
    outcome = trained({"stage": stage}, precision=precision)
    for rank, expected in gradients.items():
        held = outcome.probed(rank).edge_ledgers["backward"]["gradients"]
        assert held / P == pytest.approx(expected, rel=WITHIN)


def test_stage_3_has_its_bucket_and_what_it_gathers_in_lines_of_their_own(trained):
    probed = trained({"stage": 3}).probed()
    assert probed.edge_ledgers["step"]["buffers"] / P == pytest.approx(4 * B / P, rel=WITHIN)
    # The largest layer at least; between steps only what is never sharded.
    assert probed.peak_ledgers["forward"]["gathered"] >= 4 * L
    assert probed.edge_ledgers["step"]["gathered"] < 0.01 * 4 * P


@pytest.mark.parametrize(
    ("zero", "host"),
    [
        (
            {"stage": 2, "offload_optimizer": "cpu"},
            {"optimizer": (4 + 8) / 2, "buffers": 4 / 2 + 4 * L / P, "gradients": 4 / 2},
        ),
        (
            {"stage": 3, "offload_optimizer": "cpu", "offload_params": "cpu"},
            {"optimizer": (4 + 8) / 2, "params": 4 / 2, "gradients": (4 + 4) / 2},
        ),
    ],
    ids=str,
)
def test_the_host_s_ledger_tells_what_was_offloaded(trained, zero, host):
    ledger = trained(zero).probed().host_ledger
    found = {name: size / P for name, size in ledger.items() if size / P > 0.01}
    assert found == pytest.approx(host, rel=WITHIN)


def test_on_nvme_what_is_swapped_out_is_on_neither_device_nor_host(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("nvme_ledger")
    zero = {"stage": 3, "offload_optimizer": "nvme", "offload_params": "nvme"}
    outcome = trained({**zero, "nvme_path": str(path)})
    for rank in (0, 1):
        probed = outcome.probed(rank)
        for ledger in probed.edge_ledgers.values():
            # No weights, no optimizer state and no gradients rest on the device.
            assert ledger["params"] + ledger["optimizer"] + ledger["gradients"] == 0
            assert ledger["unattributed"] < WITHIN * sum(ledger.values())
        assert probed.host_ledger["optimizer"] == 0
        (nvme_bytes,) = {s.nvme_bytes for s in outcome.samples(rank) if s.nvme_bytes}
        # Halves of master weights and both moments; of weights and gradients, those of the largest
        # parameter: less than 1 MiB is not worth a file to DeepSpeed (swap_tensor/utils.py).
        assert nvme_bytes / P == pytest.approx((4 + 8) / 2 + (4 + 4) / 2 * L / P, rel=WITHIN)


def test_resident_memory_grows_by_what_tensors_take_in_exact_mode(train):
    """The peak of a step above its beginning, in pages and in tensors."""
    outcome = train(
        model={"family": "gpt2", "config": {"n_embd": 128, "n_layer": 4, "n_head": 4}},
        data={"source": "text", "sequence_length": 128, "max_bytes": 200_000},
        zero={"stage": 2},
        training={"steps": 5, "global_batch_size": 32, "micro_batch_size": 16},
        measure={"exact_rss": True},
    )
    assert outcome.errors == {}
    for rank in (0, 1):
        assert outcome.facts(rank).exact_rss
        (resident,) = [s.resident for s in outcome.samples(rank) if s.resident is not None]
        rests = sum(outcome.probed(rank).edge_ledgers["step"].values())
        tensors = max(outcome.phase_peaks(rank).values()) - rests
        assert tensors > 100 * 2**20
        pages = max(resident.peak_bytes.values()) - resident.start_bytes
        assert pages == pytest.approx(tensors, rel=0.02)
        assert sum(resident.pss_bytes.values()) < 3 * max(resident.peak_bytes.values())


@pytest.mark.parametrize(("stage", "expected"), [(0, 4), (1, 8), (2, 8)])
def test_building_the_engine_peaks_at_weights_and_copies(trained, stage, expected):
    # from stage 1 on: weights 4; halves of master weights and a temporary as large
    assert trained({"stage": stage}).facts().init_peak_bytes / P == pytest.approx(
        expected, rel=CLOSE
    )


@pytest.mark.parametrize(
    ("zero", "precision", "on_host"),
    [
        # halves of master weights, staged weights, gradients and Adam; the largest parameter
        ({"stage": 1, "offload_optimizer": "cpu"}, "fp32", (4 + 4 + 4 + 8) / 2 + 4 * L / P),
        ({"stage": 2, "offload_optimizer": "cpu"}, "fp32", (4 + 4 + 4 + 8) / 2 + 4 * L / P),
        ({"stage": 2, "offload_optimizer": "cpu"}, "bf16", (4 + 2 + 4 + 8) / 2 + 2 * L / P),
        ({"stage": 3, "offload_optimizer": "cpu"}, "fp32", (4 + 4 + 4 + 8) / 2),
        ({"stage": 3, "offload_optimizer": "cpu"}, "bf16", (4 + 4 + 2 + 8) / 2),
        ({"stage": 3, "offload_params": "cpu"}, "fp32", 4 / 2),
        (
            {"stage": 3, "offload_optimizer": "cpu", "offload_params": "cpu"},
            "fp32",
            (4 + 4 + 4 + 8 + 4) / 2,
        ),
    ],
    ids=str,
)
def test_offload_moves_bytes_from_the_device_to_the_host(trained, zero, precision, on_host):
    outcome = trained(zero, precision=precision)
    resident = trained({"stage": zero["stage"]}, precision=precision)
    for rank in (0, 1):
        (host_bytes,) = [s.host_bytes for s in outcome.samples(rank) if s.host_bytes is not None]
        assert host_bytes / P == pytest.approx(on_host, rel=CLOSE)
        offloaded_peaks, peaks = outcome.phase_peaks(rank), resident.phase_peaks(rank)
        for phase in ("forward", "backward", "step"):
            assert offloaded_peaks[phase] < 0.95 * peaks[phase]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_nothing_rests_on_the_host_without_offload(trained, stage):
    samples = trained({"stage": stage}).samples()
    assert {s.host_bytes for s in samples if s.phase_peak_bytes is not None} == {0}


def test_nvme_takes_from_the_device_as_much_as_the_host_does(trained, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "nvme_memory"
    path.mkdir(exist_ok=True)
    on_nvme = {"offload_optimizer": "nvme", "offload_params": "nvme", "nvme_path": str(path)}
    on_host = {"offload_optimizer": "cpu", "offload_params": "cpu"}
    nvme = trained({"stage": 3, **on_nvme}).phase_peaks()
    host = trained({"stage": 3, **on_host}).phase_peaks()
    assert nvme["backward"] == pytest.approx(host["backward"], rel=CLOSE)
    assert nvme["step"] == pytest.approx(host["step"], rel=CLOSE)
    # Only the host's forward gathers parameters ahead of their use.
    assert nvme["forward"] < host["forward"]


LAYERS = {"family": "mlp", "config": {"hidden_sizes": [16] * 120}}
LAYER = 16 * 16 + 16


@pytest.mark.parametrize(
    ("stage", "model", "sharded", "whole", "more"),
    [
        (0, MODEL, (), ("optimizer", "gradients", "params"), 0),
        (1, MODEL, ("optimizer",), ("params",), 0),
        # DeepSpeed keeps the gradient of a parameter that lies in two shares whole in both, so that
        # only one of many parameters shows the share.
        (2, LAYERS, ("optimizer", "gradients"), ("params",), 4 * LAYER),
        (3, MODEL, ("optimizer", "gradients", "params"), (), 0),
    ],
)
def test_what_a_stage_shards_falls_as_one_over_the_ranks_and_the_rest_does_not(
    train, stage, model, sharded, whole, more
):
    """Rajbhandari et al., ZeRO, figure 1: optimizer state, then gradients, then parameters."""
    held = {}
    for workers in (1, 2, 4):
        training = {**TRAINING, "micro_batch_size": 1, "global_batch_size": 4}
        resources = {"workers": workers}
        outcome = train(model=model, zero={"stage": stage}, training=training, resources=resources)
        assert outcome.errors == {}
        ends = [outcome.probed(rank).edge_ledgers for rank in range(workers)]
        held[workers] = {
            "optimizer": max(end["step"]["optimizer"] for end in ends),
            "gradients": max(end["backward"]["gradients"] for end in ends),
            "params": max(end["step"]["params"] for end in ends),
        }
    for workers in (2, 4):
        for part in sharded:
            share = held[1][part] / workers
            assert held[workers][part] == pytest.approx(share, abs=0.01 * share + more), part
        for part in whole:
            assert held[workers][part] == pytest.approx(held[1][part], rel=0.01), part
