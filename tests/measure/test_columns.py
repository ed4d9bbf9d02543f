from orchestrator.measure.columns import aligned_text


def test_words_stand_left_and_numbers_right_in_columns_as_wide_as_their_widest_cell():
    lines = [["name", "MiB"], ["a", "1.0"], ["longest", "1,000.0"]]
    assert aligned_text(lines, words=[True, False]).splitlines() == [
        "name         MiB",
        "a            1.0",
        "longest  1,000.0",
    ]


def test_no_line_ends_in_blanks():
    assert aligned_text([["a", "b"], ["c", ""]], words=[True, True]) == "a  b\nc"
