"""Handwritten digits: the 1,797 images of 8 x 8 pixels that ship with scikit-learn.

Reads scikit-learn's file, but does not import scikit-learn, which would take a second.
"""

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch

from orchestrator.data.samples import Batch, Datasets, Indices, as_rows
from orchestrator.data.split import Mask, held_out
from orchestrator.errors import UsageError
from orchestrator.spec.data import DigitsData

SIDE = 8
LARGEST_PIXEL = 16


class ImageTable:
    """Small images, enlarged when a batch is taken, so that a large size costs no memory."""

    def __init__(
        self, images_N1HW: torch.Tensor, labels_N: torch.Tensor, *, image_size: int, channels: int
    ) -> None:
        self._images_N1HW = images_N1HW
        self._labels_N = labels_N
        self._image_size = image_size
        self._channels = channels

    def __len__(self) -> int:
        return len(self._labels_N)

    def batch(self, indices: Indices) -> Batch:
        """Images by number. N = images, H, W = height, width, 1 = the one channel."""
        rows = as_rows(indices)
        images = self._images_N1HW.index_select(0, rows)
        if self._image_size != SIDE:
            images = torch.nn.functional.interpolate(
                images, size=(self._image_size, self._image_size), mode="bilinear"
            )
        if self._channels > 1:
            images = images.expand(-1, self._channels, -1, -1).contiguous()
        return {"pixel_values": images, "labels": self._labels_N.index_select(0, rows)}


def build_digits(data: DigitsData) -> Datasets:
    """Read the digits and split them, evenly within each class and the same for every seed.

    Returns:
        `pixel_values` (float32, axes B C H W; over the 8 x 8 training images the mean is 0 and the
        standard deviation 1) and `labels` (int64).

    Raises:
        UsageError: scikit-learn's file is not there.
    """
    table = np.loadtxt(gzip.decompress(_file().read_bytes()).decode().splitlines(), delimiter=",")
    pixels = (table[:, :-1] / LARGEST_PIXEL).reshape(-1, 1, SIDE, SIDE)
    labels = table[:, -1].astype(np.int64)
    out = _held_out_of_each_class(labels, fraction=data.eval_fraction)
    images = torch.from_numpy(
        ((pixels - pixels[~out].mean()) / pixels[~out].std()).astype(np.float32)
    )

    def part(mask: Mask) -> ImageTable:
        rows = torch.from_numpy(np.flatnonzero(mask))
        return ImageTable(
            images[rows],
            torch.from_numpy(labels)[rows],
            image_size=data.image_size,
            channels=data.channels,
        )

    return Datasets(train=part(~out), eval=part(out))


def _file() -> Path:
    found = importlib.util.find_spec("sklearn")
    path = (
        Path(found.origin if found and found.origin else "").parent / "datasets/data/digits.csv.gz"
    )
    if not path.is_file():
        raise UsageError("data.source digits: scikit-learn is not installed; run `make setup`")
    return path


def _held_out_of_each_class(
    labels: np.ndarray[tuple[int], np.dtype[np.int64]], *, fraction: float
) -> Mask:
    out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        out[rows[held_out(len(rows), fraction=fraction)]] = True
    return out
