"""Text in columns, for a terminal. Pure."""

from collections.abc import Sequence


def aligned_text(lines: Sequence[Sequence[str]], *, words: Sequence[bool]) -> str:
    """Lay out cells in columns two spaces apart.

    Args:
        lines: cells, as many in each line.
        words: of each column whether it is aligned left; numbers are aligned right.
    """
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if is_words else cell.rjust(width)
            for cell, width, is_words in zip(line, widths, words, strict=True)
        ).rstrip()
        for line in lines
    )
