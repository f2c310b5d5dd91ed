"""Effective settings: each value with its origin, and the reason for the number of workers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, SecretStr

from rag_index.core.database import database_url
from rag_index.core.machine.resources import (
    MB,
    choose_worker_count,
    detect_machine,
    estimate_worker_memory,
    memory_per_worker,
)
from rag_index.core.reports.outcome import count_of
from rag_index.core.settings import Settings, origins
from rag_index.core.settings.parts import Section, keys_of, meanings, tables_of
from rag_index.redaction import MASK, is_secret, redacted

if TYPE_CHECKING:
    from rag_index.core.settings.project import Place

_LINK = re.compile(r"\[([^\[\]]*)\]\([^()]*\)")
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class EffectiveValue:
    """One setting."""

    key: str
    value: Any
    """The redacted value."""
    source: str
    """The name of the settings file or of an environment variable, or "default"."""
    why: str = ""
    """The number of workers and its reason, for `parallel.workers` alone."""

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints, without an empty `why`."""
        members = asdict(self)
        if not self.why:
            del members["why"]
        return members


def effective_settings(settings: Settings) -> list[EffectiveValue]:
    """Return every setting, without any connection."""
    places = origins(settings.path)
    found = list(_table_values(settings, "", settings, (), places))
    for number, index in enumerate(settings.indexes):
        prefix = f"indexes.{index.name}."
        found += _table_values(settings, prefix, index, ("indexes", number), places)
    why = _why_workers(settings)
    values = list[EffectiveValue]()
    for value in found:
        is_workers = value.key == "parallel.workers"
        values.append(replace(value, why=why) if is_workers else value)
    return values


def _table_values(
    settings: Settings, prefix: str, table: BaseModel, place: Place, places: Mapping[Place, str]
) -> Iterator[EffectiveValue]:
    """Yield the values of a table and of the tables in it.

    Args:
        prefix: The table's name with a dot, "" for the first level.
        place: The table's place in the settings file.
        places: The origin of each value that is not a default.
    """
    model = type(table)
    names = {field.alias or name: name for name, field in model.model_fields.items()}
    tables = tables_of(model)
    for key in keys_of(model):
        # Each index has its own table, which the caller yields.
        if key == "indexes":
            continue
        value = getattr(table, names[key])
        key_place = (*place, key)
        if key in tables and value is not None:
            yield from _table_values(settings, f"{prefix}{key}.", value, key_place, places)
            continue
        shown = _redact(settings, value)
        # Options for the embedder have free names, such as "api_key".
        if (prefix, key) == ("embedder.", "options"):
            shown = {name: MASK if is_secret(name) else option for name, option in shown.items()}
        yield EffectiveValue(f"{prefix}{key}", shown, places.get(key_place, DEFAULT))


def _redact(settings: Settings, value: Any) -> Any:
    """Return a value for JSON without secrets: a database URL has no password and no options, and a
    path is text."""
    if isinstance(value, SecretStr):
        try:
            url = database_url(value.get_secret_value(), settings.folder)
        # Another secret, or a malformed URL.
        except ValueError:
            return MASK
        return url.set(query={}).render_as_string(hide_password=True)
    if isinstance(value, BaseModel):
        value = value.model_dump(by_alias=True)
    if isinstance(value, Mapping):
        return {name: _redact(settings, entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_redact(settings, entry) for entry in value]
    # The address of a server may have a user and a password.
    if isinstance(value, str):
        return redacted(value) if "://" in value else value
    return value if isinstance(value, int | float | bool | None) else str(value)


def _why_workers(settings: Settings) -> str:
    """Return the number of workers with its reason; "" if the settings have the number."""
    parallel = settings.parallel
    needed = estimate_worker_memory(settings.embedder)
    if parallel.serial:
        return "not used: serial is true"
    if parallel.address:
        return f"not used: the cluster at {parallel.address} decides"
    if parallel.workers != "auto":
        return ""
    machine = detect_machine()
    each = memory_per_worker(parallel, needed) // MB
    count = choose_worker_count(parallel, needed, machine)
    if not count:
        return f"0: memory has no room for a worker of {each} MB beside the flow"
    processors = count_of(machine.processors, "processor")
    return (
        f"{count}: {processors} less one for the flow, but at least one, if memory has {each} MB"
        " for each"
    )


def settings_schema() -> dict[str, Any]:
    """Return the JSON schema (2020-12) of the settings file. The docstring of each key is its
    description."""
    schema = Settings.model_json_schema()
    del schema["properties"]["path"]
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    models: list[type[BaseModel]] = [Settings, *Section.__subclasses__()]
    for model in models:
        table = schema if model is Settings else schema["$defs"][model.__name__]
        properties = table["properties"]
        for key, description in descriptions(model).items():
            if key in properties:
                # Links are for the page in docs.
                properties[key]["description"] = _LINK.sub(r"\1", description)
    return schema


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the description of each key of a model, as Markdown for a page in docs: the docstring
    below its attribute."""
    found = dict[str, str]()
    for name, meaning in meanings(model).items():
        key = model.model_fields[name].alias or name
        found[key] = " ".join(meaning.split())
    return found
