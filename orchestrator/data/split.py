"""Which samples are held out: spread evenly, the same ones for every seed. Pure arithmetic."""

from typing import Any

import numpy as np

Mask = np.ndarray[Any, np.dtype[np.bool_]]


def held_out(n_samples: int, *, fraction: float) -> Mask:
    """Mark samples for evaluation at equal distances.

    Args:
        n_samples: At least 2.
        fraction: Share to hold out, between 0 and 1, both excluded.

    Returns:
        True where a sample is held out: `n_samples * fraction` of them, rounded down, but at least
        one, and at least one is left to train on.

    Raises:
        ValueError: There are fewer than 2 samples.
    """
    if n_samples < 2:
        raise ValueError(f"{n_samples} samples cannot be split in two")
    # 1e-9: products such as 100 * 0.29 fall just below their integer.
    n_out = min(max(int(n_samples * fraction + 1e-9), 1), n_samples - 1)
    return np.diff(np.arange(n_samples + 1) * n_out // n_samples).astype(bool)
