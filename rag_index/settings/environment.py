"""Settings from the environment: RAG_INDEX_<SECTION>__<KEY>, for one index RAG_INDEX_INDEXES__<NAME>__<KEY>, for a
table of it RAG_INDEX_INDEXES__<NAME>__<TABLE>__<KEY>.

Values are as in the file, without quotes; a list is written as JSON or TOML, or with commas. An empty value is an
empty text, or takes away a key that need not be there. A variable that looks like one of ours and is none is an error.
"""

from __future__ import annotations

import json
import tomllib
import typing
from contextlib import suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from rag_index.errors import SettingsError
from rag_index.settings.sections import IndexSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

__all__ = ["CONFIG_VARIABLE", "ENV_PREFIX", "Overlay", "keys_of", "tables_of"]

ENV_PREFIX = "RAG_INDEX_"
CONFIG_VARIABLE = "RAG_INDEX_CONFIG"
NEAR = 0.75
"""So alike a variable without a section is taken for a mistake, and not for another program's."""

Place = tuple[str | int, ...]


def keys_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A model's keys as the file has them."""
    return {field.alias or name: field for name, field in model.model_fields.items() if not field.exclude}


def tables_of(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Those of a model's keys that are tables with keys of their own, with their models."""
    return {
        key: kind
        for key, field in keys_of(model).items()
        for kind in (field.annotation, *typing.get_args(field.annotation))
        if isinstance(kind, type) and issubclass(kind, BaseModel)
    }


class _OfIndex(NamedTuple):
    """A variable for one index: `place` is a key of it, or a table's name and a key there."""

    variable: str
    name: str
    place: tuple[str, ...]
    value: Any


class Overlay:
    """What the environment says, as a tree like the file's; `origin` says which variable a place's value is from."""

    def __init__(self, environ: Mapping[str, str], sections: Mapping[str, type[BaseModel]]) -> None:
        self.values: dict[str, Any] = {}
        self.origin: dict[Place, str] = {}
        self._sections = sections
        self._known = {
            f"{ENV_PREFIX}{section}__{key}".upper(): (section, key, field)
            for section, model in sections.items()
            for key, field in keys_of(model).items()
        }
        self._of_one_index: list[_OfIndex] = []
        for name, value in environ.items():
            if name.upper().startswith(ENV_PREFIX) and name.upper() != CONFIG_VARIABLE:
                self._take(name, name.upper(), value)

    def over(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """The file's content with the environment's values in the places of its own.

        Raises:
            SettingsError: a variable is for an index that is not there.
        """
        merged = {**content, **{key: value for key, value in self.values.items() if not isinstance(value, dict)}}
        for section, keys in self.values.items():
            below = content.get(section, {})
            if isinstance(keys, dict) and isinstance(below, dict):
                merged[section] = {**below, **keys}
        indexes = merged.get("indexes")
        if self._of_one_index and isinstance(indexes, list):
            merged["indexes"] = [dict(index) if isinstance(index, dict) else index for index in indexes]
        for one in sorted(self._of_one_index, key=lambda one: len(one.place)):  # a table, then what is in it
            number = _numbered(one.variable, one.name, merged.get("indexes"))
            _put(merged["indexes"][number], one.place, one.value)
            self.origin["indexes", number, *one.place] = one.variable
        return merged

    def _take(self, variable: str, upper: str, value: str) -> None:
        if upper in self._known:
            section, key, field = self._known[upper]
            self.values.setdefault(section, {})[key] = _value(variable, key, field, value)
            self.origin[section, key] = variable
        elif upper == f"{ENV_PREFIX}PROJECT":
            self.values["project"] = value
            self.origin[("project",)] = variable
        elif upper == f"{ENV_PREFIX}INDEXES":
            self.values["indexes"] = _list(variable, value)
            self.origin[("indexes",)] = variable
        elif upper.startswith(f"{ENV_PREFIX}INDEXES__") and upper.count("__") > 1:
            self._take_of_index(variable, upper.removeprefix(f"{ENV_PREFIX}INDEXES__"), value)
        else:
            self._refuse(variable, upper)

    def _take_of_index(self, variable: str, rest: str, value: str) -> None:
        model: type[BaseModel] = IndexSettings
        tables: tuple[str, ...] = ()
        name, _, key = rest.rpartition("__")
        for table, inner in tables_of(IndexSettings).items():
            if name.endswith(f"__{table.upper()}"):
                model, tables, name = inner, (table,), name.removesuffix(f"__{table.upper()}")
        fields, key = keys_of(model), key.lower()
        if key not in fields:
            near = get_close_matches(key, fields, n=1, cutoff=0.5)
            whole = "__".join([name, *tables, *near]).upper()
            hint = f", did you mean {ENV_PREFIX}INDEXES__{whole}?" if near else f", but {', '.join(fields)}"
            what = f"[indexes.{tables[0]}]" if tables else "an index"
            raise SettingsError(f"{variable}: {what} has no key {key!r}{hint}")
        self._of_one_index.append(_OfIndex(variable, name, (*tables, key), _value(variable, key, fields[key], value)))

    def _refuse(self, variable: str, upper: str) -> None:
        """A variable that is none of ours: an error where it was meant to be one."""
        names = [*self._known, f"{ENV_PREFIX}PROJECT", CONFIG_VARIABLE]
        by_end = [name for name in self._known if upper == ENV_PREFIX + name.rpartition("__")[2]]
        short = {name.removeprefix(ENV_PREFIX): name for name in names}
        near = by_end or [short[m] for m in get_close_matches(upper.removeprefix(ENV_PREFIX), short, n=1, cutoff=NEAR)]
        if near:
            raise SettingsError(f"{variable} is no setting, did you mean {near[0]}?")
        section, found, key = upper.removeprefix(ENV_PREFIX).partition("__")
        if not found:
            return
        if section.lower() in self._sections:
            keys = ", ".join(keys_of(self._sections[section.lower()]))
            raise SettingsError(f"{variable} is no setting: [{section.lower()}] has no key {key.lower()!r}, but {keys}")
        sections = ", ".join(self._sections)
        raise SettingsError(f"{variable} is no setting: there is no section {section.lower()!r}, but {sections}")


def _value(variable: str, key: str, field: FieldInfo, value: str) -> Any:
    is_list = typing.get_origin(field.annotation) is list
    kinds = [field.annotation] if is_list else typing.get_args(field.annotation)
    only_lists = any(typing.get_origin(kind) is list for kind in kinds) and str not in kinds
    if not value and type(None) in kinds and not key.endswith("_prefix"):
        return None
    if any(typing.get_origin(kind) is list for kind in kinds) and value.lstrip().startswith("["):
        return _list(variable, value)
    return [part.strip() for part in value.split(",") if part.strip()] if only_lists else value


def _put(table: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    """Put a value in its place, within a table that is copied, or made where there is none."""
    *outer, key = place
    for name in outer:
        inner = table.get(name)
        if isinstance(inner, str):  # a whole table, as the environment gives it
            with suppress(ValueError):
                inner = json.loads(inner)
        table[name] = table = dict(inner) if isinstance(inner, dict) else {}
    table[key] = value


def _list(variable: str, value: str) -> list[Any]:
    for read in (json.loads, lambda text: tomllib.loads(f"value = {text}")["value"]):
        try:
            found = read(value)
        except ValueError:
            continue
        if isinstance(found, list):
            return found
    raise SettingsError(f'{variable} is not a list; write it as ["one", "two"]')


def _numbered(variable: str, name: str, indexes: Any) -> int:
    """Which index a variable means: its name in capitals, with _ for -."""
    tables = indexes if isinstance(indexes, list) else []
    names = [str(table.get("name", "")) if isinstance(table, dict) else "" for table in tables]
    found = [number for number, known in enumerate(names) if known.upper().replace("-", "_") == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise SettingsError(f"{variable} means both {' and '.join(names[n] for n in found)}; set it in the file")
    near = get_close_matches(name.lower(), [known.lower() for known in names], n=1, cutoff=0.5)
    hint = f", did you mean {near[0]!r}?" if near else f"; there are: {', '.join(filter(None, names)) or 'none'}"
    raise SettingsError(f"{variable}: there is no index {name.lower()!r}{hint}")
