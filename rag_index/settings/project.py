"""Settings: one TOML file, RAG_INDEX_* over it, one model that everything below is given.

`load_settings` is the only place that reads the environment. A key of the file's section `[parallel]` is
RAG_INDEX_PARALLEL__WORKERS in the environment; one of an index is RAG_INDEX_INDEXES__COMMENTS__CHUNK_CHARS.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from rag_index.database.urls import database_url
from rag_index.errors import SettingsError, UnknownIndex
from rag_index.settings.index import SQL
from rag_index.settings.retrieve import RetrieveSettings
from rag_index.settings.sections import (
    EmbedderSettings,
    IndexSettings,
    LedgerSettings,
    ParallelSettings,
    RunSettings,
    SourceSettings,
    StoreSettings,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import URL


__all__ = ["FILE_NAME", "SECTIONS", "Settings", "project_name"]

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


def project_name(folder: str) -> str:
    """A folder's name as a prefix of collections."""
    name = re.sub(r"__+", "_", re.sub(r"[^A-Za-z0-9_-]+", "-", folder))
    return name.strip("-_")[:LONGEST_PROJECT].strip("-_") or "rag-index"
