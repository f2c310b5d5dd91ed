"""Settings: one TOML file, RAG_INDEX_* over it, one model that everything below is given.

`load_settings` is the only place that reads the environment. A key of the file's section `[parallel]` is
RAG_INDEX_PARALLEL__WORKERS in the environment; one of an index is RAG_INDEX_INDEXES__COMMENTS__CHUNK_CHARS.
"""

from __future__ import annotations

import os
import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from rag_index.environment import CONFIG_VARIABLE, ENV_PREFIX, Overlay, tables_of
from rag_index.errors import SettingsError, UnknownIndex
from rag_index.index_section import SQL
from rag_index.retrieve_section import RetrieveSettings
from rag_index.sections import (
    EmbedderSettings,
    IndexSettings,
    LedgerSettings,
    ParallelSettings,
    RunSettings,
    SourceSettings,
    StoreSettings,
)
from rag_index.urls import database_url
from rag_index.wrong_settings import first_problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.engine import URL

    from rag_index.environment import Place

__all__ = [
    "CONFIG_VARIABLE",
    "ENV_PREFIX",
    "FILE_NAME",
    "EmbedderSettings",
    "IndexSettings",
    "LedgerSettings",
    "ParallelSettings",
    "RetrieveSettings",
    "RunSettings",
    "SECTIONS",
    "Settings",
    "SourceSettings",
    "StoreSettings",
    "find_config",
    "load_settings",
    "origins",
    "run_settings",
]

FILE_NAME = "rag-index.toml"
LONGEST_PROJECT = 60
SECTIONS: dict[str, type[BaseModel]] = {
    "source": SourceSettings,
    "embedder": EmbedderSettings,
    "store": StoreSettings,
    "ledger": LedgerSettings,
    "parallel": ParallelSettings,
    "run": RunSettings,
    "retrieve": RetrieveSettings,
}
"""The tables of the file beside `[[indexes]]`."""


class Settings(BaseSettings):
    """All settings of a project. Paths are absolute once loaded."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    project: str = Field(default="", pattern=r"^([A-Za-z0-9-]+(_[A-Za-z0-9-]+)*)?$", max_length=LONGEST_PROJECT)
    """Prefix of collections and aliases; the folder's name by default."""
    source: SourceSettings = SourceSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    store: StoreSettings = StoreSettings()
    ledger: LedgerSettings = LedgerSettings()
    parallel: ParallelSettings = ParallelSettings()
    run: RunSettings = RunSettings()
    retrieve: RetrieveSettings = RetrieveSettings()
    indexes: list[IndexSettings] = Field(min_length=1)
    path: Path = Field(default=Path(FILE_NAME), exclude=True)
    """The file these settings come from."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is given: file and environment are read by `load_settings`, so that mistakes there are told."""
        return (init_settings,)

    @model_validator(mode="after")
    def _distinct_names(self) -> Settings:
        names = [index.name for index in self.indexes]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"index {twice[0]!r} is there twice; give each a name of its own")
        if self.source.url is None and any(index.kind == SQL for index in self.indexes):
            raise ValueError("[source] url is missing: it is the database to read, for example sqlite:///file.db")
        return self

    @property
    def folder(self) -> Path:
        """Where the settings file is; relative paths start here."""
        return self.path.parent

    @property
    def source_url(self) -> URL:
        """The source's URL, relative SQLite paths resolved.

        Raises:
            SettingsError: there is none, as where no index is of kind sql.
        """
        if self.source.url is None:
            raise SettingsError(f"{self.path.name}: [source] url is missing; only indexes of kind sql need it")
        return database_url(self.source.url.get_secret_value(), self.folder)

    def root(self, index: IndexSettings) -> Path:
        """The folder of an index of source code; a relative one starts at the settings file's."""
        return self.folder / (index.root or Path()).expanduser()

    @property
    def ledger_url(self) -> URL:
        """The ledger's URL, relative SQLite paths resolved."""
        return database_url(self.ledger.url.get_secret_value(), self.folder)

    def index(self, name: str) -> IndexSettings:
        """The index of this name.

        Raises:
            UnknownIndex: names the nearest there is.
        """
        for index in self.indexes:
            if index.name == name:
                return index
        names = [index.name for index in self.indexes]
        near = get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise UnknownIndex(f"there is no index {name!r}{hint}; {self.path.name} has: {', '.join(names)}")

    def named(self, names: Sequence[str] | None) -> list[IndexSettings]:
        """The indexes of these names, in the file's order; all where none are given.

        Raises:
            UnknownIndex: for the first that does not exist.
        """
        if not names:
            return list(self.indexes)
        wanted = {self.index(name).name for name in names}
        return [index for index in self.indexes if index.name in wanted]

    def alias(self, index: str) -> str:
        """What readers search: the alias of an index."""
        return f"{self.project}_{index}"


def find_config(given: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """The settings file: as given, RAG_INDEX_CONFIG, or rag-index.toml here or in a folder above.

    Raises:
        SettingsError: there is none.
    """
    named = given or (os.environ if environ is None else environ).get(CONFIG_VARIABLE)
    if named:
        path = Path(named).expanduser().absolute()
        if not path.is_file():
            raise SettingsError(f"there is no settings file {named}; `rag-index init` writes one")
        return path
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    raise SettingsError(f"there is no {FILE_NAME} here or above; `rag-index init` writes one, --config names another")


def load_settings(given: str | Path | None = None, **overrides: dict[str, Any]) -> Settings:
    """Read the settings file, put RAG_INDEX_* over it and `overrides` (sections of changed keys) over both.

    Raises:
        SettingsError: the file is missing or not TOML, a key is unknown, a value cannot be. One line, with the
            value and the remedy.
    """
    path = find_config(given)
    overlay = Overlay(os.environ, SECTIONS)
    values = overlay.over(_content(path))
    for section, keys in overrides.items():
        values[section] = {**values.get(section, {}), **keys}
    try:
        settings = Settings(**values)
    except ValidationError as exc:
        raise SettingsError(first_problem(exc, Settings, values, overlay.origin, path.name)) from exc
    store = settings.store.model_copy(update={"path": path.parent / settings.store.path.expanduser()})
    embedder = settings.embedder
    if embedder.kind == "sentence-transformers" and (path.parent / embedder.model).is_dir():
        embedder = embedder.model_copy(update={"model": str(path.parent / embedder.model)})
    parallel = settings.parallel.model_copy(
        update={
            name: path.parent / file.expanduser()
            for name in ("tls_ca_file", "tls_cert", "tls_key")
            if (file := getattr(settings.parallel, name)) is not None
        }
    )
    run = settings.run
    if run.metrics_file is not None:
        run = run.model_copy(update={"metrics_file": path.parent / run.metrics_file.expanduser()})
    project = settings.project or project_name(path.parent.name)
    resolved = {"store": store, "parallel": parallel, "embedder": embedder, "run": run}
    return settings.model_copy(update={"path": path, "project": project, **resolved})


def origins(path: Path) -> dict[Place, str]:
    """Where each value that is not a default comes from: the file's name, or the variable's. Places as in the file:
    ("project",), ("parallel", "workers"), ("indexes", 0, "table").

    Raises SettingsError as `load_settings`.
    """
    overlay = Overlay(os.environ, SECTIONS)
    content = _content(path)
    merged = overlay.over(content)
    found: dict[Place, str] = {("project",): path.name} if "project" in content else {}
    found |= {(section, key): path.name for section in SECTIONS for key in content.get(section, {})}
    whole = overlay.origin.get(("indexes",), path.name)
    for number, table in enumerate(merged.get("indexes", [])):
        found |= {("indexes", number, key): whole for key in table}
        inner = {name: table[name] for name in tables_of(IndexSettings) if isinstance(table.get(name), dict)}
        found |= {("indexes", number, name, key): whole for name, keys in inner.items() for key in keys}
    return found | overlay.origin


def run_settings(
    config: str | Path | None,
    *,
    workers: int | None = None,
    chunk_size: int | None = None,
    serial: bool | None = None,
    wait: float | None = None,
) -> Settings:
    """The settings, with what one run does differently where it is given. Raises SettingsError."""
    sections: dict[str, dict[str, Any]] = {
        "parallel": {"workers": workers, "chunk_size": chunk_size, "serial": serial or None},
        "run": {"wait": wait},
    }
    given = {name: {k: v for k, v in keys.items() if v is not None} for name, keys in sections.items()}
    return load_settings(config, **{name: keys for name, keys in given.items() if keys})


def _content(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{path} is not TOML: {exc}") from exc
    except OSError as exc:
        raise SettingsError(f"{path} cannot be read: {exc.strerror}") from exc
    if "path" in content:  # a field of the model, but none that a file may set
        raise SettingsError(f"{path.name}: unknown key 'path'; the store's is a key of [store]")
    return content


def project_name(folder: str) -> str:
    """A folder's name as a prefix of collections."""
    name = re.sub(r"__+", "_", re.sub(r"[^A-Za-z0-9_-]+", "-", folder))
    return name.strip("-_")[:LONGEST_PROJECT].strip("-_") or "rag-index"
