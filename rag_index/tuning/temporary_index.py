"""Indexes of samples, in an embedded store that is thrown away: for trying what the real ones do not have."""

from __future__ import annotations

import tempfile
import uuid
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from rag_index.embedders import open_embedder
from rag_index.indexing.driver import index_pages
from rag_index.indexing.run import IndexRun, RunOptions
from rag_index.ledger import Ledger
from rag_index.ledger.lease import IndexLease
from rag_index.settings import LedgerSettings
from rag_index.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rag_index.embedders import Embedder
    from rag_index.settings import Settings
    from rag_index.sources import SourcePage
    from rag_index.sources.sample import Sample

__all__ = ["temporary_indexes"]


@contextmanager
def temporary_indexes(settings: Settings, samples: Mapping[str, Sample]) -> Iterator[Settings]:
    """Index samples, by the name of their index, and give settings with which they are searched.

    The real store and ledger are not opened. One process embeds. Raises as `index_pages`.
    """
    with tempfile.TemporaryDirectory(prefix="rag-index-evaluate-") as folder:
        temporary = _in_folder(settings, Path(folder))
        with closing(open_embedder(temporary.embedder)) as embedder:
            for name, sample in samples.items():
                _index(temporary, name, sample, embedder)
        yield temporary


def _index(settings: Settings, name: str, sample: Sample, embedder: Embedder) -> None:
    index, source, run_id = settings.index(name), sample, str(uuid.uuid4())
    with (
        closing(Ledger(settings.ledger_url)) as ledger,
        IndexLease(ledger, settings.alias(name), run_id) as lease,
        closing(open_store(settings.store)) as store,
    ):
        given: dict[str, Any] = {"source": source, "ledger": ledger, "lease": lease, "store": store}
        run = IndexRun(settings, index, RunOptions(), run_id=run_id, **given)
        scan = run.begin(embedder.identity(), run.open_chunker(), workers=1, documents=len(sample.documents))
        index_pages(scan, _pages(sample, settings.source.page_rows), embedder)
        scan.publish()


def _pages(sample: Sample, rows: int) -> Iterator[SourcePage]:
    page = sample.page(None, rows)
    yield page
    while page.cursor is not None:
        page = sample.page(page.cursor, rows)
        yield page


def _in_folder(settings: Settings, folder: Path) -> Settings:
    """Return the settings with everything that is written in this folder, without gates, and without contexts, which
    take long.
    """
    store = settings.store.model_copy(update={"path": folder / "qdrant", "url": None})
    ledger = LedgerSettings(url=SecretStr(f"sqlite:///{folder / 'ledger.db'}"))
    indexes = [index.model_copy(update={"context": None, "gate": None}) for index in settings.indexes]
    return settings.model_copy(update={"store": store, "ledger": ledger, "indexes": indexes})
