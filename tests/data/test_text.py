from pathlib import Path

import pytest
import torch

from orchestrator.data.build import build_data
from orchestrator.errors import UsageError
from orchestrator.spec.data import TextData


def text(folder=None, **values):
    return build_data(TextData(source="text", **values), folder=folder or Path())


def tokens(samples):
    return samples.batch(range(len(samples)))["input_ids"]


def test_a_file_is_cut_into_its_bytes_and_two_sequences_in_five_are_held_out(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"abcdefghijk")
    data = text(tmp_path, path="a.txt", sequence_length=2, eval_fraction=0.4)
    assert tokens(data.train).tolist() == [[97, 98], [99, 100], [103, 104]]
    assert tokens(data.eval).tolist() == [[101, 102], [105, 106]]


def test_labels_are_the_tokens_themselves(tmp_path):
    (tmp_path / "a.txt").write_bytes(bytes(range(1, 256)))
    batch = text(tmp_path, path="a.txt", sequence_length=5).train.batch([0, 1])
    assert batch["labels"].dtype == torch.int64
    assert torch.equal(batch["labels"], batch["input_ids"])


def test_a_folder_is_read_in_order_of_names_without_binary_and_hidden_files(tmp_path):
    folder = tmp_path / "corpus"
    (folder / "b").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "c.txt").write_bytes(b"cccc")
    (folder / "b" / "x.md").write_bytes(b"bbbb")
    (folder / "a.txt").write_bytes(b"aaaa")
    (folder / "image.png").write_bytes(b"\x89PNG\0\0")
    (folder / ".git" / "config").write_bytes(b"gggg")
    data = text(tmp_path, path="corpus", sequence_length=4, eval_fraction=0.34)
    seen = torch.cat([tokens(data.train), tokens(data.eval)]).tolist()
    assert seen == [[97] * 4, [98] * 4, [99] * 4]


def test_no_more_than_max_bytes_are_read(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x" * 100)
    data = text(tmp_path, path="a.txt", sequence_length=10, max_bytes=45)
    assert len(data.train) + len(data.eval) == 4


def test_the_standard_library_is_real_text_that_does_not_change():
    first = text(max_bytes=50_000)
    # sorted by name, the first module is __future__.py, which opens with this line
    opening = bytes(first.train.batch([0])["input_ids"][0].tolist())
    assert opening.startswith(b'"""Record of phased-in incompatible language changes.')
    assert torch.equal(tokens(first.eval), tokens(text(max_bytes=50_000).eval))


def test_the_default_is_four_million_bytes():
    data = text(sequence_length=1000)
    assert len(data.train) + len(data.eval) == 4000
    assert len(data.eval) == 400


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"corpus does not exist; .*relative paths start at the job file's folder"),
        ({}, "corpus has no text in it; name a text file or a folder with some"),
        ({"x.bin": b"\0\0"}, "corpus has no text in it"),
        ({"x.txt": b"short"}, "corpus has 5 B of text, too little .*lower sequence_length"),
    ],
)
def test_a_path_without_enough_text_is_named_with_what_to_do(tmp_path, content, message):
    if content is not None:
        (tmp_path / "corpus").mkdir()
        for name, data in content.items():
            (tmp_path / "corpus" / name).write_bytes(data)
    with pytest.raises(UsageError, match=message) as caught:
        text(tmp_path, path="corpus", sequence_length=4)
    assert "\n" not in str(caught.value)
