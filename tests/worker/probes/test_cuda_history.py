"""Histories written by hand, as torch 2.13's allocator writes them."""

from orchestrator.measure.ledger import empty_ledger
from orchestrator.worker.probes.cuda_history import NamedBlock, PhaseStart, ledgers_by_phase

PHASES = [PhaseStart(at_us=100.0, phase="forward"), PhaseStart(at_us=200.0, phase="backward")]


def event(action, addr, size, time_us):
    return {"action": action, "addr": addr, "size": size, "time_us": time_us, "frames": []}


def peaks(entries, *, blocks=(), resting=None, resting_addresses=None):
    found = ledgers_by_phase(
        entries,
        resting=empty_ledger() | (resting or {}),
        resting_addresses=resting_addresses or {},
        blocks=list(blocks),
        phases=PHASES,
    )
    return {
        phase: {name: size for name, size in ledger.items() if size}
        for phase, ledger in found.items()
    }


def test_a_block_gets_its_tensor_s_category_at_the_size_the_allocator_gave():
    out = NamedBlock(address=0x10, seen_us=111.0, category="activations")
    entries = [event("alloc", 0x10, 512, 110.0)]
    found = peaks(entries, blocks=[out], resting={"params": 1000})
    # The block is there still as backward begins.
    assert found["forward"] == found["backward"] == {"params": 1000, "activations": 512}


def test_a_workspace_that_no_tensor_was_seen_in_is_a_temporary():
    entries = [
        event("alloc", 0x20, 4096, 210.0),
        event("free_requested", 0x20, 4096, 211.0),
        event("free_completed", 0x20, 4096, 212.0),
    ]
    assert peaks(entries, resting={"params": 8}) == {
        "forward": {"params": 8},
        "backward": {"params": 8, "temporaries": 4096},
    }


def test_an_address_that_is_used_again_is_another_block():
    entries = [
        event("alloc", 0x30, 100, 110.0),
        event("free_completed", 0x30, 100, 120.0),
        event("alloc", 0x30, 60, 210.0),
    ]
    later = NamedBlock(address=0x30, seen_us=211.0, category="gradients")
    # The first was gone before the tensor was seen.
    assert peaks(entries, blocks=[later]) == {
        "forward": {"temporaries": 100},
        "backward": {"gradients": 60},
    }


def test_what_rested_and_is_given_back_leaves_its_category():
    entries = [
        event("free_completed", 0x40, 300, 150.0),
        event("alloc", 0x50, 200, 250.0),
    ]
    new = NamedBlock(address=0x50, seen_us=251.0, category="optimizer")
    found = peaks(
        entries,
        blocks=[new],
        resting={"params": 500, "gradients": 300},
        resting_addresses={0x40: "gradients"},
    )
    assert found == {
        "forward": {"params": 500, "gradients": 300},
        "backward": {"params": 500, "optimizer": 200},
    }


def test_a_free_of_what_nobody_knows_changes_nothing():
    found = peaks(
        [event("free_completed", 0x60, 300, 150.0), event("alloc", 0x70, 1, 160.0)],
        resting={"params": 9},
    )
    assert found["forward"] == {"params": 9, "temporaries": 1}


def test_segments_and_requests_are_no_changes():
    entries = [
        event("segment_alloc", 0x80, 2**21, 110.0),
        event("alloc", 0x80, 512, 111.0),
        event("free_requested", 0x80, 512, 150.0),
        event("alloc", 0x90, 512, 160.0),
    ]
    # Given back only once the stream is done with it.
    assert peaks(entries)["forward"] == {"temporaries": 1024}
