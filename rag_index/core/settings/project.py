"""The settings of a project: the model of a complete file, loading it from TOML and RAG_INDEX_*
variables, and the alias of each index.

Only this module reads the environment. A variable is RAG_INDEX_ and the place of its key in the
file, with two underscores between the parts: RAG_INDEX_<SECTION>__<KEY> for a key of a section, and
RAG_INDEX_<SECTION>__<TABLE>__<KEY> for one of a table in it. Keys of an index have none: only the
file defines what is indexed.

Values are written as in the file, but without quotes. White space, line ends and a byte order mark
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
from dataclasses import dataclass
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
"""Characters. The names of collections begin with the project. Chosen."""
ENV_PREFIX = "RAG_INDEX_"
CONFIG_VARIABLE = "RAG_INDEX_CONFIG"
MIN_SIMILARITY = 0.75
"""How similar a variable without two underscores must be to one of ours to be an error. Others are
ignored."""
Place = tuple[str | int, ...]
NO_INDEXES = "each names a table, its key and its text; `rag-index init --source URL` suggests them"
FIRST_MISTAKES = ("extra_forbidden", "missing")
"""The types of errors that are reported before others, since they often explain them."""
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
    """The prefix of collections and aliases, as in `servicedesk_comments`. Empty: the folder's
    name. Set it if the folder may be renamed or several projects share one Qdrant: under another
    name every index is new and empty."""
    data: Path = Path(".rag-index")
    """The folder for the embedded Qdrant, the ledger and written contexts. Set it if the folder of
    the settings file cannot be written. If you set it later, move the old folder there."""
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
    # The stamp of the file before it was read.
    _stamp: tuple[int, int, int] | None = PrivateAttr(default=None)

    def read_at(self, stamp: tuple[int, int, int] | None) -> Settings:
        """Record the stamp that the file had before it was read, and return these settings."""
        self._stamp = stamp
        return self

    @property
    def is_outdated(self) -> bool:
        """Whether the file has changed since these settings were read from it."""
        if self._stamp is None:
            return False
        return file_stamp(self.path) != self._stamp

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
        root = index.root or Path()
        return self.folder / root.expanduser()

    @property
    def ledger_url(self) -> URL:
        """Return the URL of the ledger, with a relative SQLite path resolved."""
        return database_url(self.ledger.url.get_secret_value(), self.folder)

    def index(self, name: str) -> IndexSettings:
        """Return the index of this name. Raises UnknownIndex if there is none; the message suggests
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
        """Return the indexes of these names in the order of the file; all of them without a name.
        Raises UnknownIndex for an unknown name."""
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
    """Return a project name made from the name of a folder."""
    letters = re.sub(r"[^A-Za-z0-9_-]+", "-", folder)
    name = re.sub(r"__+", "_", letters)
    cut = name.strip("-_")[:MAX_PROJECT_LENGTH]
    return cut.strip("-_") or "rag-index"


def first_problem(
    exc: ValidationError, values: Mapping[str, Any], origin: Mapping[Place, str], file: str
) -> str:
    """Return the first error in one line. Unknown keys come first, since they often explain what is
    missing.

    Args:
        exc: The error of `Settings`.
        values: The values that were validated.
        origin: The variable of each place that the environment set.
        file: The name of the settings file.
    """
    errors = exc.errors(include_url=False)
    error = min(errors, key=_rank)
    place = _place_of(error, values)
    variable = _origin_of(place, origin)
    source = variable or file
    where = variable or f"{file}: {_label(place, values)}".rstrip()
    message = _own_message(error, place, values, source=source, where=where)
    if message is None:
        # A key that accepts several types has an error for each.
        words = [_words(other) for other in errors if _place_of(other, values) == place]
        key = str(place[-1]) if place else ""
        message = f"{where} {', or '.join(dict.fromkeys(words))}{_value(error, key)}"
    return " ".join(message.split())


def _words(error: Mapping[str, Any]) -> str:
    """Return what pydantic's error says, such as "should be a number"."""
    kind = error["type"]
    if kind == "model_type":
        return "should be a table of keys"
    # The text "30 s" for a number.
    if kind.startswith(("int_", "float_")) and isinstance(error["input"], str):
        number = "a whole number" if kind.startswith("int_") else "a number"
        has_unit = re.fullmatch(r"([\d.]+)\s*([a-zA-Z]+)", error["input"].strip())
        return f"should be {number}{' without a unit' if has_unit else ''}"
    message = error["msg"].removeprefix("Value error, ")
    # "Input should be greater than 0"
    return re.sub(r"^\w+ should", "should", message)


def _value(error: Mapping[str, Any], key: str) -> str:
    """Return the value for the end of a message, unless it may be a secret."""
    value = f"{error['input']!r:.80}"
    if isinstance(error["input"], dict | BaseModel) or error["type"] == "model_type":
        return ""
    if key in ("url", "api_key", "tokens") or re.search("://.*[@?]", value):
        return ""
    # "should be a number, not 'x'", but "is not an address; … (it is 'x')"
    if " should " in f" {error['msg']}":
        return f", not {value}"
    return f" (it is {value})"


def _place_of(error: Mapping[str, Any], values: Any) -> Place:
    """Return the place of an error in the file. pydantic's place also has names of types, at which
    this stops."""
    place: list[str | int] = []
    for part in error["loc"]:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            # A missing key is a place, too.
            if error["type"] in FIRST_MISTAKES and isinstance(values, dict):
                place.append(part)
            break
        place.append(part)
    return tuple(place)


def _rank(error: Mapping[str, Any]) -> int:
    if error["type"] in FIRST_MISTAKES:
        return FIRST_MISTAKES.index(error["type"])
    return len(FIRST_MISTAKES)


def _origin_of(place: Place, origin: Mapping[Place, str]) -> str | None:
    """Return the variable that set a place, or the table around it; None if the file did."""
    for length in range(len(place), 0, -1):
        if place[:length] in origin:
            return origin[place[:length]]
    return None


def _own_message(
    error: Mapping[str, Any], place: Place, values: Mapping[str, Any], *, source: str, where: str
) -> str | None:
    """Return the message for an error of a kind that has one of its own; None for the others.
    `source` is the variable or the file that is wrong, and `where` also names the key in it."""
    kind = error["type"]
    key = place[-1] if place else ""
    table = _model_at(place[:-1])
    if kind == "extra_forbidden":
        inside = _label(place[:-1], values)
        known = keys_of(table)
        near = get_close_matches(str(key), known, n=1, cutoff=0.5)
        hint = f", did you mean {near[0]!r}?" if near else f"; the keys are {', '.join(known)}"
        return f"{source}: unknown key {key!r}{f' in {inside}' if inside else ''}{hint}"
    if kind == "missing":
        return f"{where} is missing: {NO_INDEXES if key == 'indexes' else 'it must be given'}"
    # A check of a complete table: its message names the key.
    if kind == "value_error" and isinstance(error["input"], dict | BaseModel):
        return f"{where.removesuffix(':')}: {_words(error)}"
    # [indexes.parts] in place of [[indexes.parts]]
    if kind == "list_type" and key in tables_of(table, list):
        name = ".".join(part for part in place if isinstance(part, str))
        return (
            f"{where} should be a list of tables; begin each with [[{name}]] on a line of its own"
        )
    return None


def _model_at(place: Place) -> type[BaseModel]:
    """Return the model of the table at a place."""
    model: type[BaseModel] = Settings
    for part in place:
        inner = {**tables_of(model), **tables_of(model, list), **tables_of(model, dict)}
        # The number of an entry, or the name of a join, stays in the model.
        model = inner.get(str(part), model)
    return model


def _label(place: Place, values: Mapping[str, Any]) -> str:
    """Return a place as people call it, such as `[parallel] workers` or `index comments:
    parts[0].text`."""
    # A key at the top: `project`
    if not place or place[0] not in (*SECTIONS, "indexes"):
        return ".".join(map(str, place))
    if place == ("indexes",):
        return "[[indexes]]"
    if place[0] == "indexes":
        number = int(place[1])
        index = values["indexes"][number]
        name = index.get("name") if isinstance(index, dict) else None
        head = f"index number {number + 1}"
        if isinstance(name, str) and name:
            head = f"index {name}"
        inner = _inner_label(place[2:])
        return f"{head}: {inner}" if inner else head
    return f"[{place[0]}] {_inner_label(place[1:])}".strip()


def _inner_label(place: Place) -> str:
    """Return the place within a table: `parts[0].text`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in place]
    return "".join(parts).removeprefix(".")


def find_config(given: str | Path | None = None) -> Path:
    """Return the settings file: the given one, that of RAG_INDEX_CONFIG, or rag-index.toml in the
    current folder or above. Raises SettingsError if there is none, or if another user may write the
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
    """Raise SettingsError if another user may write a settings file that was found and not named,
    or its folder, or replace a folder above.

    Settings determine where keys are sent, and the ledger beside them what is deleted.
    """
    real = path.resolve()
    near = (path, path.parent, real)
    for place in dict.fromkeys((*near, *path.parents, *real.parents)):
        # Above the folder, nobody can replace another user's folder in /tmp.
        writer = other_writer(place, sticky=place not in near)
        if writer:
            raise SettingsError(
                f"{path} was found, but not read, because {writer} may write"
                f" {'it' if place == path else place}: if you mean these settings, name the file"
                " with --config or RAG_INDEX_CONFIG"
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
    """Load the settings of one run, overridden by those keys of `OVERRIDES` that are given. Raises
    SettingsError."""
    overrides: dict[str, dict[str, Any]] = {}
    for key, value in given.items():
        # `--serial` is a flag: without it the setting counts.
        is_given = value is not None and not (key == "serial" and value is False)
        if is_given:
            overrides.setdefault(OVERRIDES[key], {})[key] = value
    return load_settings(config, **overrides)


def origins(path: Path) -> dict[Place, str]:
    """Return where each value that is not a default comes from: the name of the file or of a
    variable.

    Places are as in the file: ("project",), ("parallel", "workers"), ("indexes", 0, "table").
    Raises SettingsError like `load_settings`.
    """
    values, origin = overlay(os.environ, _read_file(path))
    return {place: _origin_of(place, origin) or path.name for place in _places(values)}


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
    """Yield the place of each value, tables and lists included."""
    inner: Iterable[tuple[str | int, Any]] = ()
    if isinstance(values, dict):
        inner = values.items()
    elif isinstance(values, list):
        inner = enumerate(values)
    for key, value in inner:
        yield (*place, key)
        yield from _places(value, (*place, key))


def _with_places(settings: Settings, path: Path) -> Settings:
    """Return the settings of the file `path`, with absolute paths and the name of the project."""
    folder = path.parent
    data = folder / settings.data.expanduser()
    updates: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for section, keys in updates.items():
        for key, value in getattr(settings, section):
            if isinstance(value, Path):
                keys[key] = folder / value.expanduser()
    # By default, store and ledger are in `data`.
    if "path" not in settings.store.model_fields_set:
        updates["store"]["path"] = data / "qdrant"
    if "data" in settings.model_fields_set and "url" not in settings.ledger.model_fields_set:
        updates["ledger"]["url"] = Secret(f"sqlite:///{data / 'ledger.db'}")
    # A model may be a folder.
    model = settings.embedder.model
    if settings.embedder.kind == "fastembed" and (folder / model).is_dir():
        updates["embedder"]["model"] = str(folder / model)
    # A plug-in `words` comes before a folder `words`, which may be its package.
    reranker = settings.retrieve.reranker
    if reranker and (folder / reranker).is_dir() and reranker not in installed(RERANKERS):
        updates["retrieve"]["reranker"] = str(folder / reranker)
    resolved: dict[str, Any] = {}
    for section, keys in updates.items():
        resolved[section] = getattr(settings, section).model_copy(update=keys)
    project = settings.project or project_name(folder.name)
    return settings.model_copy(update={"path": path, "data": data, "project": project, **resolved})


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(read_written(path))
    except tomllib.TOMLDecodeError as exc:
        is_unclosed = r"Illegal character '\n'" in str(exc)
        unclosed = "; a quotation mark is not closed there" if is_unclosed else ""
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
    merged = copy.deepcopy(dict(content))
    origin: dict[Place, str] = {}
    known: dict[str, _Settable] = {}
    for settable in _settable_places():
        known[f"{ENV_PREFIX}{'__'.join(settable.place)}".upper()] = settable
    given = [name for name in environ if name.upper().startswith(ENV_PREFIX)]
    by_upper = {name.upper(): name for name in given}
    by_upper.pop(CONFIG_VARIABLE, None)
    # A table comes before its keys: it would replace them.
    for upper in sorted(by_upper, key=lambda name: name.count("__")):
        variable = by_upper[upper]
        if upper not in known:
            _refuse(variable, known)
            continue
        settable = known[upper]
        value = _parse(variable, settable, environ[variable])
        _put(merged, settable.place, value)
        origin[settable.place] = variable
    return merged, origin


@dataclass(frozen=True, slots=True)
class _Settable:
    """A key that a variable may set."""

    place: tuple[str, ...]
    field: FieldInfo


def _settable_places() -> Iterator[_Settable]:
    for key in TOP_KEYS:
        yield _Settable((key,), Settings.model_fields[key])
    for section, model in SECTIONS.items():
        tables = tables_of(model)
        for key, field in keys_of(model).items():
            yield _Settable((section, key), field)
            # [store.server]: the table, and each of its keys
            if key in tables:
                for inner_key, inner in keys_of(tables[key]).items():
                    yield _Settable((section, key, inner_key), inner)


def _refuse(variable: str, known: Iterable[str]) -> None:
    """Raise SettingsError if an unknown variable was meant as a setting."""
    if re.fullmatch(f"{ENV_PREFIX}INDEXES(__.*)?", variable.upper()):
        raise SettingsError(
            f"{variable} is not a setting: indexes stand in the file, and not in the environment"
        )
    # The forms by which a person may miss RAG_INDEX_PARALLEL__WORKERS: WORKERS, PARALLEL_WORKERS.
    names = {CONFIG_VARIABLE.removeprefix(ENV_PREFIX): CONFIG_VARIABLE}
    for name in known:
        short = name.removeprefix(ENV_PREFIX)
        names[short.rpartition("__")[2]] = name
        names[short.replace("__", "_")] = name
    wrong = variable.upper().removeprefix(ENV_PREFIX).replace("__", "_")
    near = get_close_matches(wrong, names, n=1, cutoff=MIN_SIMILARITY)
    if near or "__" in variable:
        hint = f"did you mean {names[near[0]]}?" if near else "`rag-index config` prints all keys"
        raise SettingsError(f"{variable} is not a setting, {hint}")


def _parse(variable: str, settable: _Settable, text: str) -> Any:
    """Return the value that the text of a variable stands for."""
    annotation = settable.field.annotation
    # The prefix "query: " ends with a space, and an empty one is a value.
    if settable.place[-1].endswith("_prefix"):
        value = text.strip("\r\n\ufeff")
    else:
        value = stripped(text)
        if not value and type(None) in typing.get_args(annotation):
            return None
    if typing.get_origin(annotation) is list:
        # a, b
        if not value.lstrip().startswith("["):
            return [part.strip() for part in value.split(",") if part.strip()]
        # ["a", "b"]: a list of JSON is one of TOML
        with suppress(ValueError):
            return tomllib.loads(f"value = {value}")["value"]
        raise SettingsError(f'{variable} is not a list; write it as ["one", "two"]')
    # A table, such as {"input_type": "query"}.
    if value.lstrip().startswith("{"):
        with suppress(ValueError):
            return json.loads(value)
    return value


def _put(content: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    *outer, key = place
    # If the file has no table at that place, the check of the settings reports it.
    with suppress(AttributeError, TypeError):
        for name in outer:
            content = content.setdefault(name, {})
        content[key] = value


class Alias(str):
    """The alias that readers search: the names of a project and of its index, joined by `_`. Two
    pairs may make the same alias (`desk` + `it_notes`, `desk_it` + `notes`), so `owner` has the
    pair."""

    owner: dict[str, str]

    def __new__(cls, project: str, index: str) -> Alias:
        """Return the alias of an index of a project."""
        alias = super().__new__(cls, f"{project}_{index}")
        alias.owner = {"project": project, "index": index}
        return alias

    def __reduce__(self) -> tuple[type[Alias], tuple[str, ...]]:
        return Alias, tuple(self.owner.values())
