"""What the tables of a settings file are made of: a table as a model, and the kinds of values that keys have."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from rag_index.database.urls import database_url

__all__ = [
    "Auto",
    "DaskAddress",
    "DatabaseUrl",
    "HttpUrl",
    "Number",
    "OptionalTable",
    "PositiveInt",
    "Section",
    "Share",
    "Table",
    "Whole",
]


class Section(BaseModel):
    """A table of the settings file: unknown keys are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _database(value: SecretStr) -> SecretStr:
    database_url(value.get_secret_value(), Path())
    return value


def _http(value: str) -> str:
    if re.match(r"[^:/]+://[^/]*@", value):
        raise ValueError("must not hold a user and password, which messages would show; give the address alone")
    if not re.match(r"https?://[^/\s]+", value):
        raise ValueError("is not an address; write it as http://host:port")
    return value.rstrip("/")


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("should be a number")  # pydantic would take true as 1
    return value


def _scheduler(value: str) -> str:
    if not re.fullmatch(r"(tcp|tls)://[^/\s]+:\d+", value):
        raise ValueError("is no address of a Dask scheduler; write it as tcp://host:8786 or tls://host:8786")
    return value


def _optional_table(value: Any) -> Any:
    return None if value is None else _table(value)


def _table(value: Any) -> Any:
    """A table, which the environment gives as JSON."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = json.loads(value)
    if not isinstance(value, dict):
        raise ValueError('should be a table such as {column = "value"}, in the environment {"column": "value"}')
    return value


DatabaseUrl = Annotated[SecretStr, AfterValidator(_database)]
HttpUrl = Annotated[str, AfterValidator(_http)]
DaskAddress = Annotated[str, AfterValidator(_scheduler)]
Auto = Literal["auto"]
Whole = Annotated[int, BeforeValidator(_no_truth_value)]
PositiveInt = Annotated[int, BeforeValidator(_no_truth_value), Field(gt=0)]
Number = Annotated[float, BeforeValidator(_no_truth_value), Field(allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0, le=1)]
Table = BeforeValidator(_table)
"""On an annotation of a table within a table."""
OptionalTable = BeforeValidator(_optional_table)
"""The same, where the table need not be there."""
