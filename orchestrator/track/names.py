"""Names and values as MLflow takes them. Pure arithmetic on text.

Source: mlflow 3.17.2, utils/validation.py.
"""

import re
from collections.abc import Mapping
from typing import Any

MAX_NAME = 250
MAX_PARAM_VALUE = 6000
MAX_TAG_VALUE = 8000
_BAD = re.compile(r"[^/\w.\- :]")
_CUT = "..."


def entity_name(text: str) -> str:
    """Make a name of a metric, parameter or tag that MLflow accepts.

    Letters, digits and `_ - . space : /` stay, anything else becomes `_`; empty path parts and
    those of dots alone are replaced, since a name must be a normal relative path.
    """
    parts = [
        "_" * max(1, len(part)) if not part.strip(".") else part
        for part in _BAD.sub("_", text).split("/")
    ]
    return "/".join(parts)[:MAX_NAME].rstrip("/")


def short(text: str, *, limit: int) -> str:
    """Cut text to `limit` characters, an ellipsis included."""
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT


def flat_params(values: Mapping[str, Any]) -> dict[str, str]:
    """Turn nested settings into `a.b.c` -> text; an empty mapping is left out, null is `null`."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            inner = flat_params(value)
            flat |= {f"{key}.{name}": text for name, text in inner.items()}
        elif value is None or isinstance(value, bool):
            flat[key] = {None: "null", True: "true", False: "false"}[value]
        else:
            flat[key] = str(value)
    return flat
