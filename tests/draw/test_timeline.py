import numpy as np
import pytest

from orchestrator.draw.timeline import timeline_figure
from tests.draw.runs import timeline


def draw(*args, **settings):
    figure = timeline_figure(timeline(*args, **settings), name="resnet-zero2")
    assert figure is not None
    return figure, figure.axes[0]


def areas(axes):
    return [patch.get_data() for patch in axes.patches if hasattr(patch, "get_data")]


def bands(axes):
    spans = [patch for patch in axes.patches if not hasattr(patch, "get_data")]
    return [(span.get_x(), span.get_x() + span.get_width()) for span in spans]


def words(axes):
    return [text.get_text() for text in axes.texts]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def many_micro_batches():
    moments = []
    for i in range(40):
        moments += [(i * 0.03, "forward", 5, 3), (i * 0.03 + 0.01, "backward", 5, 6)]
    return [*moments, (1.2, "step", 5, 0)]


def test_areas_lie_on_each_other_and_add_up():
    _, axes = draw()
    params, activations = areas(axes)
    assert params.values.tolist() == [5, 5, 5, 5, 5]
    assert activations.baseline.tolist() == [5, 5, 5, 5, 5]
    assert activations.values.tolist() == [5, 11, 14, 7, 5]
    assert legend(axes) == ["activations", "params"]


def test_a_moment_holds_until_the_next():
    _, axes = draw()
    # Four gaps in 90 ms, so the last moment is given 22.5 ms.
    assert areas(axes)[0].edges == pytest.approx([0, 10, 30, 80, 90, 112.5])


def test_phases_are_bands_with_their_names():
    _, axes = draw()
    assert np.array(bands(axes)) == pytest.approx(np.array([[0, 30], [30, 90], [90, 112.5]]))
    assert words(axes)[:3] == ["forward", "backward", "step"]


def test_phases_too_narrow_for_their_names_are_in_the_legend():
    _, axes = draw(moments=many_micro_batches())
    assert len(bands(axes)) == 81
    assert not {"forward", "backward", "step"} & set(words(axes))
    assert legend(axes)[-3:] == ["in forward", "in backward", "in step"]


def test_the_peak_is_marked_with_its_value():
    _, axes = draw()
    (mark,) = axes.lines
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (pytest.approx(30), 14)
    assert words(axes)[-1] == "peak 14.0 MiB, in backward"


def test_titles_say_which_rank_and_step_and_that_it_was_traced():
    figure, axes = draw(3)
    assert figure.get_suptitle() == "Memory of rank 3 through step 2 · resnet-zero2"
    assert "traced, which stretches its times" in axes.get_title(loc="left")


def test_a_timeline_without_moments_is_no_plot():
    empty = timeline(at_s=[], phase=[], ledger={"params": []})
    assert timeline_figure(empty, name="run") is None


@pytest.mark.parametrize("params_mib", [5, 0])
def test_one_moment_is_drawn(params_mib):
    _, axes = draw(moments=[(0.0, "forward", params_mib, 0)])
    assert len(areas(axes)) == (1 if params_mib else 0)
    assert bands(axes) == [(0, pytest.approx(1))]


@pytest.mark.parametrize(
    "moments",
    [
        None,
        many_micro_batches(),
        [(0.0, "forward", 60_000, 9), (0.1, "backward", 1, 1)],
        [(0.0, "forward", 1, 9), (0.1, "backward", 1, 1), (0.15, "step", 60_000, 1)],
    ],
    ids=["one micro-batch", "40 micro-batches", "peak at the left", "peak at the right"],
)
def test_words_do_not_overlap(moments, assert_readable):
    figure, _ = draw(moments=moments)
    assert_readable(figure)
