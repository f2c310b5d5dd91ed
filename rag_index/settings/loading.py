"""Loading of the settings from a TOML file and RAG_INDEX_* variables. Only this module reads the environment."""

from __future__ import annotations

import os
import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, SecretStr, ValidationError

from rag_index.database.files import other_writer
from rag_index.errors import SettingsError
from rag_index.settings.environment import (
    CONFIG_VARIABLE,
    TOP_KEYS,
    Overlay,
    keys_of,
    new_name,
    tables_of,
)
from rag_index.settings.index import IndexSettings
from rag_index.settings.project import FILE_NAME, SECTIONS, Settings, project_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rag_index.settings.environment import Place

EXPECTED = {
    "workers": 'should be a whole number above 0 or "auto"',
    "shard_documents": 'should be a whole number above 0 or "auto"',
    "key": "should be the name of a column, or a list of names",
    "text": "should be the name of a column, a list of names, or a template",
    "depends_on": 'should be a list of tables: [{table = "customer", key = "id", column = "customer_id"}]',
    "on": 'should be the name of a column, or a table such as {user_id = "author_id"}',
    "order_by": "should be the name of a column, or a list of names",
    "parts": "should be a list of tables; begin each with [[indexes.parts]] on a line of its own",
    "metric": "should be a measure and a number of hits, such as recall@10, MRR@10 or nDCG@10",
}
"""Messages for keys whose values may have several types: pydantic reports an error for each type."""

TYPE_MESSAGES = {
    "string_pattern_mismatch": "should contain only letters, digits, - and single _ between them",
    "string_type": "should be a text in quotes",
    "model_type": "should be a table of keys",
    "list_type": 'should be a list, for example ["one", "two"]',
    "too_short": "should have at least one entry",
    "int_type": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_parsing": "should be a number",
    "float_type": "should be a number",
    "finite_number": "should be a number",
    "bool_parsing": "should be true or false",
    "bool_type": "should be true or false",
}
"""Messages by type of error, in place of those of pydantic that are meant for programmers."""

MISSING_REMEDIES = {
    "source": 'its url is the database to read, for example url = "sqlite:///file.db"',
    "source.url": "it is the database to read, for example sqlite:///file.db",
    "indexes": "each names a table, its key and its text; `rag-index init --source URL` suggests them",
    "indexes.name": "give each index its own name",
    "indexes.key": "name the column or columns that identify a document",
    "indexes.text": "name the columns that the text consists of",
    "indexes.root": "name the folder with the files",
    "indexes.depends_on": "an entry has table, key (a column of that table) and column (of the index)",
    "indexes.parts": "a part has table, on (its columns that have the document's key) and text",
    "indexes.gate.queries": 'name a golden file, which has queries and what each should find, such as "golden.jsonl"',
    "indexes.context.model": "name a generative model of the Ollama servers, for example llama3.2",
}
ORDER = ("extra_forbidden", "missing")
FILES = {
    "parallel": ("tls_ca_file", "tls_cert", "tls_key"),
    "run": ("metrics_file",),
    "serve": ("tokens_file",),
}
"""Keys by section whose values are files that may be missing; they are relative to the settings file."""


class _Location(NamedTuple):
    """The location of an error: its place in the file, the model there, and its names for a person."""

    place: Place
    model: type[BaseModel]
    table: str
    key: str


def first_problem(exc: ValidationError, values: Mapping[str, Any], origin: Mapping[Place, str], file: str) -> str:
    """Return the first error in one line. Unknown keys come first, since they often explain what is missing."""
    errors = exc.errors(include_url=False)
    error = min(errors, key=lambda e: ORDER.index(e["type"]) if e["type"] in ORDER else len(ORDER))
    spot = _locate(error["loc"], values)
    variable = origin.get(spot.place)
    message = " ".join(_message(error, spot, variable).split())
    return message if variable else f"{file}: {message}"


def _message(error: Mapping[str, Any], spot: _Location, variable: str | None) -> str:
    kind, message = error["type"], error["msg"]
    separator = ": " if spot.table.startswith("index ") else " "
    where = variable or separator.join(filter(None, [spot.table, spot.key]))
    if kind == "extra_forbidden":
        return _unknown_key(spot)
    if kind == "missing":
        name = ".".join(str(part) for part in spot.place if isinstance(part, str))
        remedy = MISSING_REMEDIES.get(name, "it must be given")
        return f"{where} is missing: {remedy}"
    if kind in ("model_type", "dict_type", "list_type") and len(spot.place) == 1:
        section = spot.place[0]
        form = f"[[{section}]]" if section == "indexes" else f"[{section}]"
        return f"{section} should be a table of keys; begin it with {form} on a line of its own"
    if kind == "value_error":
        message = message.removeprefix("Value error, ")
        if isinstance(error.get("input"), dict | BaseModel):
            return f"{where}: {message}" if where else message
        if message.startswith("should "):
            message = EXPECTED.get(spot.key, message)
    else:
        expected = EXPECTED.get(spot.key) or TYPE_MESSAGES.get(kind)
        message = expected or re.sub(r"^\w+ should", "should", message)
    return f"{where} {message}{_describe_value(error, spot)}"


def _unknown_key(spot: _Location) -> str:
    if renamed := new_name(str(spot.place[0]), spot.key):
        return f"{spot.table} {spot.key} is now {renamed}"
    keys = list(keys_of(spot.model))
    near = get_close_matches(spot.key, keys, n=1, cutoff=0.5)
    hint = f", did you mean {near[0]!r}?" if near else f"; the keys are {', '.join(keys)}"
    return f"unknown key {spot.key!r}{f' in {spot.table}' if spot.table else ''}{hint}"


def _describe_value(error: Mapping[str, Any], spot: _Location) -> str:
    """Return the value for the end of a message, unless the message has it already or it may be a secret."""
    value = f"{error.get('input')!r:.80}"
    secret = spot.key in ("url", "api_key") or ("://" in value and "@" in value)
    if secret or isinstance(error.get("input"), dict | BaseModel):
        return ""
    return f", not {value}" if error["type"] != "value_error" or " should " in error["msg"] else f" (it is {value})"


def _locate(location: tuple[int | str, ...], values: Mapping[str, Any]) -> _Location:
    """Find the place in the file; the rest of pydantic's location says which of several types it tried."""
    head = location[0] if location else ""
    if len(location) < 2:
        is_section = head in keys_of(Settings) and head not in TOP_KEYS.values()
        table = f"[{'[indexes]' if head == 'indexes' else head}]" if is_section else ""
        return _Location(location, Settings, table, "" if is_section else str(head))
    is_index = head == "indexes"
    model = IndexSettings if is_index else SECTIONS.get(str(head), Settings)
    label = _index_name(values, location[1]) if is_index else f"[{head}]"
    depth = 2 if is_index else 1
    rest = location[depth:]
    if not rest:
        return _Location(location, model, label, "")
    key = str(rest[0])
    if (named := tables_of(model, dict).get(key)) and len(rest) > 1:
        return _locate_join(location, depth + 1, named, f"{label}, [{head}.{key}.{rest[1]}]")
    if entry := tables_of(model, list).get(key):
        place, number = location[: depth + 1], f"{key}, entry {int(rest[1]) + 1}" if len(rest) > 1 else key
        if len(rest) > 3 and (named := tables_of(entry, dict).get(str(rest[2]))):
            return _locate_join(location, depth + 3, named, f"{label}, {number}, join {rest[3]}")
        if len(rest) > 2:
            return _Location(place, entry, f"{label}, {number}", str(rest[2]))
        return _Location(place, entry, label, number)
    number = f"[{rest[-1]}]" if len(rest) > 1 and isinstance(rest[-1], int) else ""
    if len(rest) > 1 and (inner := tables_of(model).get(key)) is not None:
        table = f"[{head}.{key}]"
        return _Location(location[: depth + 2], inner, f"{label}, {table}" if is_index else table, f"{rest[1]}{number}")
    return _Location(location[: depth + 1], model, label, f"{key}{number}")


def _locate_join(location: tuple[int | str, ...], name: int, model: type[BaseModel], table: str) -> _Location:
    """Return the location of an error in a join; `name` is the number of its name in the location."""
    key = str(location[name + 1]) if len(location) > name + 1 else ""
    return _Location(location[: name + 2], model, table, key)


def _index_name(values: Mapping[str, Any], number: int | str) -> str:
    """Return the name of an index for a person, or its number from 1 if it has no name."""
    try:
        name = values["indexes"][number]["name"]
    except (KeyError, IndexError, TypeError):
        name = None
    return f"index {name}" if isinstance(name, str) and name else f"index number {int(number) + 1}"


def find_config(given: str | Path | None = None) -> Path:
    """Return the settings file: the given one, that of RAG_INDEX_CONFIG, or rag-index.toml here or in a folder above.

    Raises:
        SettingsError: there is no such file, or another user may write the one that was found.
    """
    named = given or os.environ.get(CONFIG_VARIABLE)
    if named:
        path = Path(named).expanduser().absolute()
        if not path.is_file():
            raise SettingsError(f"there is no settings file {named}; `rag-index init` writes one")
        return path
    current = Path.cwd()
    for folder in (current, *current.parents):
        if (folder / FILE_NAME).is_file():
            _check_writers(folder / FILE_NAME)
            return folder / FILE_NAME
    raise SettingsError(f"there is no {FILE_NAME} here or above; `rag-index init` writes one, --config names another")


def _check_writers(path: Path) -> None:
    """Check that nobody else decides what a file says that was found, and not named, or what is beside it.

    Settings say where keys are sent, and the ledger beside them says what is deleted.

    Raises:
        SettingsError: another user may write the file or its folder, or replace a folder above.
    """
    real = path.resolve()
    near = (path, path.parent, real)
    for one in dict.fromkeys((*near, *path.parents, *real.parents)):
        if writer := other_writer(one, sticky=one not in near):
            raise SettingsError(
                f"{path} was found, but not read, because {writer} may write {'it' if one == path else one}: "
                "if you mean these settings, name the file with --config or RAG_INDEX_CONFIG"
            )


def load_settings(given: str | Path | None = None, **overrides: dict[str, Any]) -> Settings:
    """Load the settings file. RAG_INDEX_* variables override it, and `overrides` (sections of keys) override both.

    Raises:
        SettingsError: the file is missing or not TOML, a key is unknown, or a value is invalid. The message is one
            line with the value and the remedy.
    """
    path = find_config(given)
    overlay = Overlay(os.environ, SECTIONS)
    values = overlay.merge(_read_file(path))
    for section, keys in overrides.items():
        values[section] = {**values.get(section, {}), **keys}
    try:
        settings = Settings(**values)
    except ValidationError as exc:
        raise SettingsError(first_problem(exc, values, overlay.origin, path.name)) from exc
    return _with_places(settings, path)


def _with_places(settings: Settings, path: Path) -> Settings:
    """Return the settings of the file `path` with absolute paths and with the name of the project."""
    folder = path.parent
    data = folder / settings.data.expanduser()
    store, embedder, reranker = settings.store, settings.embedder, settings.retrieve.reranker
    updates: dict[str, dict[str, Any]] = {
        section: {key: folder / file.expanduser() for key in keys if (file := getattr(getattr(settings, section), key))}
        for section, keys in FILES.items()
    }
    if (keys := settings.serve.jwt_keys) and "://" not in keys:
        updates["serve"]["jwt_keys"] = str(folder / Path(keys).expanduser())
    updates["store"] = {
        "path": folder / store.path.expanduser() if "path" in store.model_fields_set else data / "qdrant"
    }
    if "data" in settings.model_fields_set and "url" not in settings.ledger.model_fields_set:
        updates["ledger"] = {"url": SecretStr(f"sqlite:///{data / 'ledger.db'}")}
    updates["embedder"] = {}
    if embedder.kind == "sentence-transformers" and (folder / embedder.model).is_dir():
        updates["embedder"] = {"model": str(folder / embedder.model)}
    if reranker and (folder / reranker).is_dir():
        updates["retrieve"] = {"reranker": str(folder / reranker)}
    resolved = {section: getattr(settings, section).model_copy(update=keys) for section, keys in updates.items()}
    resolved["embedder"] = resolved["embedder"].with_tables(data / "tables")
    project = settings.project or project_name(folder.name)
    return settings.model_copy(update={"path": path, "data": data, "project": project, **resolved})


def origins(path: Path) -> dict[Place, str]:
    """Return where each value that is not a default comes from: the name of the file or of a variable.

    Places are as in the file: ("project",), ("parallel", "workers"), ("indexes", 0, "table"). Raises SettingsError like
    `load_settings`.
    """
    overlay = Overlay(os.environ, SECTIONS)
    content = _read_file(path)
    merged = overlay.merge(content)
    result: dict[Place, str] = {(key,): path.name for key in TOP_KEYS.values() if key in content}
    for section, model in SECTIONS.items():
        result |= _places_in(path.name, (section,), model, content.get(section, {}))
    origin = overlay.origin.get(("indexes",), path.name)
    for number, table in enumerate(merged.get("indexes", [])):
        result |= _places_in(origin, ("indexes", number), IndexSettings, table)
    return result | overlay.origin


def _places_in(origin: str, place: Place, model: type[BaseModel], table: Mapping[str, Any]) -> dict[Place, str]:
    """Return this origin for the keys of a table and of the tables within it."""
    inner = {name: table[name] for name in tables_of(model) if isinstance(table.get(name), dict)}
    return {
        **{(*place, key): origin for key in table},
        **{(*place, name, key): origin for name, keys in inner.items() for key in keys},
    }


def run_settings(
    config: str | Path | None,
    *,
    workers: int | None = None,
    shard_documents: int | None = None,
    serial: bool | None = None,
    wait: float | None = None,
    host: str | None = None,
    port: int | None = None,
) -> Settings:
    """Load the settings of one run, with the overrides that are given. Raises SettingsError."""
    sections: dict[str, dict[str, Any]] = {
        "parallel": {"workers": workers, "shard_documents": shard_documents, "serial": serial or None},
        "run": {"wait": wait},
        "serve": {"host": host, "port": port},
    }
    given = {name: {k: v for k, v in keys.items() if v is not None} for name, keys in sections.items()}
    return load_settings(config, **{name: keys for name, keys in given.items() if keys})


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        if twice := re.match(r"Cannot declare \((.*?),?\) twice \((.*)\)", str(exc)):
            table = twice[1].replace("', '", ".").strip("'")
            raise SettingsError(f"{path} has a second [{table}] {twice[2]}: move its keys to the first one") from exc
        raise SettingsError(f"{path} is not TOML: {exc}") from exc
    except OSError as exc:
        raise SettingsError(f"{path} cannot be read: {exc.strerror}") from exc
    if "path" in content:  # a field of the model that a file may not set
        raise SettingsError(f"{path.name}: unknown key 'path'; the path of the store is a key of [store]")
    return content
