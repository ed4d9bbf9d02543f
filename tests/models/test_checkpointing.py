import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from orchestrator.errors import UsageError
from orchestrator.models.build import build_model
from orchestrator.models.checkpointing import enable_activation_checkpointing, find_blocks
from orchestrator.spec.model import (
    CnnConfig,
    CnnModel,
    Gpt2Config,
    Gpt2Model,
    MlpConfig,
    MlpModel,
    ModelSection,
    ResnetConfig,
    ResnetModel,
)

FAMILIES: dict[str, ModelSection] = {
    "resnet": ResnetModel(
        family="resnet",
        config=ResnetConfig(
            num_channels=1, num_labels=10, embedding_size=8, hidden_sizes=(8, 16), depths=(2, 1)
        ),
    ),
    "cnn": CnnModel(family="cnn", config=CnnConfig(in_channels=1, channels=(8, 8), num_labels=10)),
    "mlp": MlpModel(
        family="mlp", config=MlpConfig(input_size=256, hidden_sizes=(16, 16), num_labels=10)
    ),
    "gpt2": Gpt2Model(
        family="gpt2",
        config=Gpt2Config(
            vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2, resid_pdrop=0.3
        ),
    ),
}


class UserBlock(nn.Module):  # type: ignore[misc]
    def __init__(self, norm=None):
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.norm = norm or nn.Identity()

    def forward(self, x, *, scale=1.0):
        return torch.relu(self.norm(self.linear(x))) * scale


class UserNet(nn.Module):  # type: ignore[misc]
    def __init__(self, blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        for block in self.blocks:
            x = block(x, scale=0.5)
        return x


def model_of(family):
    torch.manual_seed(0)
    return build_model(FAMILIES[family], folder=Path())


def batch_of(family):
    generator = torch.Generator().manual_seed(1)
    if family == "gpt2":
        tokens = torch.randint(50, (4, 16), generator=generator)
        return {"input_ids": tokens, "labels": tokens}
    return {
        "pixel_values": torch.randn(4, 1, 16, 16, generator=generator),
        "labels": torch.arange(4),
    }


def saved_bytes(model, batch):
    """Bytes that the forward pass keeps for the backward pass, parameters left out."""
    own = {parameter.data_ptr() for parameter in model.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor):
        if tensor.data_ptr() not in own:
            saved[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(**batch)
        kept = sum(saved.values())
    output.loss.backward()
    return kept


@pytest.mark.parametrize("family", FAMILIES)
def test_recomputing_changes_neither_loss_nor_gradients_nor_buffers(family):
    plain, recomputing = model_of(family).train(), model_of(family).train()
    enable_activation_checkpointing(recomputing)
    for model in (plain, recomputing):
        torch.manual_seed(2)
        for _ in range(2):
            model(**batch_of(family)).loss.backward()
    gradients = dict(recomputing.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(gradients[name].grad, parameter.grad, rtol=1e-6, atol=1e-6)
    buffers = dict(recomputing.named_buffers())
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(buffers[name], buffer, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", ["resnet", "cnn", "gpt2"])
def test_recomputing_keeps_fewer_bytes(family):
    model = model_of(family).train()
    before = saved_bytes(model, batch_of(family))
    enable_activation_checkpointing(model)
    assert saved_bytes(model, batch_of(family)) < before


def test_an_mlp_gains_nothing_since_it_keeps_only_its_layers_inputs_anyway():
    model = model_of("mlp").train()
    before = saved_bytes(model, batch_of("mlp"))
    enable_activation_checkpointing(model)
    assert saved_bytes(model, batch_of("mlp")) == before


@pytest.mark.parametrize("family", FAMILIES)
def test_the_names_of_the_weights_stay(family):
    model = model_of(family)
    names = list(model.state_dict())
    enable_activation_checkpointing(model)
    assert list(model.state_dict()) == names


def test_running_statistics_take_each_batch_once_and_momentum_comes_back():
    torch.manual_seed(0)
    model = UserNet([UserBlock(nn.BatchNorm1d(6)), UserBlock(nn.BatchNorm1d(6, momentum=None))])
    plain = copy.deepcopy(model)
    enable_activation_checkpointing(model)
    for _ in range(3):
        x = torch.randn(5, 6)
        for net in (model, plain):
            net(x).sum().backward()
    for held, block in zip(model.blocks, plain.blocks, strict=True):
        assert torch.equal(held.norm.running_mean, block.norm.running_mean)
        assert torch.equal(held.norm.running_var, block.norm.running_var)
        assert held.norm.num_batches_tracked.item() == 3
        assert held.norm.momentum == block.norm.momentum


def test_statistics_are_taken_again_after_a_copy():
    model = UserNet([UserBlock(nn.BatchNorm1d(6))])
    enable_activation_checkpointing(model)
    twin = copy.deepcopy(model)
    twin(torch.randn(5, 6)).sum().backward()
    assert twin.blocks[0].norm.num_batches_tracked.item() == 1
    assert model.blocks[0].norm.num_batches_tracked.item() == 0


def test_a_copied_model_recomputes_with_its_own_weights():
    model = UserNet([UserBlock(), UserBlock()])
    enable_activation_checkpointing(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert twin(torch.ones(1, 6)).abs().sum().item() == 0


def test_enabling_twice_is_enabling_once():
    model = UserNet([UserBlock(), UserBlock()])
    calls = []
    model.blocks[0].linear.register_forward_hook(lambda *_: calls.append(1))
    enable_activation_checkpointing(model)
    enable_activation_checkpointing(model)
    model(torch.ones(1, 6)).sum().backward()
    assert len(calls) == 2


def test_evaluation_does_not_recompute():
    model = UserNet([UserBlock()]).eval()
    enable_activation_checkpointing(model)
    calls = []
    model.blocks[0].linear.register_forward_hook(lambda *_: calls.append(1))
    model(torch.ones(1, 6)).sum().backward()
    assert len(calls) == 1


def test_blocks_do_not_lie_inside_each_other():
    inner = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.ReLU())
    model = nn.Sequential(inner, nn.ReLU(), UserBlock())
    assert find_blocks(model) == [inner, model[2]]


def test_a_resnet_is_recomputed_block_by_block():
    assert len(find_blocks(model_of("resnet"))) == 3


def test_a_models_own_switch_is_used():
    class OwnSwitch(UserNet):
        recomputes = False

        def gradient_checkpointing_enable(self):
            self.recomputes = True

    model = OwnSwitch([UserBlock()])
    enable_activation_checkpointing(model)
    assert model.recomputes
    assert "forward" not in vars(model.blocks[0])


@pytest.mark.parametrize(
    "model", [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU()), UserNet([])]
)
def test_a_model_without_blocks_is_told_what_to_do(model):
    with pytest.raises(UsageError, match=r"has no blocks to recompute; keep them in a torch\.nn"):
        enable_activation_checkpointing(model)
