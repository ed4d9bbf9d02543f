import matplotlib
import pytest

from orchestrator.draw.style import SETTINGS


@pytest.fixture(autouse=True)
def _settings():
    with matplotlib.rc_context(SETTINGS):
        yield


@pytest.fixture(scope="session")
def texts_of():
    """Figure -> the words in it that are seen, with the pixels they cover."""

    def texts_of(figure):
        figure.draw_without_rendering()
        hidden = {
            id(label)
            for axes in figure.axes
            for axis in (axes.xaxis, axes.yaxis)
            for tick in axis.get_major_ticks() + axis.get_minor_ticks()
            for label in (tick.label1, tick.label2)
            if not _is_seen(tick, axis)
        }
        return [
            (text.get_text(), text.get_window_extent())
            for text in figure.findobj(matplotlib.text.Text)
            if text.get_text().strip() and text.get_visible() and id(text) not in hidden
        ]

    return texts_of


@pytest.fixture(scope="session")
def assert_readable(texts_of):
    """Nothing is cut off, and no words lie on others."""

    def check(figure):
        texts = texts_of(figure)
        whole = figure.bbox.padded(1)
        for words, box in texts:
            assert whole.x0 <= box.x0 < box.x1 <= whole.x1, f"{words!r} is cut off at a side"
            assert whole.y0 <= box.y0 < box.y1 <= whole.y1, f"{words!r} is cut off"
        for i, (words, box) in enumerate(texts):
            for others, other in texts[i + 1 :]:
                assert not box.padded(-1).overlaps(other.padded(-1)), f"{words!r} on {others!r}"

    return check


def _is_seen(tick, axis):
    low, high = sorted(axis.get_view_interval())
    return low <= tick.get_loc() <= high
