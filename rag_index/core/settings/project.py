"""The settings of a project, and the alias of each index: the model of a whole file, which is
loaded from TOML and RAG_INDEX_* variables.

Only this module reads the environment. A variable is RAG_INDEX_ and the place of its key in the
file, with two underscores between the parts of the place: a key of a section is
RAG_INDEX_<SECTION>__<KEY>, and one of a table within it has the name of the table before the key.
Keys of an index have none: what is indexed stands in the file.

Values are written as in the file, but without quotes; white space, line ends and a byte order mark
around them do not count. A list is written as JSON, as TOML or with commas. An empty value is an
empty text, or removes an optional key. A variable that looks like a setting but is not one is an
error.
"""

from __future__ import annotations

import copy
import json
import os
import re
import tomllib
import typing
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from rag_index.core.database import database_url
from rag_index.core.files import file_stamp, other_writer, read_written
from rag_index.core.settings.index import CODE, SQL, IndexSettings
from rag_index.core.settings.parts import Secret, keys_of, stripped, tables_of
from rag_index.core.settings.plugins import RERANKERS, SOURCES, installed
from rag_index.core.settings.sections import (
    EmbedderSettings,
    LedgerSettings,
    ParallelSettings,
    RetrieveSettings,
    RunSettings,
    ServeSettings,
    SourceSettings,
    StoreSettings,
)
from rag_index.errors import SettingsError, UnknownIndex
from rag_index.redaction import keep_environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pydantic.fields import FieldInfo
    from sqlalchemy.engine import URL

FILE_NAME = "rag-index.toml"
MAX_PROJECT_LENGTH = 60
ENV_PREFIX = "RAG_INDEX_"
CONFIG_VARIABLE = "RAG_INDEX_CONFIG"
MIN_SIMILARITY = 0.75
"""How similar a variable without two underscores has to be to one of ours to be a mistake. Others
are ignored."""
Place = tuple[str | int, ...]
NO_INDEXES = "each names a table, its key and its text; `rag-index init --source URL` suggests them"
FIRST_MISTAKES = ("extra_forbidden", "missing")
OVERRIDES = {
    "workers": "parallel",
    "shard_documents": "parallel",
    "serial": "parallel",
    "wait": "run",
    "host": "serve",
    "port": "serve",
}
"""The sections of the keys that a command line may set."""


class Settings(BaseModel):
    """All settings of a project. `load_settings` makes their paths absolute."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    project: str = Field(
        default="", pattern=r"^([A-Za-z0-9-]+(_[A-Za-z0-9-]+)*)?$", max_length=MAX_PROJECT_LENGTH
    )
    """The prefix of collections and aliases: `servicedesk` makes the alias `servicedesk_comments`.
    Empty: the folder's name. Set it if the folder may be renamed or several projects share one
    Qdrant: under another name every index is new and empty."""
    data: Path = Path(".rag-index")
    """The folder for the embedded Qdrant, the ledger and written contexts. Set it if the folder of
    the settings file cannot be written, such as `/etc`. If you set it later, move the old folder
    there: an empty folder starts an empty index."""
    source: SourceSettings = SourceSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    store: StoreSettings = StoreSettings()
    ledger: LedgerSettings = LedgerSettings()
    parallel: ParallelSettings = ParallelSettings()
    run: RunSettings = RunSettings()
    retrieve: RetrieveSettings = RetrieveSettings()
    serve: ServeSettings = ServeSettings()
    indexes: list[IndexSettings] = Field(min_length=1)
    path: Path = Field(default=Path(FILE_NAME), exclude=True)
    """The file that these settings come from."""
    _stamp: tuple[int, int, int] | None = PrivateAttr(
        default=None
    )  # of the file, before it was read

    def read_at(self, stamp: tuple[int, int, int] | None) -> Settings:
        """Return the settings, which remember the stamp that their file had before it was read."""
        self._stamp = stamp
        return self

    @property
    def is_outdated(self) -> bool:
        """Whether the file has changed since these settings were read from it."""
        return self._stamp is not None and file_stamp(self.path) != self._stamp

    @model_validator(mode="after")
    def _check_consistency(self) -> Settings:
        names = [index.name for index in self.indexes]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise ValueError(
                f"two indexes are named {duplicates[0]!r}; give each index its own name"
            )
        if self.source.url is None and any(index.kind == SQL for index in self.indexes):
            raise ValueError(
                "[source] url is missing: it is the database to read, for example sqlite:///file.db"
            )
        asking = next((index.name for index in self.indexes if index.asks_database), None)
        if asking is not None and self.source_url.get_backend_name() != "postgresql":
            raise ValueError(
                f'index {asking}: access = "database" needs PostgreSQL; name a column or a SELECT'
            )
        if asking is not None and not self.source.caller_roles:
            raise ValueError(
                f'index {asking}: access = "database" needs [source] caller_roles: those of the'
                " callers"
            )
        return self

    @property
    def folder(self) -> Path:
        """Return the folder of the settings file, where relative paths start."""
        return self.path.parent

    @property
    def source_url(self) -> URL:
        """Return the URL of the source, with a relative SQLite path resolved. Raises SettingsError
        if the settings have none, which is allowed if no index is of kind sql."""
        if self.source.url is None:
            raise SettingsError(
                f"{self.path.name}: [source] url is missing; only indexes of kind sql need it"
            )
        return database_url(self.source.url.get_secret_value(), self.folder)

    def root(self, index: IndexSettings) -> Path:
        """Return the folder of an index of source code; a relative one starts at the folder of the
        settings file."""
        return self.folder / (index.root or Path()).expanduser()

    @property
    def ledger_url(self) -> URL:
        """Return the URL of the ledger, with a relative SQLite path resolved."""
        return database_url(self.ledger.url.get_secret_value(), self.folder)

    def index(self, name: str) -> IndexSettings:
        """Return the index of this name. Raises UnknownIndex if there is none; the message gives
        the most similar name."""
        for index in self.indexes:
            if index.name == name:
                return index
        names = [index.name for index in self.indexes]
        near = get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise UnknownIndex(
            f"there is no index {name!r}{hint}; the indexes of {self.path.name} are"
            f" {', '.join(names)}"
        )

    def named(self, names: Sequence[str] | None) -> list[IndexSettings]:
        """Return the indexes of these names in the order of the file, or all of them if no name is
        given. Raises UnknownIndex if one of the names does not exist."""
        if not names:
            return list(self.indexes)
        wanted = {self.index(name).name for name in names}
        return [index for index in self.indexes if index.name in wanted]

    def alias(self, index: str) -> Alias:
        """Return the alias of an index, which readers search."""
        return Alias(self.project, index)

    @property
    def aliases(self) -> list[Alias]:
        """The aliases of all indexes."""
        return [self.alias(index.name) for index in self.indexes]


SECTIONS = tables_of(Settings)
"""The tables of the file, except `[[indexes]]`."""
TOP_KEYS = [key for key in keys_of(Settings) if key not in SECTIONS and key != "indexes"]
"""The keys at the top of the file, which belong to no section."""


def project_name(folder: str) -> str:
    """Turn the name of a folder into a prefix of collections."""
    name = re.sub(r"__+", "_", re.sub(r"[^A-Za-z0-9_-]+", "-", folder))
    return name.strip("-_")[:MAX_PROJECT_LENGTH].strip("-_") or "rag-index"


def first_problem(
    exc: ValidationError, values: Mapping[str, Any], origin: Mapping[Place, str], file: str
) -> str:
    """Return the first error in one line. Unknown keys come first, since they often explain what is
    missing."""
    errors = exc.errors(include_url=False)
    error = min(
        errors,
        key=lambda e: (
            FIRST_MISTAKES.index(e["type"]) if e["type"] in FIRST_MISTAKES else len(FIRST_MISTAKES)
        ),
    )
    place = _place_of(error, values)
    kind, key, table = error["type"], place[-1] if place else "", _model_at(place[:-1])
    variable = next(
        (origin[place[:n]] for n in range(len(place), 0, -1) if place[:n] in origin), None
    )
    where = variable or " ".join(filter(None, [f"{file}:", _label(place, values)]))
    if kind == "extra_forbidden":
        inside, known = _label(place[:-1], values), keys_of(table)
        near = get_close_matches(str(key), known, n=1, cutoff=0.5)
        hint = f", did you mean {near[0]!r}?" if near else f"; the keys are {', '.join(known)}"
        message = (
            f"{variable or file}: unknown key {key!r}{f' in {inside}' if inside else ''}{hint}"
        )
    elif kind == "missing":
        message = f"{where} is missing: {NO_INDEXES if key == 'indexes' else 'it must be given'}"
    elif kind == "value_error" and isinstance(error["input"], dict | BaseModel):
        message = f"{where.removesuffix(':')}: {_words(error)}"
    elif kind == "list_type" and key in tables_of(table, list):
        name = ".".join(part for part in place if isinstance(part, str))
        message = (
            f"{where} should be a list of tables; begin each with [[{name}]] on a line of its own"
        )
    else:  # a key that takes several types has an error for each
        words = [_words(one) for one in errors if _place_of(one, values) == place]
        message = f"{where} {', or '.join(dict.fromkeys(words))}{_value(error, str(key))}"
    return " ".join(message.split())


def _words(error: Mapping[str, Any]) -> str:
    if error["type"] == "model_type":
        return "should be a table of keys"
    given = re.fullmatch(r"([\d.]+)\s*([a-zA-Z]+)", str(error["input"]).strip())
    if error["type"].startswith(("int_", "float_")) and isinstance(error["input"], str):
        kind = "a whole number" if error["type"].startswith("int_") else "a number"
        return f"should be {kind}{' without a unit' if given else ''}"
    return re.sub(r"^\w+ should", "should", error["msg"].removeprefix("Value error, "))


def _value(error: Mapping[str, Any], key: str) -> str:
    """Return the value for the end of a message, unless it may be a secret."""
    value = f"{error['input']!r:.80}"
    secret = (
        key in ("url", "api_key", "tokens")
        or re.search("://.*[@?]", value)
        or error["type"] == "model_type"
    )
    if secret or isinstance(error["input"], dict | BaseModel):
        return ""
    return f", not {value}" if " should " in f" {error['msg']}" else f" (it is {value})"


def _place_of(error: Mapping[str, Any], values: Any) -> Place:
    place: list[str | int] = []
    for part in error["loc"]:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return (
                (*place, part)
                if error["type"] in FIRST_MISTAKES and isinstance(values, dict)
                else tuple(place)
            )
        place.append(part)
    return tuple(place)


def _model_at(place: Place) -> type[BaseModel]:
    model: type[BaseModel] = Settings
    for part in place:
        inner = {**tables_of(model), **tables_of(model, list), **tables_of(model, dict)}
        model = inner.get(str(part), model)
    return model


def _label(place: Place, values: Mapping[str, Any]) -> str:
    """Return what a person calls a place, such as `[parallel] workers` or `index comments:
    parts[0].text`."""
    if not place or place[0] not in (*SECTIONS, "indexes"):
        return ".".join(map(str, place))
    head, rest = (f"[[{place[0]}]]" if place == ("indexes",) else f"[{place[0]}] "), place[1:]
    if place[0] == "indexes" and rest:
        table = values["indexes"][rest[0]]
        name = table.get("name") if isinstance(table, dict) else None
        head = (
            f"index {name}: "
            if isinstance(name, str) and name
            else f"index number {int(rest[0]) + 1}: "
        )
        rest = rest[1:]
    inner = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in rest
    ).removeprefix(".")
    return f"{head}{inner}".strip() if inner else head.removesuffix(": ").strip()


def find_config(given: str | Path | None = None) -> Path:
    """Return the settings file: the given one, that of RAG_INDEX_CONFIG, or rag-index.toml here or
    in a folder above. Raises SettingsError if there is no such file, or another user may write the
    one that was found."""
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
    raise SettingsError(
        f"there is no {FILE_NAME} here or above; `rag-index init` writes one, --config names"
        " another"
    )


def _check_writers(path: Path) -> None:
    """Check that no other user can write a file that was found, and not named, or what is beside
    it. Settings say where keys are sent, and the ledger beside them says what is deleted. Raises
    SettingsError if another user may write the file or its folder, or replace a folder above."""
    real = path.resolve()
    near = (path, path.parent, real)
    for one in dict.fromkeys((*near, *path.parents, *real.parents)):
        if writer := other_writer(one, sticky=one not in near):
            raise SettingsError(
                f"{path} was found, but not read, because {writer} may write"
                f" {'it' if one == path else one}: if you mean these settings, name the file with"
                " --config or RAG_INDEX_CONFIG"
            )


def load_settings(given: str | Path | None = None, **overrides: dict[str, Any]) -> Settings:
    """Load the settings file. RAG_INDEX_* variables override it, and `overrides` (sections of keys)
    override both. Raises SettingsError if the file is missing or not TOML, a key is unknown, or a
    value is invalid. The message is one line with the value and the remedy."""
    path = find_config(given)
    stamp = file_stamp(path)
    keep_environment(os.environ)
    values, origin = overlay(os.environ, _read_file(path))
    for section, keys in overrides.items():
        values[section] = {**values.get(section, {}), **keys}
    try:
        settings = Settings(**values)
    except ValidationError as exc:
        raise SettingsError(first_problem(exc, values, origin, path.name)) from exc
    for index in settings.indexes:
        _require_installed_kind(index, path.name)
    return _with_places(settings, path).read_at(stamp)


def run_settings(config: str | Path | None, **given: float | str | None) -> Settings:
    """Load the settings of one run; keys of `OVERRIDES` that are given override them. Raises
    SettingsError."""
    overrides: dict[str, dict[str, Any]] = {}
    for key, value in given.items():
        if value is not None and not (key == "serial" and value is False):
            overrides.setdefault(OVERRIDES[key], {})[key] = value
    return load_settings(config, **overrides)


def origins(path: Path) -> dict[Place, str]:
    """Return where each value that is not a default comes from: the name of the file or of a
    variable.

    Places are as in the file: ("project",), ("parallel", "workers"), ("indexes", 0, "table").
    Raises SettingsError like `load_settings`.
    """
    values, origin = overlay(os.environ, _read_file(path))
    return {
        place: next(
            (origin[place[:n]] for n in range(len(place), 0, -1) if place[:n] in origin), path.name
        )
        for place in _places(values)
    }


def _require_installed_kind(index: IndexSettings, file: str) -> None:
    """Raise SettingsError if an index has a kind that is neither built in nor that of a plug-in."""
    if index.kind in (SQL, CODE):
        return
    plugins = installed(SOURCES)
    if index.kind not in plugins:
        known = ", ".join(map(repr, (SQL, CODE, *plugins)))
        raise SettingsError(
            f"{file}: index {index.name}: kind {index.kind!r} should be {known} or another"
            " plug-in's name, once its package is installed"
        )


def _places(values: Any, place: Place = ()) -> Iterator[Place]:
    inner = (
        values.items()
        if isinstance(values, dict)
        else enumerate(values)
        if isinstance(values, list)
        else ()
    )
    for key, value in inner:
        yield (*place, key)
        yield from _places(value, (*place, key))


def _with_places(settings: Settings, path: Path) -> Settings:
    """Return the settings of the file `path` with absolute paths and with the name of the
    project."""
    folder = path.parent
    data = folder / settings.data.expanduser()
    updates: dict[str, dict[str, Any]] = {
        section: {
            key: folder / value.expanduser()
            for key, value in getattr(settings, section)
            if isinstance(value, Path)
        }
        for section in SECTIONS
    }
    if "path" not in settings.store.model_fields_set:
        updates["store"]["path"] = data / "qdrant"
    if "data" in settings.model_fields_set and "url" not in settings.ledger.model_fields_set:
        updates["ledger"]["url"] = Secret(f"sqlite:///{data / 'ledger.db'}")
    if settings.embedder.kind == "fastembed" and (folder / settings.embedder.model).is_dir():
        updates["embedder"]["model"] = str(folder / settings.embedder.model)
    reranker = settings.retrieve.reranker
    # a plug-in `words` comes before a folder `words`, in which its package may lie
    if reranker and (folder / reranker).is_dir() and reranker not in installed(RERANKERS):
        updates["retrieve"]["reranker"] = str(folder / reranker)
    resolved = {
        section: getattr(settings, section).model_copy(update=keys)
        for section, keys in updates.items()
    }
    project = settings.project or project_name(folder.name)
    return settings.model_copy(update={"path": path, "data": data, "project": project, **resolved})


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(read_written(path))
    except tomllib.TOMLDecodeError as exc:
        unclosed = (
            "; a quotation mark is not closed there"
            if r"Illegal character '\n'" in str(exc)
            else ""
        )
        raise SettingsError(f"{path} is not TOML: {exc}{unclosed}") from exc
    if "path" in content:  # a field of the model that a file may not set
        raise SettingsError(
            f"{path.name}: unknown key 'path'; the path of the store is a key of [store]"
        )
    run = content.get("run")
    if isinstance(run, dict) and "wait" in run:  # a field that only an option of a command sets
        raise SettingsError(
            f"{path.name}: unknown key 'wait' in [run]; a command waits at its start as `--wait`"
            " says"
        )
    return content


def overlay(
    environ: Mapping[str, str], content: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[Place, str]]:
    """Return the content of the file, overridden by the environment, and the variable of each place
    that it changed. Raises SettingsError if a variable is no setting, or not a list where it has to
    be one."""
    merged, origin = copy.deepcopy(dict(content)), dict[Place, str]()
    given = {name.upper(): name for name in environ if name.upper().startswith(ENV_PREFIX)}
    given.pop(CONFIG_VARIABLE, None)
    known = {
        f"{ENV_PREFIX}{'__'.join(place)}".upper(): (place, field)
        for place, field in _settable_places()
    }
    for upper, variable in sorted(
        given.items(), key=lambda one: one[0].count("__")
    ):  # a table before its keys
        if upper not in known:
            _refuse(variable, known)
            continue
        place, field = known[upper]
        _put(merged, place, _parse(variable, place[-1], field, environ[variable]))
        origin[place] = variable
    return merged, origin


def _settable_places() -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    for key in TOP_KEYS:
        yield (key,), Settings.model_fields[key]
    for section, model in SECTIONS.items():
        tables = tables_of(model)
        for key, field in keys_of(model).items():
            yield (section, key), field
            for within, inner in keys_of(tables[key]).items() if key in tables else ():
                yield (section, key, within), inner


def _refuse(variable: str, known: Iterable[str]) -> None:
    """Raise SettingsError if an unknown variable was meant as a setting."""
    if re.fullmatch(f"{ENV_PREFIX}INDEXES(__.*)?", variable.upper()):
        raise SettingsError(
            f"{variable} is not a setting: indexes stand in the file, and not in the environment"
        )
    names = {CONFIG_VARIABLE.removeprefix(ENV_PREFIX): CONFIG_VARIABLE}
    for name in known:
        short = name.removeprefix(ENV_PREFIX)
        names |= {short.rpartition("__")[2]: name, short.replace("__", "_"): name}
    near = get_close_matches(
        variable.upper().removeprefix(ENV_PREFIX).replace("__", "_"),
        names,
        n=1,
        cutoff=MIN_SIMILARITY,
    )
    if near or "__" in variable:
        hint = f"did you mean {names[near[0]]}?" if near else "`rag-index config` prints all keys"
        raise SettingsError(f"{variable} is not a setting, {hint}")


def _parse(variable: str, key: str, field: FieldInfo, value: str) -> Any:
    value = (
        value.strip("\r\n\ufeff") if key.endswith("_prefix") else stripped(value)
    )  # "query: " ends with a space
    if (
        not value
        and type(None) in typing.get_args(field.annotation)
        and not key.endswith("_prefix")
    ):
        return None
    if typing.get_origin(field.annotation) is list:
        if not value.lstrip().startswith("["):
            return [part.strip() for part in value.split(",") if part.strip()]
        with suppress(ValueError):
            return tomllib.loads(f"value = {value}")["value"]  # a list of JSON is one of TOML
        raise SettingsError(f'{variable} is not a list; write it as ["one", "two"]')
    if value.lstrip().startswith("{"):
        with suppress(ValueError):
            return json.loads(value)
    return value


def _put(content: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    *outer, key = place
    with suppress(
        AttributeError, TypeError
    ):  # what the file has there is no table, which is said later
        for name in outer:
            content = content.setdefault(name, {})
        content[key] = value


class Alias(str):
    """The alias that readers search: the names of a project and of its index, joined by `_`. Two
    pairs of names may make one alias (`desk` + `it_notes`, `desk_it` + `notes`), so it also has the
    pair, as `owner`."""

    owner: dict[str, str]

    def __new__(cls, project: str, index: str) -> Alias:
        """Return the alias of an index of a project."""
        alias = super().__new__(cls, f"{project}_{index}")
        alias.owner = {"project": project, "index": index}
        return alias

    def __reduce__(self) -> tuple[type[Alias], tuple[str, ...]]:
        return Alias, tuple(self.owner.values())
