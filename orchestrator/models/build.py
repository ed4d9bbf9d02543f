"""From the `model:` section to a module. Imports a family's library only when it is asked for."""

from pathlib import Path

from torch import nn

from orchestrator.errors import UsageError
from orchestrator.spec.factory import call_factory, load_factory
from orchestrator.spec.model import (
    CnnModel,
    FactoryModel,
    Gpt2Model,
    MlpModel,
    ModelSection,
    ResnetModel,
)


def build_model(model: ModelSection, *, folder: Path) -> nn.Module:
    """Build the model of a job, in fp32 on the CPU.

    The weights are drawn from torch's global generator: the same after the same
    `torch.manual_seed`.

    Args:
        model: Section with every size filled in.
        folder: Where the job file lies, for factories.

    Returns:
        A module called with a batch's items as keyword arguments.

    Raises:
        UsageError: The user's factory fails or returns no module with parameters.
        ValueError: A size is still open.
    """
    match model:
        case ResnetModel():
            from orchestrator.models.resnet import build_resnet

            return build_resnet(model.config)
        case Gpt2Model():
            from orchestrator.models.gpt2 import build_gpt2

            return build_gpt2(model.config)
        case CnnModel():
            from orchestrator.models.cnn import build_cnn

            return build_cnn(model.config)
        case MlpModel():
            from orchestrator.models.mlp import build_mlp

            return build_mlp(model.config)
        case FactoryModel():
            return _build_factory_model(model, folder=folder)


def _build_factory_model(model: FactoryModel, *, folder: Path) -> nn.Module:
    factory = load_factory(model.factory, folder=folder)
    built = call_factory(factory, path=model.factory, config=model.config)
    if not isinstance(built, nn.Module):
        raise UsageError(
            f"factory {model.factory} returned a {type(built).__name__}; return a torch.nn.Module"
        )
    if not any(parameter.requires_grad for parameter in built.parameters()):
        raise UsageError(
            f"factory {model.factory} returned a {type(built).__name__} without trainable "
            "parameters; there is nothing to train"
        )
    return built
