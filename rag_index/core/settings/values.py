"""The parts of the settings models: a base class for tables, and the types of values."""

from __future__ import annotations

import re
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from rag_index.core.database.drivers import database_url

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


def keys_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a model by their keys in the file."""
    return {field.alias or name: field for name, field in model.model_fields.items() if not field.exclude}


def tables_of(model: type[BaseModel], collection: type | None = None) -> dict[str, type[BaseModel]]:
    """Return the models of those keys of a model that are tables with keys of their own.

    `list` stands for the keys that are lists of such tables, `dict` for those that give each of them a name.
    """
    return {
        key: kind
        for key, field in keys_of(model).items()
        if (origin if (origin := typing.get_origin(field.annotation)) in (list, dict) else None) is collection
        for kind in (field.annotation, *typing.get_args(field.annotation))
        if isinstance(kind, type) and issubclass(kind, BaseModel)
    }


def is_select(text: str) -> bool:
    """Return whether the value of a setting is a query, and no name."""
    return re.match(r"\s*(select|with)\s", text, re.IGNORECASE) is not None


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
    if "?" in value or "#" in value:
        raise ValueError("must not hold a query (?…), which messages would show; a key belongs into api_key")
    return value.rstrip("/")


def _reject_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("should be a number")  # pydantic accepts true as 1
    return value


def _check_scheduler_address(value: str) -> str:
    if not re.fullmatch(r"(tcp|tls)://[^/\s]+:\d+", value):
        raise ValueError("is not the address of a Dask scheduler; write it as tcp://host:8786 or tls://host:8786")
    return value


DatabaseUrl = Annotated[SecretStr, AfterValidator(_check_database_url)]
HttpUrl = Annotated[str, AfterValidator(_check_http_url)]
DaskAddress = Annotated[str, AfterValidator(_check_scheduler_address)]
Auto = Literal["auto"]
Int = Annotated[int, BeforeValidator(_reject_bool)]
PositiveInt = Annotated[int, BeforeValidator(_reject_bool), Field(gt=0)]
Number = Annotated[float, BeforeValidator(_reject_bool), Field(allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0, le=1)]
