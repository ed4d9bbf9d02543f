import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from orchestrator.draw.step_parts import PARTS
from orchestrator.draw.style import (
    CATEGORY_COLOURS,
    PART_COLOURS,
    PHASE_TINTS,
    category_fill,
    new_figure,
)
from orchestrator.measure.ledger import CATEGORIES
from orchestrator.measure.sample import PHASES

# Machado, Oliveira and Fernandes (2009), table 1, severity 1.0, on linear RGB.
SEEN_WITH = {
    "all cones": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
# IEC 61966-2-1: linear sRGB to XYZ, and its white.
TO_XYZ = [
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
]
WHITE = [0.95047, 1.0, 1.08883]


def lab(colour, matrix):
    part = np.array(to_rgb(colour))
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(np.array(TO_XYZ) @ np.clip(np.array(matrix) @ linear, 0, 1) / WHITE)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_every_name_has_a_colour():
    assert tuple(CATEGORY_COLOURS) == CATEGORIES
    assert {*PARTS, "rest", "checkpoint"} == set(PART_COLOURS)
    assert tuple(PHASE_TINTS) == PHASES


def test_a_name_in_two_plots_has_one_colour():
    for name in CATEGORY_COLOURS.keys() & PART_COLOURS.keys():
        assert CATEGORY_COLOURS[name] == PART_COLOURS[name]


@pytest.mark.parametrize("colours", [CATEGORY_COLOURS, PART_COLOURS], ids=["category", "part"])
@pytest.mark.parametrize("cones", SEEN_WITH)
def test_colours_are_told_apart_by_everyone(colours, cones):
    seen = {name: lab(colour, SEEN_WITH[cones]) for name, colour in colours.items()}
    # 2.3 is a difference that is just noticed side by side (Mahy and others, 1994).
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 15, f"{one} looks like {other}"


def test_what_is_mixed_with_white_is_paler():
    assert category_fill("unattributed", white=1.0)["facecolor"] == "#ffffff"
    plain, paler = (to_rgb(category_fill("params", white=w)["facecolor"]) for w in (0, 0.5))
    assert all(light > dark for dark, light in zip(plain, paler, strict=True))


def test_a_title_that_is_too_wide_ends_in_an_ellipsis(assert_readable):
    figure, _ = new_figure(title="w" * 300, subtitle="How to read it.", across_in=7, height_in=3)
    assert figure.get_suptitle().endswith("w…")
    assert_readable(figure)


def test_a_name_is_not_read_as_a_formula():
    figure, _ = new_figure(title="a$b_c$d", subtitle="", across_in=7, height_in=3)
    (title,) = figure.texts
    assert title.get_text() == "a$b_c$d"
    assert not title.get_parse_math()
