"""Effective settings: each value, its origin, and how many workers follow from them, with the
reason."""

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
    """One setting. `value` is redacted; `why` says how many workers a run has, and is empty for
    others."""

    key: str
    value: Any
    source: str
    """The settings file's name, an environment variable's, or "default"."""
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {name: value for name, value in asdict(self).items() if name != "why" or value}


def effective_settings(settings: Settings) -> list[EffectiveValue]:
    """Return every setting. This connects to nothing."""
    places = origins(settings.path)
    values = [*_table_values(settings, "", settings, (), places)]
    for number, index in enumerate(settings.indexes):
        values += _table_values(
            settings, f"indexes.{index.name}.", index, ("indexes", number), places
        )
    why = _why_workers(settings)
    return [replace(one, why=why) if one.key == "parallel.workers" else one for one in values]


def _table_values(
    settings: Settings, prefix: str, table: BaseModel, place: Place, places: Mapping[Place, str]
) -> Iterator[EffectiveValue]:
    model = type(table)
    names = {field.alias or name: name for name, field in model.model_fields.items()}
    for key in keys_of(model):
        value, here = getattr(table, names[key]), (*place, key)
        if key in tables_of(model) and value is not None:
            yield from _table_values(settings, f"{prefix}{key}.", value, here, places)
        elif key != "indexes":
            shown = _redact(settings, value)
            if (prefix, key) == ("embedder.", "options"):
                shown = {name: MASK if is_secret(name) else entry for name, entry in shown.items()}
            yield EffectiveValue(f"{prefix}{key}", shown, places.get(here, DEFAULT))


def _redact(settings: Settings, value: Any) -> Any:
    """Return a value for JSON: secrets masked, database URLs without password and options, paths as
    text."""
    if isinstance(value, SecretStr):
        try:
            url = database_url(value.get_secret_value(), settings.folder)
        except ValueError:
            return MASK
        return url.set(query={}).render_as_string(hide_password=True)
    if isinstance(value, BaseModel):
        value = value.model_dump(by_alias=True)
    if isinstance(value, Mapping):
        return {name: _redact(settings, entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_redact(settings, entry) for entry in value]
    if isinstance(value, str):
        return redacted(value) if "://" in value else value
    return value if isinstance(value, int | float | bool | None) else str(value)


def _why_workers(settings: Settings) -> str:
    parallel, needed = settings.parallel, estimate_worker_memory(settings.embedder)
    if parallel.serial:
        return "not used: serial is true"
    if parallel.address:
        return f"not used: the cluster at {parallel.address} decides"
    if parallel.workers != "auto":
        return ""
    machine, each = detect_machine(), memory_per_worker(parallel, needed) // MB
    processors = count_of(machine.processors, "processor")
    count = choose_worker_count(parallel, needed, machine)
    if not count:
        return f"0: memory has no room for a worker of {each} MB beside the flow"
    return (
        f"{count}: {processors} less one for the flow, but at least one, if memory has {each} MB"
        " for each"
    )


def settings_schema() -> dict[str, Any]:
    """Return the JSON schema (2020-12) of the settings file; the docstring of each key is its
    description."""
    schema = Settings.model_json_schema()
    del schema["properties"]["path"]
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    models: list[type[BaseModel]] = [Settings, *Section.__subclasses__()]
    for model in models:
        properties = (schema if model is Settings else schema["$defs"][model.__name__])[
            "properties"
        ]
        for key, meaning in descriptions(model).items():
            if key in properties:
                properties[key]["description"] = _LINK.sub(r"\1", meaning)
    return schema


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return what each key of a model means: the docstring below its attribute, as Markdown for a
    page in docs."""
    return {
        model.model_fields[name].alias or name: " ".join(meaning.split())
        for name, meaning in meanings(model).items()
    }
