import math
from types import SimpleNamespace

import pytest
import torch

from orchestrator.worker.objective import check_labels, n_correct, parts_of, read_output

LOGITS = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
LABELS = torch.tensor([0, 1])
# -log softmax by hand
CROSS_ENTROPY = (math.log(1 + math.exp(-2)) + math.log(2)) / 2


def test_a_models_own_loss_is_taken_as_it_is():
    own = torch.tensor(3.5)
    output = SimpleNamespace(loss=own, logits=LOGITS)
    loss, logits = read_output(output, {}, loss="cross_entropy")
    assert loss is own
    assert logits is LOGITS
    assert parts_of(output) == (own, LOGITS)


@pytest.mark.parametrize("output", [LOGITS, SimpleNamespace(logits=LOGITS, loss=None)])
def test_cross_entropy_is_computed_from_logits(output):
    loss, logits = read_output(output, {"labels": LABELS}, loss="cross_entropy")
    assert loss.item() == pytest.approx(CROSS_ENTROPY)
    assert logits is LOGITS


def test_cross_entropy_of_sequences_is_the_mean_over_all_tokens():
    logits_BTC = LOGITS.reshape(1, 2, 2).expand(3, 2, 2)
    labels_BT = LABELS.reshape(1, 2).expand(3, 2)
    loss, _ = read_output(logits_BTC, {"labels": labels_BT}, loss="cross_entropy")
    assert loss.item() == pytest.approx(CROSS_ENTROPY)


def test_an_ignored_label_does_not_count():
    labels = torch.tensor([-100, 1])
    loss, _ = read_output(LOGITS, {"labels": labels}, loss="cross_entropy")
    assert loss.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(("name", "expected"), [("mse", (1 + 4) / 2), ("l1", (1 + 2) / 2)])
def test_distances_are_means_over_all_values(name, expected):
    output, labels = torch.tensor([1.0, 3.0]), torch.tensor([2, 5])
    loss, _ = read_output(output, {"labels": labels}, loss=name)
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["mse", "l1"])
def test_distances_of_other_shapes_are_refused_and_not_broadcast(name):
    message = rf"labels have the shape \(2,\) and .* \(2, 1\); training\.loss: {name} needs them eq"
    with pytest.raises(ValueError, match=message):
        read_output(torch.zeros(2, 1), {"labels": torch.zeros(2)}, loss=name)


@pytest.mark.parametrize("shape", [(2, 1), (1, 2), (3,), ()])
def test_labels_that_are_not_one_a_row_are_refused(shape):
    message = r"the model's logits have \(2, 2\); cross_entropy needs one label for each row"
    with pytest.raises(ValueError, match=message):
        read_output(LOGITS, {"labels": torch.zeros(shape).long()}, loss="cross_entropy")


def test_an_output_without_loss_or_logits_is_refused():
    with pytest.raises(ValueError, match=r"returned dict without \.loss or \.logits; return an"):
        read_output({"logits": LOGITS}, {"labels": LABELS}, loss="mse")


def test_logits_without_labels_are_refused():
    with pytest.raises(ValueError, match=r"no labels \(it has \['x', 'y'\]\); add labels to the"):
        read_output(LOGITS, {"y": LABELS, "x": LABELS}, loss="cross_entropy")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2], r"reach from 0 to 2 and the model has 2 classes \(0 to 1\); change the data"),
        ([-1, 1], "reach from -1 to 1 and the model has 2 classes"),
        ([-100, 7], "reach from 7 to 7"),
        ([0.0, 1.0], r"torch\.float32 and cross_entropy needs whole .* training\.loss: mse"),
    ],
)
def test_labels_that_no_class_stands_for_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        read_output(LOGITS, {"labels": torch.tensor(labels)}, loss="cross_entropy")


@pytest.mark.parametrize("labels", [[], [-100], [0, 1, -100], [True, False]])
def test_labels_that_fit_pass(labels):
    check_labels(torch.tensor(labels, dtype=torch.int64), n_classes=2)


def test_right_answers_are_counted():
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert n_correct(logits, torch.tensor([0, 1, 0])) == 2


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (None, LABELS),
        (LOGITS, None),
        (LOGITS, LABELS.float()),
        (torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64)),
        (torch.zeros(2), LABELS),
    ],
    ids=["no logits", "no labels", "numbers", "sequences", "one output"],
)
def test_accuracy_has_no_meaning_but_for_classification(logits, labels):
    assert n_correct(logits, labels) is None
