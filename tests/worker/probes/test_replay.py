"""Windows written by hand: what was held, and when it was most."""

from orchestrator.worker.probes.replay import (
    BY_ROLE,
    Block,
    Change,
    History,
    Operation,
    replay,
)


def history(blocks, changes, operations=()):
    """Changes are (phase, block, bytes), a tenth of a second apart."""
    return History(
        blocks=list(blocks),
        changes=[
            Change(at_s=number / 10, phase=phase, block=block, n_bytes=n_bytes)
            for number, (phase, block, n_bytes) in enumerate(changes)
        ],
        operations=list(operations),
    )


def filled(ledger):
    return {name: size for name, size in ledger.items() if size}


WEIGHTS = Block(category="params", certainty=BY_ROLE, resting=True)


def test_each_phase_has_its_own_peak_and_its_own_end():
    made = Block(category="activations", made_in="forward", live=False)
    held = replay(
        history(
            [WEIGHTS, made],
            [
                (None, 0, 100),
                ("forward", None, 0),
                ("forward", 1, 50),
                ("backward", None, 0),
                ("backward", 1, -50),
            ],
        )
    )
    assert held.peak_bytes() == {"forward": 150, "backward": 150}
    assert filled(held.edges["forward"]) == {"params": 100, "activations": 50}
    assert filled(held.edges["backward"]) == {"params": 100}
    assert filled(held.resting) == {"params": 100}


def test_what_an_operation_takes_for_itself_is_on_top_of_its_results():
    result = Block(category="temporaries", made_in="backward", live=False)
    changes = [
        (None, 0, 100),
        ("backward", None, 0),
        ("backward", 1, 40),
        ("backward", 1, -40),
    ]
    convolution = Operation(
        first_change=2, end_change=3, scratch_category="temporaries", on_host=False
    )
    held = replay(history([WEIGHTS, result], changes, [convolution]), operation_peaks=[70])
    # It had taken 70 while it ran, 40 of which are its result.
    assert filled(held.peaks["backward"]) == {"params": 100, "temporaries": 70}
    assert held.together_peak_bytes == 170
    assert filled(held.edges["backward"]) == {"params": 100}


def test_an_operation_that_took_no_more_than_its_results_changes_nothing():
    result = Block(category="activations", made_in="forward")
    changes = [(None, 0, 100), ("forward", None, 0), ("forward", 1, 40)]
    product = Operation(first_change=2, end_change=3, scratch_category="temporaries", on_host=False)
    held = replay(history([WEIGHTS, result], changes, [product]), operation_peaks=[40])
    assert filled(held.peaks["forward"]) == {"params": 100, "activations": 40}


def test_operations_that_do_not_match_what_the_profiler_saw_are_left_alone():
    changes = [(None, 0, 100), ("forward", None, 0)]
    one = Operation(first_change=2, end_change=2, scratch_category="temporaries", on_host=False)
    held = replay(history([WEIGHTS], changes, [one]), operation_peaks=[10, 20])
    assert filled(held.peaks["forward"]) == {"params": 100}


def test_scratch_of_an_offloaded_update_is_the_host_s():
    changes = [(None, 0, 100), ("step", None, 0), ("step", None, 0)]
    update = Operation(first_change=2, end_change=2, scratch_category="temporaries", on_host=True)
    held = replay(history([WEIGHTS], changes, [update]), operation_peaks=[30])
    assert held.peak_bytes() == {"step": 100}
    assert filled(held.host_peak) == {"temporaries": 30}
    assert held.together_peak_bytes == 130


def test_device_and_host_are_fullest_at_different_times_and_once_together():
    on_host = Block(category="optimizer", certainty=BY_ROLE, place="host", made_in="step")
    on_device = Block(category="gradients", certainty=BY_ROLE, made_in="step")
    changes = [
        ("step", None, 0),
        ("step", 0, 70),
        ("step", 0, -40),
        ("step", 1, 50),
    ]
    held = replay(history([on_host, on_device], changes))
    assert (held.host_bytes, held.peak_bytes()["step"]) == (70, 50)
    assert held.together_peak_bytes == 80


def test_what_lies_elsewhere_counts_nowhere():
    elsewhere = Block(category="activations", place="elsewhere", made_in="forward")
    held = replay(history([elsewhere], [("forward", None, 0), ("forward", 0, 70)]))
    assert (held.peak_bytes(), held.host_bytes) == ({"forward": 0}, 0)


def test_an_empty_window_held_nothing():
    held = replay(History())
    assert (held.peaks, held.edges, held.timeline, held.host_bytes) == ({}, {}, (), 0)
