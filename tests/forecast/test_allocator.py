from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import UsageError
from orchestrator.forecast.allocator import simulate
from orchestrator.forecast.allocator_settings import AllocatorSettings, settings_from_env
from orchestrator.units import KIB, MIB

PLAIN = AllocatorSettings()
EXPANDABLE = AllocatorSettings(expandable_segments=True)
UNSPLIT_FROM_20 = AllocatorSettings(max_split_size_bytes=20 * MIB)


def ask(block_id, mib):
    return block_id, int(mib * MIB)


def free(*block_ids):
    return [(block_id, -1) for block_id in block_ids]


def reserved_mib(events, how=PLAIN, **capacity):
    return simulate(events, settings=how, **capacity).reserved_peak_bytes / MIB


# The numbers of AllocatorConfig.h: kMinBlockSize 512, kSmallSize 1 MiB in kSmallBuffer 2 MiB,
# large_segment_size 20 MiB below kMinLargeAlloc 10 MiB, then kRoundLarge 2 MiB. A large block keeps
# a rest of up to 1 MiB: 11 MiB take a segment of 12 whole, 11 MiB - 512 do not.
@pytest.mark.parametrize(
    ("n_bytes", "allocated_bytes", "reserved_bytes"),
    [
        (1, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),
        (10 * MIB + 1, 10 * MIB + 512, 12 * MIB),
        (11 * MIB - 512, 11 * MIB - 512, 12 * MIB),
        (11 * MIB, 12 * MIB, 12 * MIB),
        (100 * MIB, 100 * MIB, 100 * MIB),
    ],
)
def test_one_request_is_rounded_and_gets_a_segment(n_bytes, allocated_bytes, reserved_bytes):
    result = simulate([(0, n_bytes)], settings=PLAIN)
    assert result.requested_peak_bytes == n_bytes
    assert result.allocated_peak_bytes == allocated_bytes
    assert result.reserved_peak_bytes == reserved_bytes
    assert result.fragmentation_bytes == reserved_bytes - allocated_bytes


def test_small_blocks_share_a_segment_until_it_is_full():
    assert reserved_mib([ask(0, 1), ask(1, 1)]) == 2
    assert reserved_mib([ask(0, 1), ask(1, 1), (2, 1)]) == 4
    # A rest of 512 bytes is a block.
    assert reserved_mib([ask(0, 1), (1, MIB - 512), (2, 512)]) == 2


def test_small_and_large_blocks_share_no_segment():
    # 18 of 20 MiB are free, but in the other pool.
    result = simulate([ask(0, 2), (1, 1)], settings=PLAIN)
    assert (result.reserved_peak_bytes, result.n_segments) == (22 * MIB, 2)


@pytest.mark.parametrize("sizes", [(12, 16), (16, 12)])
def test_the_smallest_block_that_fits_is_taken(sizes):
    # Were 12 cut out of the free 16, the 16 asked for last would need a segment of its own.
    made = [ask(0, sizes[0]), ask(1, sizes[1]), *free(0, 1)]
    assert reserved_mib([*made, ask(2, 12), ask(3, 16)]) == 28


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_free_neighbours_become_one_block_in_whatever_order(order):
    quarters = [ask(i, 5) for i in range(4)]
    assert reserved_mib([*quarters, *free(*order), ask(9, 20)]) == 20


def test_free_blocks_that_are_no_neighbours_stay_apart():
    quarters = [ask(i, 5) for i in range(4)]
    assert reserved_mib([*quarters, *free(0, 2), ask(9, 10)]) == 30


def test_blocks_of_two_segments_never_become_one():
    assert reserved_mib([ask(0, 10), ask(1, 10), *free(0, 1), ask(2, 20)]) == 40


def test_cached_segments_go_back_when_there_is_no_room():
    # 12 are cached and 14 wanted: more than 20, so the 12 are given back first.
    events = [ask(0, 12), *free(0), ask(1, 14)]
    result = simulate(events, settings=PLAIN, capacity_bytes=20 * MIB)
    assert (result.reserved_peak_bytes, result.n_retries) == (14 * MIB, 1)
    assert result.out_of_memory_at is None


def test_a_segment_of_which_a_piece_is_in_use_cannot_go_back():
    events = [ask(0, 5), ask(1, 5), *free(1), ask(2, 16)]
    result = simulate(events, settings=PLAIN, capacity_bytes=30 * MIB)
    assert result.out_of_memory_at == 3
    # Torch counts the retry before it knows whether it helps.
    assert result.n_retries == 1
    assert (result.reserved_peak_bytes, result.fragmentation_bytes) == (20 * MIB, 15 * MIB)


def test_nothing_after_running_out_of_memory_is_counted():
    events = [ask(0, 12), ask(1, 12), *free(0), ask(2, 2)]
    result = simulate(events, settings=PLAIN, capacity_bytes=20 * MIB)
    assert (result.out_of_memory_at, result.requested_peak_bytes) == (1, 12 * MIB)


def test_a_block_above_the_split_size_serves_no_request_below_it():
    # 15 would be cut out of the free 30; now it gets 16, the next multiple of 2.
    events = [ask(0, 30), *free(0), ask(1, 15)]
    assert reserved_mib(events) == 30
    assert reserved_mib(events, UNSPLIT_FROM_20) == 46


@pytest.mark.parametrize(("asked_mib", "expected_mib"), [(41, 60), (40, 100)])
def test_a_block_above_the_split_size_is_at_most_20_mib_too_large(asked_mib, expected_mib):
    # 60 is less than 41 + 20 and given whole; it is not less than 40 + 20.
    events = [ask(0, 60), *free(0), ask(1, asked_mib)]
    assert reserved_mib(events, UNSPLIT_FROM_20) == expected_mib


def test_a_request_above_the_split_size_keeps_all_of_its_segment():
    # 30.5 in 32 leave 1.5, which is above 1 and a block by itself otherwise.
    assert simulate([ask(0, 30.5)], settings=PLAIN).allocated_peak_bytes == 30.5 * MIB
    assert simulate([ask(0, 30.5)], settings=UNSPLIT_FROM_20).allocated_peak_bytes == 32 * MIB


def test_with_the_least_split_size_a_whole_segment_is_never_used_again():
    # 5 are cut out of 20; free, they are again a block of 20, which is not below the split size.
    events = [ask(0, 5), *free(0), ask(1, 5), *free(1), ask(2, 5)]
    assert reserved_mib(events) == 20
    assert reserved_mib(events, UNSPLIT_FROM_20) == 60


@pytest.mark.parametrize(("asked_mib", "n_retries"), [(60, 0), (64, 1)])
def test_blocks_above_the_split_size_go_back_before_all_others(asked_mib, n_retries):
    # Two of 30 are enough for 60 and no retry; for 64 the small segment must go back as well.
    events = [(0, 1), ask(1, 30), ask(2, 30), *free(0, 1, 2), ask(3, asked_mib)]
    result = simulate(events, settings=UNSPLIT_FROM_20, capacity_bytes=65 * MIB)
    assert (result.n_retries, result.out_of_memory_at) == (n_retries, None)


def test_sizes_are_rounded_to_a_part_of_a_power_of_two():
    # Torch's own example, 1200 in 4 parts of 1024 is 1280, in KiB.
    quarters = AllocatorSettings(roundup_power2_divisions=4)
    assert quarters.rounded(1200 * KIB) == 1280 * KIB
    assert quarters.rounded(1280 * KIB) == 1280 * KIB
    assert quarters.rounded(1793 * KIB) == 2048 * KIB
    # Up to 512 times the number of parts it is the next multiple of 512.
    assert quarters.rounded(1200) == 1536


def test_expandable_segments_grow_by_pages():
    assert reserved_mib([(0, 1)], EXPANDABLE) == 2
    assert reserved_mib([ask(0, 2)], EXPANDABLE) == 20
    assert reserved_mib([ask(0, 21)], EXPANDABLE) == 40
    # 15 and 15 lie side by side on two pages.
    result = simulate([ask(0, 15), ask(1, 15)], settings=EXPANDABLE)
    assert (result.reserved_peak_bytes, result.n_segments) == (40 * MIB, 1)


def test_the_block_that_can_grow_is_taken_last():
    # 10 and 6 are free around 4, and the 6 can grow. So 5 are cut out of the 10, and the next 10
    # need a page. The best fit by size, 5 out of the 6, would have left the 10.
    events = [ask(0, 10), ask(1, 4), *free(0), ask(2, 5)]
    assert reserved_mib(events, EXPANDABLE) == 20
    assert reserved_mib([*events, ask(3, 10)], EXPANDABLE) == 40


def test_a_slightly_larger_batch_costs_an_expandable_segment_one_page():
    # The case that torch gives for them: without, 101 gets a new segment of 102.
    events = [ask(0, 100), *free(0), ask(1, 101)]
    assert reserved_mib(events) == 202
    assert reserved_mib(events, EXPANDABLE) == 120


def test_whole_free_pages_of_an_expandable_segment_go_back():
    # Two pages hold 15, 15 and nothing. Of the second 15 and the rest, only 20 to 40 is a page.
    events = [ask(0, 15), ask(1, 15), *free(1), (2, 1), (None, "rest")]
    result = simulate(events, settings=EXPANDABLE, capacity_bytes=40 * MIB)
    assert (result.n_retries, result.out_of_memory_at) == (1, None)
    assert result.phase_reserved_peak_bytes == {"rest": 22 * MIB}


def test_pages_given_back_are_mapped_again_where_they_were():
    # Pages 0, 1 and 2 are full; page 0 goes back for the 1 byte, whose page goes back for the next
    # 20. These come to lie on page 0: with page 1 they make room for 40 and no third retry.
    full = [ask(0, 20), ask(1, 20), ask(2, 20)]
    events = [*full, *free(0), (3, 1), *free(3), ask(4, 20), *free(1, 4), ask(5, 40)]
    result = simulate(events, settings=EXPANDABLE, capacity_bytes=61 * MIB)
    assert (result.n_retries, result.out_of_memory_at) == (2, None)
    assert result.reserved_peak_bytes == 60 * MIB


def test_a_block_that_grows_is_asked_for_anew():
    result = simulate([ask(0, 5), ask(0, 3), *free(0), (None, "rest")], settings=PLAIN)
    assert result.requested_peak_bytes == 8 * MIB
    assert result.reserved_peak_bytes == 20 * MIB
    assert result.phase_allocated_peak_bytes == {"rest": 0}


def test_a_phase_has_the_peak_of_its_highest_turn_and_begins_with_what_is_there():
    events = [
        ask(0, 12),
        (None, "forward"), ask(1, 20), *free(1),
        (None, "backward"),
        (None, "forward"), ask(2, 10), *free(2),
    ]  # fmt: skip
    result = simulate(events, settings=PLAIN)
    assert result.phase_allocated_peak_bytes == {"forward": 32 * MIB, "backward": 12 * MIB}
    assert result.phase_reserved_peak_bytes == {"forward": 32 * MIB, "backward": 32 * MIB}
    assert result.allocated_peak_bytes == 32 * MIB


def test_a_block_of_no_bytes_is_nothing():
    result = simulate([(0, 0), (0, 0)], settings=PLAIN)
    assert (result.requested_peak_bytes, result.reserved_peak_bytes) == (0, 0)


def test_freeing_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="block 7 is freed and is not there"):
        simulate([(0, 1), (7, -1)], settings=PLAIN)


SIZES = st.one_of(st.integers(1, 3 * MIB), st.integers(1, 60).map(lambda mib: mib * MIB))
FEW = settings(max_examples=50)
HOW = st.sampled_from([PLAIN, EXPANDABLE, UNSPLIT_FROM_20])


@st.composite
def traces(draw):
    """Requests and frees, each block freed at most once and after it was made."""
    events, live = [], []
    for block_id, n_bytes in enumerate(draw(st.lists(SIZES, max_size=25))):
        events.append((block_id, n_bytes))
        live.append(block_id)
        for _ in range(draw(st.integers(0, min(2, len(live))))):
            events += free(live.pop(draw(st.integers(0, len(live) - 1))))
    return events


def live_after(events):
    """Bytes of each live block after each event."""
    live: dict[int, int] = {}
    for block_id, n_bytes in events:
        live = {k: v for k, v in live.items() if k != block_id}
        live |= {block_id: n_bytes} if n_bytes > 0 else {}
        yield live


def rounded_to(n_bytes, unit):
    return -(-n_bytes // unit) * unit


@FEW
@given(events=traces(), how=HOW)
def test_reserved_is_never_below_allocated_nor_that_below_requested(events, how):
    marked = [part for i, event in enumerate(events) for part in ((None, str(i)), event)]
    result = simulate(marked, settings=how)
    requested = [sum(live.values()) for live in live_after(events)]
    assert result.requested_peak_bytes == max(requested, default=0)
    for i, n_bytes in enumerate(requested):
        allocated_bytes = result.phase_allocated_peak_bytes[str(i)]
        assert n_bytes <= allocated_bytes <= result.phase_reserved_peak_bytes[str(i)]


@FEW
@given(events=traces(), how=HOW)
def test_freeing_everything_leaves_nothing_allocated(events, how):
    left = list(live_after([(0, 0), *events]))[-1]
    result = simulate([*events, *free(*left), (None, "rest")], settings=how)
    assert result.phase_allocated_peak_bytes == {"rest": 0}


@FEW
@given(events=traces())
def test_expandable_segments_allocate_what_was_asked_rounded_to_512(events):
    rounded = [sum(rounded_to(n, 512) for n in live.values()) for live in live_after(events)]
    exact = max(rounded, default=0)
    assert simulate(events, settings=EXPANDABLE).allocated_peak_bytes == exact
    assert simulate(events, settings=PLAIN).allocated_peak_bytes >= exact


@FEW
@given(sizes=st.lists(SIZES, max_size=25))
def test_expandable_segments_without_frees_waste_less_than_a_page_of_each_pool(sizes):
    blocks = [rounded_to(n_bytes, 512) for n_bytes in sizes]
    small = sum(n_bytes for n_bytes in blocks if n_bytes <= MIB)
    large = sum(blocks) - small
    result = simulate(enumerate(sizes), settings=EXPANDABLE)
    expected = rounded_to(small, 2 * MIB) + rounded_to(large, 20 * MIB)
    assert result.reserved_peak_bytes == expected


@FEW
@given(events=traces(), how=HOW, share=st.floats(0, 1))
def test_the_capacity_is_kept_and_changes_nothing_where_it_is_enough(events, how, share):
    free_run = simulate(events, settings=how)
    enough = simulate(events, settings=how, capacity_bytes=free_run.reserved_peak_bytes)
    assert enough == free_run
    capacity_bytes = int(free_run.reserved_peak_bytes * share)
    tight = simulate(events, settings=how, capacity_bytes=capacity_bytes)
    assert tight.reserved_peak_bytes <= capacity_bytes
    if tight.out_of_memory_at is None:
        assert tight.requested_peak_bytes == free_run.requested_peak_bytes


@FEW
@given(
    n_bytes=SIZES,
    n_blocks=st.integers(1, 8),
    chance=st.randoms(use_true_random=False),
    how=st.sampled_from([PLAIN, EXPANDABLE]),
)
def test_the_order_of_equal_requests_does_not_matter(n_bytes, n_blocks, chance, how):
    ids = list(range(n_blocks))
    shuffled = chance.sample(ids, n_blocks)
    once = [(block_id, n_bytes) for block_id in ids]
    again = [(block_id + n_blocks, n_bytes) for block_id in ids]
    expected = simulate(once, settings=how)
    assert simulate([*once, *free(*shuffled), *again], settings=how) == expected


@FEW
@given(events=traces(), how=HOW)
def test_the_start_of_a_trace_never_takes_more_than_all_of_it(events, how):
    start = simulate(events[: len(events) // 2], settings=how)
    whole = simulate(events, settings=how)
    assert start.reserved_peak_bytes <= whole.reserved_peak_bytes
    assert start.allocated_peak_bytes <= whole.allocated_peak_bytes


def test_without_the_variable_torch_has_its_defaults():
    assert settings_from_env(None) == (PLAIN, ())
    assert settings_from_env("") == (PLAIN, ())


# From torch's own test of its parser, c10/test/core/AllocatorConfig_test.cpp: the text and the
# divisions it expects for a size in MiB.
@pytest.mark.parametrize(
    ("text", "divisions_of_mib"),
    [
        (
            "[64:8,128:2,256:4,512:2,1024:4,>:1]",
            {32: 8, 64: 8, 128: 2, 256: 4, 512: 2, 1024: 4, 2048: 1, 4096: 1, 8192: 1},
        ),
        (
            "[128:8,256:16,512:1,2048:8,>:2]",
            {64: 8, 128: 8, 256: 16, 512: 1, 1024: 0, 2048: 8, 4096: 2},
        ),
        ("4", {64: 4, 256: 4, 2048: 4}),
    ],
)
def test_divisions_are_read_as_torch_reads_them(text, divisions_of_mib):
    how, ignored = settings_from_env(f"roundup_power2_divisions:{text}")
    assert ignored == ()
    for mib, divisions in divisions_of_mib.items():
        # A byte above a power of two it is rounded up by one part of that power, or by 512 bytes.
        part_bytes = 512 if divisions < 2 else mib * MIB // divisions
        assert how.rounded(mib * MIB + 1) == mib * MIB + part_bytes


def test_sizes_and_switches_are_read_whatever_the_spaces():
    text = " expandable_segments : True, max_split_size_mb:40,max_non_split_rounding_mb:30,"
    expected = AllocatorSettings(
        expandable_segments=True,
        max_split_size_bytes=40 * MIB,
        max_non_split_rounding_bytes=30 * MIB,
    )
    assert settings_from_env(text) == (expected, ())
    how, _ = settings_from_env("max_split_size_mb:15,large_segment_size_mb:15")
    assert how == AllocatorSettings(large_segment_bytes=15 * MIB, max_split_size_bytes=15 * MIB)


def test_keys_that_are_not_followed_are_reported_unless_they_change_nothing():
    text = (
        "foo:123,bar:[1:2,>:3],backend:cudaMallocAsync,garbage_collection_threshold:0.8,"
        "per_process_memory_fraction:0.9,pinned_use_background_threads:True,max_split_size_mb:64"
    )
    how, ignored = settings_from_env(text)
    assert how == AllocatorSettings(max_split_size_bytes=64 * MIB)
    assert ignored == (
        "foo", "bar", "backend", "garbage_collection_threshold", "per_process_memory_fraction",
    )  # fmt: skip
    assert settings_from_env("backend:native") == (PLAIN, ())


# Each was refused by torch 2.13.0+cpu, torch._C._accelerator_setAllocatorSettings.
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("expandable_segments", "'expandable_segments' is not key:value"),
        ("expandable_segments:True,,", "',' is not key:value"),
        ("expandable_segments:true", "expandable_segments: 'true' is no switch"),
        ("max_split_size_mb:19", "max_split_size_mb must be at least 20"),
        ("max_split_size_mb:abc", "max_split_size_mb: 'abc' is not a number"),
        ("max_split_size_mb:20,large_segment_size_mb:25", "must be at least 25"),
        ("large_segment_size_mb:10", "must be above 10"),
        ("roundup_power2_divisions:3", "'3' is not a power of two"),
        ("roundup_power2_divisions:[64:3]", "must be powers of two"),
        ("roundup_power2_divisions:[3:8]", "'3' is not a power of two"),
        ("roundup_power2_divisions:[64:8", "is not key:value"),
    ],
)
def test_what_torch_refuses_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        settings_from_env(text)
