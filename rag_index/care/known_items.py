"""Known items: queries made of a column of the documents. Each should find its own document. A column such as the title
is a query that a person might type. But a text that contains the title is found by it trivially. So samples of the
indexes are indexed without the column, in a store that is thrown away, and searched there."""

from __future__ import annotations

import json
import tempfile
import uuid
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_index.care.benchmark import sample_run, settings_in
from rag_index.components.embedders import identify
from rag_index.components.sources import Sample, read_sample
from rag_index.core.documents.keys import document_id
from rag_index.core.settings.index import SQL
from rag_index.core.settings.parts import split_name
from rag_index.errors import SettingsError
from rag_index.etl.changed import serially
from rag_index.etl.plain import Plainly
from rag_index.etl.publish import publish
from rag_index.etl.run import AllDocuments, index_pages
from rag_index.search.evaluation.golden import GoldenQuery

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rag_index.core.documents.batches import DocumentBatch
    from rag_index.core.settings import IndexSettings, Settings

QUERIES, DOCUMENTS = 200, 5000


@contextmanager
def known_items(settings: Settings, names: Sequence[str], column: str) -> Iterator[tuple[Settings, list[GoldenQuery]]]:
    """Index samples of these indexes without the column; give settings with which they are searched, and the queries.
    The real store and ledger are not opened. One process embeds. Raises SettingsError or SourceError if an index has no
    such column, or nothing else than it to search, and what `pipeline.index_pages` raises."""
    indexes = [without_column(settings.index(name), column) for name in names]
    changed = settings.model_copy(update={"indexes": indexes})
    samples = {index.name: read_sample(changed, index, DOCUMENTS) for index in indexes}
    queries = [one for index in indexes for one in column_queries(index, column, samples[index.name].documents)]
    with tempfile.TemporaryDirectory(prefix="rag-index-evaluate-") as folder:
        temporary = settings_in(Path(folder), changed)
        _index(temporary, samples)
        yield temporary, queries


def _index(settings: Settings, samples: Mapping[str, Sample]) -> None:
    identity = identify(settings.embedder)
    with closing(Plainly(serially(settings))) as steps:
        for name, sample in samples.items():
            with sample_run(settings, name, sample, identity, str(uuid.uuid4())) as run:
                index_pages(run, steps, AllDocuments())
                publish(run)


def without_column(index: IndexSettings, column: str) -> IndexSettings:
    """Return the index with the column in its payload and not in its text, and without a filter that hides documents. A
    template of the text becomes the list of its other columns, and a title with the column is left out. Raises
    SettingsError if the index has no columns, or no other column of text."""
    if index.kind != SQL:
        raise SettingsError(
            f"index {index.name} has kind {index.kind!r} and no columns to make queries of: name other indexes with "
            f"--index"
        )
    texts = [name for name in index.text_columns if name != column]
    title = None if column in index.title_columns else index.title
    if not (texts or title or index.parts):
        raise SettingsError(
            f"the text of index {index.name} is the column {column!r} alone, and nothing is left to be found: "
            f"name another column with --query-column"
        )
    payload = list(dict.fromkeys([*index.payload, column]))
    return index.model_copy(update={"text": texts, "title": title, "payload": payload, "required_filter": {}})


def column_queries(index: IndexSettings, column: str, documents: DocumentBatch) -> list[GoldenQuery]:
    """Return some values of the column as queries, each with the documents that have it. The documents with the
    smallest hashes of their keys are chosen, so that they are the same each time. Raises SettingsError if the column
    has no text."""
    join, name = split_name(column, index.joins)
    payloads = map(json.loads, documents.payloads)
    values: list[Any] = [(payload if join is None else payload[join]).get(name) for payload in payloads]
    texts = [" ".join(value.split()) if isinstance(value, str) else "" for value in values]
    by_text: dict[str, dict[str, int]] = {}
    rows = sorted(range(len(texts)), key=lambda row: blake2b(documents.keys[row].encode(), digest_size=8).digest())
    for row in rows:
        if texts[row]:
            by_text.setdefault(texts[row], {})[document_id(documents.keys[row])] = 1
    if not by_text:
        other = next((value for value in values if value is not None and not isinstance(value, str)), None)
        reason = (
            "is empty in all documents" if other is None else f"holds {type(other).__name__} ({other!r:.40}), not text"
        )
        raise SettingsError(f"index {index.name}: column {column!r} {reason}; name another with --query-column")
    return [GoldenQuery(text, relevant, index.name) for text, relevant in list(by_text.items())[:QUERIES]]
