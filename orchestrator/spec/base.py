"""What all sections of a job file have in common: closed, frozen, strictly typed."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from orchestrator.units import GIB, parse_size


class Section(BaseModel):
    """A part of the job file. Unknown keys are errors and nothing changes after loading."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        # `model_...` is a plain word here: jobs have a `model:` section.
        protected_namespaces=(),
    )


def _list_to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _gib_or_size(value: Any) -> Any:
    return parse_size(value) / GIB if isinstance(value, str) else value


def _bytes_or_size(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else value


def _whole_number(value: Any) -> Any:
    # A Literal of numbers takes what equals one of them: true for 1, 2.0 for 2.
    if isinstance(value, bool | float):
        raise PydanticCustomError("int_type", "not a whole number")
    return value


def _factory(value: str) -> str:
    module, _, name = value.partition(":")
    parts = [*module.split("."), name]
    if not all(part.isidentifier() for part in parts):
        raise ValueError("write module:callable, such as my_models:build")
    return value


Finite = Annotated[float, Field(allow_inf_nan=False)]
WholeNumber = BeforeValidator(_whole_number)
PositiveInt = Annotated[int, Field(ge=1, le=2**53)]
NonNegative = Annotated[Finite, Field(ge=0)]
Positive = Annotated[Finite, Field(gt=0)]
Ratio = Annotated[Finite, Field(ge=0, lt=1)]
Sizes = Annotated[tuple[PositiveInt, ...], Field(min_length=1), BeforeValidator(_list_to_tuple)]
Betas = Annotated[tuple[Ratio, Ratio], BeforeValidator(_list_to_tuple)]
Gib = Annotated[
    Positive,
    BeforeValidator(_gib_or_size, json_schema_input_type=Annotated[float, Field(gt=0)] | str),
]
Bytes = Annotated[
    PositiveInt,
    BeforeValidator(_bytes_or_size, json_schema_input_type=Annotated[int, Field(ge=1)] | str),
]
FactoryPath = Annotated[str, AfterValidator(_factory)]
