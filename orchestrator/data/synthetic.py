"""Random samples of a given shape, with a rule in them that can be learnt. Touches nothing outside.

N = samples, C = channels, H, W = height, width, T = tokens of a sequence.
"""

import torch

from orchestrator.data.samples import Batch, Datasets, Indices, TokenTable, as_rows
from orchestrator.spec.data import SyntheticData

N_NOISE_IMAGES = 16
RANDOM_TOKEN_RATIO = 0.1


class PatternImages:
    """Stripes that depend on the class, over noise from a small pool: little memory at rest."""

    def __init__(
        self,
        *,
        labels_N: torch.Tensor,
        rows_KCH1: torch.Tensor,
        columns_KC1W: torch.Tensor,
        noise_PCHW: torch.Tensor,
    ) -> None:
        self._labels_N = labels_N
        self._rows_KCH1 = rows_KCH1
        self._columns_KC1W = columns_KC1W
        self._noise_PCHW = noise_PCHW

    def __len__(self) -> int:
        return len(self._labels_N)

    def batch(self, indices: Indices) -> Batch:
        """Images by number. K = classes, P = noise images."""
        numbers = as_rows(indices)
        labels = self._labels_N.index_select(0, numbers)
        images = self._noise_PCHW.index_select(0, numbers % len(self._noise_PCHW))
        images += self._rows_KCH1.index_select(0, labels)
        images += self._columns_KC1W.index_select(0, labels)
        return {"pixel_values": images, "labels": labels}


def build_synthetic(data: SyntheticData) -> Datasets:
    """Make random images or token sequences, the same for the same `data.seed`.

    Returns:
        Keys and types as for digits (images) or text (tokens). Both parts follow the same rule.
    """
    # A generator of its own: the model's weights come from torch's global one.
    generator = torch.Generator().manual_seed(data.seed)
    return _images(data, generator) if data.kind == "images" else _tokens(data, generator)


def _images(data: SyntheticData, generator: torch.Generator) -> Datasets:
    n_classes, channels, side = data.num_classes, data.channels, data.image_size
    rows = torch.randn(n_classes, channels, side, 1, generator=generator)
    columns = torch.randn(n_classes, channels, 1, side, generator=generator)
    noise = torch.randn(N_NOISE_IMAGES, channels, side, side, generator=generator)

    def part(n_samples: int) -> PatternImages:
        labels = torch.randint(n_classes, (n_samples,), generator=generator)
        return PatternImages(
            labels_N=labels, rows_KCH1=rows, columns_KC1W=columns, noise_PCHW=noise
        )

    return Datasets(train=part(data.n_samples), eval=part(data.n_eval_samples))


def _tokens(data: SyntheticData, generator: torch.Generator) -> Datasets:
    """Let each token follow from the one before by a fixed table, but for one in ten."""
    successor = torch.randint(data.vocab_size, (data.vocab_size,), generator=generator)

    def part(n_samples: int) -> TokenTable:
        shape = (n_samples, data.sequence_length)
        tokens = torch.randint(data.vocab_size, shape, generator=generator, dtype=torch.int32)
        follows = torch.rand(shape, generator=generator) >= RANDOM_TOKEN_RATIO
        for t in range(1, data.sequence_length):
            expected = successor[tokens[:, t - 1].long()].int()
            tokens[:, t] = torch.where(follows[:, t], expected, tokens[:, t])
        return TokenTable(tokens)

    return Datasets(train=part(data.n_samples), eval=part(data.n_eval_samples))
