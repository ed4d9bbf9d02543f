import json
from dataclasses import replace

import pytest

from orchestrator.errors import UsageError
from orchestrator.forecast.receipts import Receipt, Receipts, load_receipts, store_receipt
from orchestrator.measure.ledger import CATEGORIES, empty_ledger


def held(**parts):
    return empty_ledger() | parts


RECEIPT = Receipt(
    run_key="20251124-183000-125-Digits MLP",
    time_unix_s=1_764_009_000.125,
    strategy="zero-2",
    stage=2,
    offload_optimizer="cpu",
    offload_params="none",
    precision="bf16",
    activation_checkpointing=False,
    workers=2,
    micro_batch_size=4,
    accumulation_steps=1,
    device="cpu",
    model="mlp",
    method="shadow",
    versions={"torch": "2.13.0"},
    rank=0,
    # Peaks: init 100, forward 150, backward 190, step 210.
    forecast={
        "init": held(params=100),
        "forward": held(params=100, activations=50),
        "backward": held(params=100, gradients=40, activations=50),
        "step": held(params=100, gradients=40, temporaries=70),
    },
    # Peaks: init 100, forward 160, backward 200, step 195.
    measured={
        "init": held(params=100),
        "forward": held(params=100, activations=60),
        "backward": held(params=100, gradients=30, activations=62, unattributed=8),
        "step": held(params=100, gradients=40, temporaries=55),
    },
    forecast_host_bytes=500,
    measured_host_bytes=500,
    forecast_nvme_bytes=None,
    measured_nvme_bytes=None,
    forecast_reserved_bytes=None,
    measured_reserved_bytes=None,
    forecast_device_bytes=(1000, 2000),
    measured_device_bytes=None,
    forecast_step_s=0.5,
    measured_step_s=None,
)


def only(receipt, *phases):
    return replace(receipt, measured={phase: receipt.measured[phase] for phase in phases})


def test_the_peak_error_compares_the_largest_peaks_though_they_are_of_two_phases():
    assert RECEIPT.peak_bytes == (210, 200)
    assert RECEIPT.measured_peak_phase == "backward"
    assert RECEIPT.peak_error_ratio == 0.05


def test_a_phase_s_error_is_a_share_of_its_own_measured_peak():
    assert RECEIPT.phase_error_ratios() == {
        "init": 0.0,
        "forward": -10 / 160,
        "backward": -10 / 200,
        "step": 15 / 195,
    }


def test_a_phase_that_was_not_measured_is_not_held_against_the_forecast():
    ended_early = only(RECEIPT, "init", "forward")
    assert ended_early.peak_bytes == (150, 160)
    assert ended_early.peak_error_ratio == -0.0625
    assert list(ended_early.phase_error_ratios()) == ["init", "forward"]


def test_where_nothing_was_measured_every_error_is_unknown():
    for receipt in (only(RECEIPT), replace(RECEIPT, measured={"init": empty_ledger()})):
        assert receipt.peak_error_ratio is None
        assert receipt.phase_error_ratios() == {}
        assert receipt.category_errors() == {}
    assert only(RECEIPT).measured_peak_phase is None


def test_category_errors_are_shares_of_the_whole_measured_peak_and_add_up_to_its_error():
    errors = RECEIPT.category_errors()
    assert tuple(errors) == CATEGORIES
    told = {name: (e.forecast_bytes, e.measured_bytes, e.error_ratio) for name, e in errors.items()}
    # At backward, of 200 bytes.
    assert told["params"] == (100, 100, 0.0)
    assert told["gradients"] == (40, 30, 0.05)
    assert told["activations"] == (50, 62, -0.06)
    assert told["temporaries"] == (0, 0, 0.0)
    assert told["unattributed"] == (0, 8, -0.04)
    total = sum(error.error_ratio for error in errors.values())
    assert total == pytest.approx(RECEIPT.phase_error_ratios()["backward"])


@pytest.mark.parametrize(
    ("optimizer", "params", "words"),
    [
        ("none", "none", "none"),
        ("cpu", "none", "optimizer cpu"),
        ("nvme", "cpu", "optimizer nvme, params cpu"),
    ],
)
def test_offload_is_told_in_words(optimizer, params, words):
    assert replace(RECEIPT, offload_optimizer=optimizer, offload_params=params).offload == words


def test_a_receipt_survives_its_json_form():
    value = json.loads(json.dumps(RECEIPT.to_json()))
    assert value["forecast_device_bytes"] == [1000, 2000]
    assert value["receipt_format"] == 1
    assert Receipt.from_json(value) == RECEIPT


def test_a_time_that_is_no_number_becomes_unknown():
    slow = replace(RECEIPT, measured_step_s=float("nan"))
    assert Receipt.from_json(slow.to_json()).measured_step_s is None


def test_a_category_that_a_ledger_lacks_is_0():
    value = RECEIPT.to_json() | {"forecast": {"init": {"params": 7}}}
    assert Receipt.from_json(value).forecast == {"init": held(params=7)}


def test_a_stored_receipt_is_read_back(tmp_path):
    folder = tmp_path / "made" / "receipts"
    path = store_receipt(folder, RECEIPT)
    assert path.parent == folder
    assert path.name.startswith("20251124-183000-125-digits-mlp-")
    assert path.name.endswith("-rank0.json")
    assert load_receipts(folder).kept == (RECEIPT,)
    assert [file.name for file in folder.iterdir()] == [path.name]


def test_every_run_and_rank_has_a_file_and_the_same_one_replaces_it(tmp_path):
    again = replace(RECEIPT, measured_step_s=0.25)
    others = [
        replace(RECEIPT, rank=1),
        replace(RECEIPT, run_key="20251124-183000-125/Digits MLP"),
        replace(RECEIPT, run_key="///"),
        replace(RECEIPT, run_key="x" * 1000),
    ]
    for receipt in (RECEIPT, *others, again):
        store_receipt(tmp_path, receipt)
    kept = load_receipts(tmp_path).kept
    assert len(kept) == 5
    assert again in kept
    assert RECEIPT not in kept


def test_receipts_come_by_time_run_and_rank(tmp_path):
    late = replace(RECEIPT, run_key="a", time_unix_s=2e9)
    for receipt in (late, replace(RECEIPT, rank=10), replace(RECEIPT, rank=9), RECEIPT):
        store_receipt(tmp_path, receipt)
    assert [(r.run_key[:4], r.rank) for r in load_receipts(tmp_path).kept] == [
        ("2025", 0), ("2025", 9), ("2025", 10), ("a", 0),
    ]  # fmt: skip


def test_without_a_folder_there_are_no_receipts(tmp_path):
    receipts = load_receipts(tmp_path / "nowhere")
    assert receipts == Receipts(kept=(), unreadable=())


BROKEN = {
    "empty": "",
    "torn": json.dumps(RECEIPT.to_json())[:200],
    "no object": "[1, 2]",
    "endless": "[" * 100_000,
    "not a number": json.dumps(RECEIPT.to_json() | {"forecast_host_bytes": True}),
    "infinite": json.dumps(RECEIPT.to_json() | {"forecast_step_s": float("inf")}),
    "negative": json.dumps(RECEIPT.to_json() | {"measured": {"init": {"params": -1}}}),
    "category": json.dumps(RECEIPT.to_json() | {"measured": {"init": {"weights": 1}}}),
    "phase": json.dumps(RECEIPT.to_json() | {"measured": {"warm-up": {"params": 1}}}),
    "extra": json.dumps(RECEIPT.to_json() | {"colour": "red"}),
    "latin": '{"run_key": "\xe9',
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_skipped_and_told_and_the_others_are_read(tmp_path, text):
    store_receipt(tmp_path, RECEIPT)
    broken = tmp_path / "broken.json"
    broken.write_bytes(text.encode("latin-1"))
    receipts = load_receipts(tmp_path)
    assert receipts.kept == (RECEIPT,)
    assert [unreadable.path for unreadable in receipts.unreadable] == [broken]
    assert receipts.unreadable[0].reason


def test_the_reason_names_the_value_that_is_wrong(tmp_path):
    value = RECEIPT.to_json() | {"receipt_format": 2, "colour": "red"}
    (tmp_path / "newer.json").write_text(json.dumps(value))
    (tmp_path / "folder.json").mkdir()
    reasons = [unreadable.reason for unreadable in load_receipts(tmp_path).unreadable]
    assert reasons == ["Is a directory", "receipt_format: Input should be 1 (and 1 more)"]


def test_a_receipt_that_could_not_be_read_back_is_not_stored(tmp_path):
    wrong = replace(RECEIPT, forecast={"init": {"weights": 1}})
    with pytest.raises(ValueError, match="unknown category 'weights'"):
        store_receipt(tmp_path, wrong)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_the_user_s_error_and_names_the_file(tmp_path):
    (tmp_path / "receipts").write_text("a file")
    with pytest.raises(UsageError, match=r"rank0\.json: a receipt cannot be written: "):
        store_receipt(tmp_path / "receipts", RECEIPT)


def test_a_write_that_fails_leaves_neither_half_a_receipt_nor_the_unfinished_file(tmp_path):
    path = store_receipt(tmp_path, RECEIPT)
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        store_receipt(tmp_path, RECEIPT)
    assert list(tmp_path.iterdir()) == [path]
