from orchestrator.forecast.gathering import Gathering
from tests.forecast.strategies import layered_moments, layered_profile, make_moment, make_setup


def gathered(sizes, *, moments=None, device="cuda", **changes):
    """The most bytes until each moment is done, and the gathering after it all."""
    strategy = {"stage": 3, "prefetch_bucket_elements": 0, "max_reuse_distance_elements": 0}
    moments = moments or layered_moments(len(sizes))
    setup = make_setup(device=device, **{**strategy, **changes})
    gathering = Gathering(setup, layered_profile(sizes), moments)
    return [sum(gathering.at(moment)) for moment in moments], gathering


def test_without_reuse_one_layer_at_a_time_is_whole():
    most, gathering = gathered((10, 20, 30))
    assert max(most) == 4 * 30
    assert gathering.gathered_bytes == 0
    # once in forward and once in backward
    assert gathering.collectives == [40, 80, 120, 120, 80, 40]


def test_within_reuse_distance_everything_stays_whole_until_its_backward():
    most, gathering = gathered((10, 20, 30), max_reuse_distance_elements=10**9)
    assert max(most) == 4 * 60
    assert gathering.collectives == [40, 80, 120]


def test_a_shard_that_needs_padding_is_gathered_with_it():
    _, gathering = gathered((9,), n_ranks=4)
    assert gathering.collectives[0] == 4 * 12


def test_what_comes_next_is_prefetched():
    most, _ = gathered((10, 20, 30), prefetch_bucket_elements=1)
    enters_second_layer = 3
    # The first has gone, and while the second runs, the third comes.
    assert most[enters_second_layer] == 4 * (20 + 30)


def test_two_parameters_together_are_gathered_into_a_buffer_and_copied_out_of_it():
    most, gathering = gathered((10, 20), prefetch_bucket_elements=11)
    # The root module fetches both ahead: 30 elements flat, and then each by itself.
    assert gathering.collectives[0] == 120
    assert most[1] == 120 + 120


def test_live_parameters_limit_only_what_is_prefetched():
    most, _ = gathered((10, 20, 30), prefetch_bucket_elements=100, max_live_elements=0)
    assert max(most) == 4 * 30


def test_small_parameters_never_go():
    most, gathering = gathered((10, 20, 30), persistence_threshold_elements=10)
    assert most[0] == 40
    assert gathering.gathered_bytes == 40
    assert gathering.collectives == [80, 120, 120, 80]


def test_on_a_cpu_gloo_receives_into_a_copy():
    most, _ = gathered((10,), device="cpu")
    assert max(most) == 2 * 40


def test_one_rank_gathers_nothing():
    most, gathering = gathered((10, 20), n_ranks=1)
    assert set(most) == {0}
    assert gathering.collectives == []


def test_a_recomputed_block_holds_its_weights_until_their_gradients_though_they_are_given_back():
    moments = layered_moments(1)
    again = [make_moment(kind, 1, backward=True) for kind in ("enter", "leave")]
    begins = [m.kind for m in moments].index("enter_backward")
    most, gathering = gathered(
        (10,), moments=[*moments[: begins + 1], *again, *moments[begins + 1 :]]
    )
    # Recomputed and given back, then gathered again for backward: twice in memory.
    assert max(most) == 2 * 40
    assert len(gathering.collectives) == 3
    assert gathering.gathered_bytes == 0
