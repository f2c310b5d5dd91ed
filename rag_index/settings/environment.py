"""Settings from the environment.

A variable is RAG_INDEX_ and the place of its key in the file, with two underscores between the parts of the place: a
key of a section is RAG_INDEX_<SECTION>__<KEY>, one of an index RAG_INDEX_INDEXES__<NAME>__<KEY>, and one of a table
within these has the name of the table before the key.

Values are written as in the file, but without quotes. A list is written as JSON, as TOML or with commas. An empty value
is an empty text, or removes an optional key. A variable that looks like a setting but is not one is an error.
"""

from __future__ import annotations

import copy
import json
import tomllib
import typing
from contextlib import suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from rag_index.errors import SettingsError
from rag_index.settings.index import IndexSettings
from rag_index.settings.project import SECTIONS, TOP_KEYS, Settings
from rag_index.settings.values import keys_of, tables_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

ENV_PREFIX = "RAG_INDEX_"
CONFIG_VARIABLE = "RAG_INDEX_CONFIG"
INDEXES_VARIABLE = "RAG_INDEX_INDEXES"
MIN_SIMILARITY = 0.75
"""How similar a variable without two underscores has to be to one of ours to be a mistake. Others are ignored."""

Place = tuple[str | int, ...]


def overlay(environ: Mapping[str, str], content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[Place, str]]:
    """Return the content of the file, overridden by the environment, and the variable of each place that it changed.

    Raises:
        SettingsError: a variable is no setting, or not a list where it has to be one.
    """
    merged, origin = copy.deepcopy(dict(content)), dict[Place, str]()
    given = {name.upper(): name for name in environ if name.upper().startswith(ENV_PREFIX)}
    given.pop(CONFIG_VARIABLE, None)
    if variable := given.pop(INDEXES_VARIABLE, None):
        merged["indexes"] = _parse_list(variable, environ[variable])
        origin["indexes",] = variable
    known: dict[str, list[tuple[Place, FieldInfo]]] = {}
    for place, name, field in _places(merged.get("indexes")):
        known.setdefault(f"{ENV_PREFIX}{name}".upper().replace("-", "_"), []).append((place, field))
    for upper, variable in sorted(given.items(), key=lambda one: one[0].count("__")):  # a table before its keys
        if upper not in known:
            _refuse(variable, known)
            continue
        (place, field), *others = known[upper]
        if others:
            raise SettingsError(f"{variable} means two indexes; set it in the file")
        _put(merged, place, _parse(variable, place, field, environ[variable]))
        origin[place] = variable
    return merged, origin


def _places(indexes: Any) -> Iterator[tuple[Place, str, FieldInfo]]:
    """Yield the place of each key that has a variable, what the variable is called, and the key's field."""
    models: list[tuple[Place, str, type[BaseModel]]] = [((name,), f"{name}__", SECTIONS[name]) for name in SECTIONS]
    for number, table in enumerate(indexes if isinstance(indexes, list) else ()):
        if isinstance(table, dict):
            models.append((("indexes", number), f"indexes__{table.get('name')}__", IndexSettings))
    for key in TOP_KEYS:
        yield (key,), key, Settings.model_fields[key]
    for place, name, model in models:
        tables = tables_of(model)
        for key, field in keys_of(model).items():
            yield (*place, key), f"{name}{key}", field
            for within, inner in keys_of(tables[key]).items() if key in tables else ():
                yield (*place, key, within), f"{name}{key}__{within}", inner


def _refuse(variable: str, known: Iterable[str]) -> None:
    """Raise SettingsError if an unknown variable was meant as a setting."""
    names = {CONFIG_VARIABLE.removeprefix(ENV_PREFIX): CONFIG_VARIABLE}
    for name in known:
        short = name.removeprefix(ENV_PREFIX)
        names |= {short.rpartition("__")[2]: name, short.replace("__", "_"): name}
    near = get_close_matches(
        variable.upper().removeprefix(ENV_PREFIX).replace("__", "_"), names, n=1, cutoff=MIN_SIMILARITY
    )
    if near or "__" in variable:
        hint = f"did you mean {names[near[0]]}?" if near else "`rag-index config` prints all keys"
        raise SettingsError(f"{variable} is not a setting, {hint}")


def _parse(variable: str, place: Place, field: FieldInfo, value: str) -> Any:
    is_list = typing.get_origin(field.annotation) is list
    kinds = [field.annotation] if is_list else typing.get_args(field.annotation)
    lists = any(typing.get_origin(kind) is list for kind in kinds)
    if not value and type(None) in kinds and not str(place[-1]).endswith("_prefix"):
        return None
    if lists and value.lstrip().startswith("["):
        return _parse_list(variable, value)
    if lists and str not in kinds:
        return [part.strip() for part in value.split(",") if part.strip()]
    if value.lstrip().startswith("{"):
        with suppress(ValueError):
            return json.loads(value)
    return value


def _parse_list(variable: str, value: str) -> list[Any]:
    for parse in (json.loads, lambda text: tomllib.loads(f"value = {text}")["value"]):
        with suppress(ValueError):
            parsed = parse(value)
            if isinstance(parsed, list):
                return parsed
    raise SettingsError(f'{variable} is not a list; write it as ["one", "two"]')


def _put(content: Any, place: Place, value: Any) -> None:
    """Put a value in its place; tables that are missing on the way there are created."""
    *outer, key = place
    with suppress(TypeError):  # what the file has there is no table, which is said later
        for name in outer:
            content = content.setdefault(name, {}) if isinstance(content, dict) else content[name]
        content[key] = value
