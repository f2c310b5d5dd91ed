"""The parts of the settings models: a base class for tables, and the types of values."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from rag_index.database.urls import database_url


class Section(BaseModel):
    """A table of the settings file. Unknown keys are errors, and values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _check_database_url(value: SecretStr) -> SecretStr:
    database_url(value.get_secret_value(), Path())
    return value


def _check_http_url(value: str) -> str:
    if re.match(r"[^:/]+://[^/]*@", value):
        raise ValueError("must not hold a user and password, which messages would show; give only the address")
    if not re.match(r"https?://[^/\s]+", value):
        raise ValueError("is not an address; write it as http://host:port")
    return value.rstrip("/")


def _reject_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("should be a number")  # pydantic accepts true as 1
    return value


def _check_scheduler_address(value: str) -> str:
    if not re.fullmatch(r"(tcp|tls)://[^/\s]+:\d+", value):
        raise ValueError("is not the address of a Dask scheduler; write it as tcp://host:8786 or tls://host:8786")
    return value


def _parse_optional_table(value: Any) -> Any:
    return None if value is None else _parse_table(value)


def _parse_table(value: Any) -> Any:
    """Return the table, which the environment gives as JSON."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = json.loads(value)
    if not isinstance(value, dict | BaseModel):
        raise ValueError('should be a table such as {column = "value"}, or {"column": "value"} in the environment')
    return value


DatabaseUrl = Annotated[SecretStr, AfterValidator(_check_database_url)]
HttpUrl = Annotated[str, AfterValidator(_check_http_url)]
DaskAddress = Annotated[str, AfterValidator(_check_scheduler_address)]
Auto = Literal["auto"]
Whole = Annotated[int, BeforeValidator(_reject_bool)]
PositiveInt = Annotated[int, BeforeValidator(_reject_bool), Field(gt=0)]
Number = Annotated[float, BeforeValidator(_reject_bool), Field(allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0, le=1)]
Table = BeforeValidator(_parse_table)
"""The annotation of a table within a table."""
OptionalTable = BeforeValidator(_parse_optional_table)
"""The annotation of a table within a table that may be missing."""
