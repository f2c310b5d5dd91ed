"""Settings from the environment.

A key at the top of the file is RAG_INDEX_<KEY>, a key of a section is RAG_INDEX_<SECTION>__<KEY>, and one of a table
within it RAG_INDEX_<SECTION>__<TABLE>__<KEY>. A key of one index is RAG_INDEX_INDEXES__<NAME>__<KEY>, and a key of a
table within it is RAG_INDEX_INDEXES__<NAME>__<TABLE>__<KEY>.

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
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from rag_index.errors import SettingsError
from rag_index.settings.index import IndexSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic.fields import FieldInfo

RENAMED_KEYS = {
    "parallel": {
        "chunk_size": "shard_documents",
        "least_documents": "min_shard_documents",
        "most_documents": "max_shard_documents",
        "most_load": "max_load",
    },
}
"""The new name of each old key, by section."""
ENV_PREFIX = "RAG_INDEX_"
CONFIG_VARIABLE = "RAG_INDEX_CONFIG"
INDEXES_VARIABLE = "RAG_INDEX_INDEXES"
TOP_KEYS = {f"{ENV_PREFIX}{key.upper()}": key for key in ("project", "data")}
"""The variables of the keys at the top of the file, which belong to no section."""
MIN_SIMILARITY = 0.75
"""A variable without a section that is this similar to one of ours counts as a typing mistake. Others are ignored."""

Place = tuple[str | int, ...]


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


def _places(section: str, model: type[BaseModel]) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Yield the place and the field of each key of a section, and of the tables within it."""
    for key, field in keys_of(model).items():
        yield (section, key), field
    for table, inner in tables_of(model).items():
        for key, field in keys_of(inner).items():
            yield (section, table, key), field


class _Value(NamedTuple):
    """The value of a variable. A place in an index begins with "indexes" and the name of the index as it is written."""

    variable: str
    place: tuple[str, ...]
    value: Any


class Overlay:
    """The values of the environment, to be merged into those of the file."""

    def __init__(self, environ: Mapping[str, str], sections: Mapping[str, type[BaseModel]]) -> None:
        self.origin: dict[Place, str] = {}
        """The variable of each place that was merged."""
        self._sections = sections
        self._known = {
            f"{ENV_PREFIX}{'__'.join(place)}".upper(): (place, field)
            for section, model in sections.items()
            for place, field in _places(section, model)
        }
        self._values: list[_Value] = []
        for name, value in environ.items():
            if name.upper().startswith(ENV_PREFIX) and name.upper() != CONFIG_VARIABLE:
                self._add(name, name.upper(), value)

    def merge(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content of the file, overridden by the values of the environment.

        Raises:
            SettingsError: a variable is for an index that does not exist.
        """
        merged = copy.deepcopy(dict(content))
        for variable, place, value in sorted(self._values, key=lambda one: len(one.place)):  # a table before its keys
            section, *rest = place
            if section == "indexes" and rest:
                number = _index_number(variable, rest[0], merged.get("indexes"))
                _put(merged["indexes"][number], rest[1:], value)
                self.origin["indexes", number, *rest[1:]] = variable
                continue
            if not rest or isinstance(merged.get(section, {}), dict):  # else the section of the file is a mistake
                _put(merged, place, value)
            self.origin[place] = variable
        return merged

    def _add(self, variable: str, upper: str, text: str) -> None:
        place: tuple[str, ...]
        value: Any = text
        if upper in self._known:
            place, field = self._known[upper]
            value = _parse_value(variable, place[-1], field, text)
        elif upper in TOP_KEYS:
            place = (TOP_KEYS[upper],)
        elif upper == INDEXES_VARIABLE:
            place, value = ("indexes",), _parse_list(variable, text)
        elif upper.startswith(f"{INDEXES_VARIABLE}__") and upper.count("__") > 1:
            place, field = _find_key_of_index(variable, upper.removeprefix(f"{INDEXES_VARIABLE}__"))
            value = _parse_value(variable, place[-1], field, text)
        else:
            self._refuse(variable, upper)
            return
        self._values.append(_Value(variable, place, value))

    def _refuse(self, variable: str, upper: str) -> None:
        """Raise SettingsError if an unknown variable was meant as a setting."""
        section, separator, key = upper.removeprefix(ENV_PREFIX).partition("__")
        if renamed := new_name(section.lower(), key.lower()):
            raise SettingsError(f"{variable} is now {ENV_PREFIX}{section}__{renamed.upper()}")
        names = [*self._known, *TOP_KEYS, CONFIG_VARIABLE]
        same_key = [name for name in self._known if upper == ENV_PREFIX + name.rpartition("__")[2]]
        short = {name.removeprefix(ENV_PREFIX): name for name in names}
        similar = get_close_matches(upper.removeprefix(ENV_PREFIX), short, n=1, cutoff=MIN_SIMILARITY)
        if near := same_key or [short[name] for name in similar]:
            raise SettingsError(f"{variable} is not a setting, did you mean {near[0]}?")
        if not separator:
            return
        section, key = section.lower(), key.lower()
        if section in self._sections:
            keys = ", ".join(keys_of(self._sections[section]))
            raise SettingsError(f"{variable} is not a setting: [{section}] has no key {key!r}; its keys are {keys}")
        sections = ", ".join(self._sections)
        raise SettingsError(f"{variable} is not a setting: there is no section {section!r}, only {sections}")


def _parse_value(variable: str, key: str, field: FieldInfo, value: str) -> Any:
    is_list = typing.get_origin(field.annotation) is list
    kinds = [field.annotation] if is_list else typing.get_args(field.annotation)
    only_lists = any(typing.get_origin(kind) is list for kind in kinds) and str not in kinds
    if not value and type(None) in kinds and not key.endswith("_prefix"):
        return None
    if any(typing.get_origin(kind) is list for kind in kinds) and value.lstrip().startswith("["):
        return _parse_list(variable, value)
    return [part.strip() for part in value.split(",") if part.strip()] if only_lists else value


def _find_key_of_index(variable: str, rest: str) -> tuple[tuple[str, ...], FieldInfo]:
    """Return the place and the field of a key of an index, or of a table within it."""
    model: type[BaseModel] = IndexSettings
    tables: tuple[str, ...] = ()
    name, _, key = rest.rpartition("__")
    for inner_table, inner_model in tables_of(IndexSettings).items():
        if name.endswith(suffix := f"__{inner_table.upper()}"):
            model, tables, name = inner_model, (inner_table,), name.removesuffix(suffix)
    fields, key = keys_of(model), key.lower()
    if key in fields:
        return ("indexes", name, *tables, key), fields[key]
    near = get_close_matches(key, fields, n=1, cutoff=0.5)
    suggestion = "__".join([INDEXES_VARIABLE, name, *tables, *near]).upper()
    hint = f", did you mean {suggestion}?" if near else f"; the keys are {', '.join(fields)}"
    table = f"[indexes.{tables[0]}]" if tables else "an index"
    raise SettingsError(f"{variable}: {table} has no key {key!r}{hint}")


def _put(table: dict[str, Any], place: Sequence[str], value: Any) -> None:
    """Put a value in its place; tables that are missing on the way there are created."""
    *outer, key = place
    for name in outer:
        inner = table.get(name)
        if isinstance(inner, str):  # a whole table from the environment
            with suppress(ValueError):
                inner = json.loads(inner)
        table[name] = table = inner if isinstance(inner, dict) else {}
    table[key] = value


def _parse_list(variable: str, value: str) -> list[Any]:
    for parse in (json.loads, lambda text: tomllib.loads(f"value = {text}")["value"]):
        try:
            parsed = parse(value)
        except ValueError:
            continue
        if isinstance(parsed, list):
            return parsed
    raise SettingsError(f'{variable} is not a list; write it as ["one", "two"]')


def _index_number(variable: str, name: str, indexes: Any) -> int:
    """Return the number of the index that a variable means; `name` is in capitals, with _ for -."""
    tables = indexes if isinstance(indexes, list) else []
    names = [str(table.get("name", "")) if isinstance(table, dict) else "" for table in tables]
    matches = [number for number, known in enumerate(names) if known.upper().replace("-", "_") == name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise SettingsError(f"{variable} means both {' and '.join(names[n] for n in matches)}; set it in the file")
    near = get_close_matches(name.lower(), [known.lower() for known in names], n=1, cutoff=0.5)
    hint = f", did you mean {near[0]!r}?" if near else f"; the indexes are {', '.join(filter(None, names)) or 'none'}"
    raise SettingsError(f"{variable}: there is no index {name.lower()!r}{hint}")


def new_name(section: str, key: str) -> str | None:
    """Return the new name of a renamed key of a section, or None."""
    return RENAMED_KEYS.get(section, {}).get(key)
