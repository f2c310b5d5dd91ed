"""A project whose indexes are filled without a run: settings on disk, points in either store."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rag_index.components.chunking.text_chunker import TextChunker
from rag_index.components.embedders import open_embedder
from rag_index.components.embedders.bm25 import bm25_model
from rag_index.components.sources import page_of
from rag_index.components.stores import BM25, open_store
from rag_index.components.stores.protocol import Store
from rag_index.core.documents.batches import Shard
from rag_index.core.settings import Settings, load_settings
from rag_index.etl.collection import make_searchable
from rag_index.etl.embed import EmbedJob
from rag_index.etl.upsert import write_shard
from rag_index.search import Caller, Retriever
from rag_index.search.service import SearchService
from rag_index.search.service.mcp_tools import AgentTools

PATIENT = "[retrieve]\ntimeout = 60"
"""On a busy machine it takes seconds to open a store."""
HEAD = """\
project = "{project}"
[source]
url = "sqlite:///source.db"
{extra}
"""
INDEX = """
[[indexes]]
name = "{name}"
table = "{name}"
key = "id"
text = "body"
payload = ["priority", "author", "created_at", "tenant", "number"]
chunk_chars = 120
chunk_overlap = 0
{more}
"""

Row = tuple[Any, str] | tuple[Any, str, dict[str, Any]]

DESK: dict[str, list[Row]] = {
    "comments": [
        (
            1,
            "The printer on floor two is offline since the update",
            {"priority": "high", "number": 1, "author": "ann"},
        ),
        (
            2,
            "The printer prints blank pages",
            {"priority": "low", "number": 2, "created_at": "2024-03-01T10:00:00Z"},
        ),
        (3, "The mailbox is full and no mail arrives", {"priority": "high", "number": 3}),
    ],
    "solutions": [
        (
            1,
            "Install the older printer driver and restart the printer",
            {"priority": "high", "number": 1},
        ),
        (
            2,
            "Reset the password in the directory",
            {"priority": "low", "number": 2.5, "author": "bob"},
        ),
    ],
    "titles": [
        (
            "t-1",
            "Printer offline after update",
            {"priority": "urgent", "number": 10, "author": "ann"},
        ),
        ("t-2", "Cannot log in", {"priority": "low", "number": 20}),
    ],
}


@dataclass
class Desk:
    """A help desk's project.

    `store` is TOML of the store; `more` adds TOML to an index by name; `extra` adds other sections
    than `PATIENT`.
    """

    folder: Path
    store: str = ""
    extra: str = PATIENT
    names: tuple[str, ...] = tuple(DESK)
    more: dict[str, str] = field(default_factory=dict)
    project: str = "desk"
    template: Path | None = None
    """A store that is filled with DESK already, to be copied instead of made."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config = self.folder / "rag-index.toml"
        self.write()

    def write(self, *, extra: str | None = None, **more: str) -> None:
        """Write the settings file again."""
        text = HEAD.format(
            project=self.project, extra=f"{self.store}\n{self.extra if extra is None else extra}"
        )
        for name in self.names:
            text += INDEX.format(name=name, more={**self.more, **more}.get(name, ""))
        self.config.write_text(text, encoding="utf-8")

    @property
    def settings(self) -> Settings:
        return load_settings(self.config, run={"wait": 30})

    def opened(self) -> closing[Store]:
        """Return the store, which leaving a `with` block closes."""
        return closing(open_store(self.settings.store, wait=30))

    def retriever(self, **sections: dict[str, Any]) -> Retriever:
        return Retriever(load_settings(self.config, **{"run": {"wait": 30}, **sections}))

    def fill(
        self, documents: Mapping[str, list[Row]] = DESK, *, number: int = 1, go_live: bool = True
    ) -> Desk:
        """Make collections `…__number` of these documents, by index, with the settings'
        embedder."""
        settings = self.settings
        if self.template and documents is DESK and number == 1 and not settings.store.path.exists():
            settings.store.path.parent.mkdir(parents=True)
            # The engine's files are sparse: without this 400 MB would be written.
            subprocess.run(
                ["cp", "-a", "--sparse=always", self.template, settings.store.path], check=True
            )
            return self
        with self.opened() as store:
            return self.fill_in(store, documents, number=number, go_live=go_live)

    def fill_in(
        self, store: Store, documents=DESK, *, number: int = 1, go_live: bool = True
    ) -> Desk:
        """Fill a store that is open already."""
        settings = self.settings
        with closing(open_embedder(settings.embedder)) as embedder:
            identity = embedder.identity()
            for index, rows in documents.items():
                name, bm25 = self.collection(index, number), bm25_model(settings.index(index))
                described: dict[str, Any] = {
                    "embedder_fingerprint": identity.fingerprint,
                    "embedder": str(identity),
                }
                if bm25:
                    described[BM25] = asdict(bm25)
                store.create(name, identity.dimension, described, sparse=bm25 is not None)
                make_searchable(store.points(name), identity, settings.index(index).indexed_fields)
                chunker = TextChunker(
                    settings.index(index).chunk_chars, settings.index(index).chunk_overlap
                )
                shard = Shard(index, 0, page_of((*row, {})[:3] for row in rows), 0)
                write_shard(
                    store.points(name),
                    EmbedJob(shard, chunker, settings.embedder, identity, bm25).embed(embedder),
                )
                if go_live:
                    store.point_alias(settings.alias(index), name)
        return self

    def collection(self, index: str, number: int = 1) -> str:
        """Return the name of a collection: the project, and with it the alias, is another on a
        shared server."""
        return f"{self.settings.alias(index)}__{number}"

    def point_alias(self, index: str, number: int) -> None:
        """Move an index's alias, as a rebuild or a rollback does."""
        with self.opened() as store:
            store.point_alias(self.settings.alias(index), self.collection(index, number))

    def drop(self, index: str, number: int) -> None:
        with self.opened() as store:
            store.drop(self.collection(index, number))


def found(result: Any) -> list[tuple[str, str]]:
    """Return index and document id of each hit."""
    return [(hit.index, hit.document_id) for hit in result.hits]


def documents(result: Any) -> set[tuple[str, str]]:
    """Return index and document id of the hits, in no order."""
    return set(found(result))


def agent(
    settings: Settings, retriever: Retriever, caller: Caller | None = None
) -> Callable[..., str]:
    """Return a function that calls a tool by its name, as an agent with the rights of `caller`
    does."""
    tools = AgentTools(SearchService(settings, retriever))
    return lambda tool, **given: retriever.run(tools.call(tool, given, caller or Caller()))


def sample(retriever, name, **labels):
    """Return a number of the retriever's metrics, None if there is none."""
    return retriever.metrics().get_sample_value(f"rag_index_{name}", labels)
