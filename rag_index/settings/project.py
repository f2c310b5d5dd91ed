"""The model of a whole settings file. `load_settings` builds it from the file and the environment."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from rag_index.database.drivers import database_url
from rag_index.database.files import file_stamp
from rag_index.errors import SettingsError, UnknownIndex
from rag_index.settings.index import SQL, IndexSettings
from rag_index.settings.sections import (
    EmbedderSettings,
    LedgerSettings,
    ParallelSettings,
    RetrieveSettings,
    RunSettings,
    ServeSettings,
    SourceSettings,
    StoreSettings,
    WatchSettings,
)
from rag_index.settings.values import keys_of, tables_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import URL

FILE_NAME = "rag-index.toml"
MAX_PROJECT_LENGTH = 60
LOCAL_WEIGHT, OTHER_WEIGHT = 0.7, 0.9
"""The weight of meaning: a trained model knows more than the local embedder's token vectors (docs/performance.md)."""


class Settings(BaseModel):
    """All settings of a project. `load_settings` makes their paths absolute."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    project: str = Field(default="", pattern=r"^([A-Za-z0-9-]+(_[A-Za-z0-9-]+)*)?$", max_length=MAX_PROJECT_LENGTH)
    """The prefix of collections and aliases: `servicedesk` makes the alias `servicedesk_comments`. Empty: the folder's
    name. Set it if the folder may be renamed or several projects share one Qdrant: under another name the index is
    another one, and starts empty."""
    data: Path = Path(".rag-index")
    """The folder for what rag-index keeps itself: the embedded Qdrant, the ledger and written contexts. Set it if
    the folder of the settings file cannot be written, such as in `/etc`. If you set it later, move the old folder
    there: an empty folder starts an empty index."""
    source: SourceSettings = SourceSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    store: StoreSettings = StoreSettings()
    ledger: LedgerSettings = LedgerSettings()
    parallel: ParallelSettings = ParallelSettings()
    run: RunSettings = RunSettings()
    retrieve: RetrieveSettings = RetrieveSettings()
    serve: ServeSettings = ServeSettings()
    watch: WatchSettings = WatchSettings()
    indexes: list[IndexSettings] = Field(min_length=1)
    path: Path = Field(default=Path(FILE_NAME), exclude=True)
    """The file that these settings come from."""
    _stamp: tuple[int, int, int] | None = PrivateAttr(default=None)  # of the file, before it was read

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
            raise ValueError(f"two indexes are named {duplicates[0]!r}; give each index its own name")
        if self.source.url is None and any(index.kind == SQL for index in self.indexes):
            raise ValueError("[source] url is missing: it is the database to read, for example sqlite:///file.db")
        if self.run.max_cost is not None and self.embedder.price is None:
            raise ValueError("[run] max_cost needs [embedder] price: what a million characters cost to embed")
        asking = next((index.name for index in self.indexes if index.asks_database), None)
        if asking is not None and self.source_url.get_backend_name() != "postgresql":
            raise ValueError(f'index {asking}: access = "database" needs PostgreSQL; name a column or a SELECT')
        if asking is not None and not self.source.caller_roles:
            raise ValueError(f'index {asking}: access = "database" needs [source] caller_roles: those of the callers')
        return self

    @property
    def dense_weight(self) -> float:
        """Return the weight of meaning against words; if the settings name none, the one that fits the embedder."""
        given = self.retrieve.dense_weight
        return given if given is not None else LOCAL_WEIGHT if self.embedder.kind == "local" else OTHER_WEIGHT

    @property
    def folder(self) -> Path:
        """Return the folder of the settings file, where relative paths start."""
        return self.path.parent

    @property
    def source_url(self) -> URL:
        """Return the URL of the source, with a relative SQLite path resolved.

        Raises:
            SettingsError: the settings have none, which is allowed if no index is of kind sql.
        """
        if self.source.url is None:
            raise SettingsError(f"{self.path.name}: [source] url is missing; only indexes of kind sql need it")
        return database_url(self.source.url.get_secret_value(), self.folder)

    def root(self, index: IndexSettings) -> Path:
        """Return the folder of an index of source code; a relative one starts at the folder of the settings file."""
        return self.folder / (index.root or Path()).expanduser()

    def golden_file(self, index: IndexSettings) -> Path | None:
        """Return the golden file of an index's gate, None if it has no gate."""
        return None if index.gate is None else self.folder / index.gate.queries.expanduser()

    @property
    def ledger_url(self) -> URL:
        """Return the URL of the ledger, with a relative SQLite path resolved."""
        return database_url(self.ledger.url.get_secret_value(), self.folder)

    def index(self, name: str) -> IndexSettings:
        """Return the index of this name.

        Raises:
            UnknownIndex: there is none; the message gives the most similar name.
        """
        for index in self.indexes:
            if index.name == name:
                return index
        names = [index.name for index in self.indexes]
        near = get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise UnknownIndex(f"there is no index {name!r}{hint}; the indexes of {self.path.name} are {', '.join(names)}")

    def named(self, names: Sequence[str] | None) -> list[IndexSettings]:
        """Return the indexes of these names in the order of the file, or all of them if no name is given.

        Raises:
            UnknownIndex: one of the names does not exist.
        """
        if not names:
            return list(self.indexes)
        wanted = {self.index(name).name for name in names}
        return [index for index in self.indexes if index.name in wanted]

    def alias(self, index: str) -> str:
        """Return the alias of an index, which readers search."""
        return f"{self.project}_{index}"

    @property
    def aliases(self) -> list[str]:
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
