"""What holds documents shows sizes: Prefect and Dask write the `repr` of what they are given into
their logs."""

import dataclasses
import pickle

import attrs
import numpy as np
import pytest

from rag_index.components.chunking.context import ContextRequest, DividedText
from rag_index.components.hosts.host_call import Batch
from rag_index.components.ledger import FailedDocument
from rag_index.components.sources import Sample, SourcePage
from rag_index.components.sources.pages import DocumentParts
from rag_index.components.sources.sql import Cursor
from rag_index.core.documents import batches
from rag_index.core.documents.batches import (
    ChunkedDocument,
    DocumentBatch,
    EmbeddedShard,
    Failure,
    Shard,
    TextPart,
)
from rag_index.core.documents.work import Work
from rag_index.etl.commit import CommitPlan, DocumentRow, FailedWrite, PayloadChange, StaleChunks
from rag_index.etl.diff import PageDiff
from rag_index.etl.embed import EmbedJob

WORD = "measles"
COUNTS = {"Work", "Work | None", "CommitMark"}
"""Classes with numbers and times alone."""
SETTINGS = {"index", "id", "kind", "pages"}
"""Fields that name an index, a point, a kind, or the numbers of pages."""
ELSEWHERE = [
    Batch,
    CommitPlan,
    ContextRequest,
    Cursor,
    DividedText,
    DocumentParts,
    DocumentRow,
    EmbedJob,
    FailedDocument,
    FailedWrite,
    PageDiff,
    PayloadChange,
    Sample,
    SourcePage,
    StaleChunks,
]
HOLDS_TEXT = ("str", "bytes", "list", "dict", "Any", "Mapping", "Sequence", "Callable", "NDArray")


def fields_of(found: type) -> dict[str, str]:
    """Return the annotation of each field."""
    if dataclasses.is_dataclass(found):
        return {field.name: str(field.type) for field in dataclasses.fields(found)}
    if attrs.has(found):
        return {field.name: str(field.type) for field in attrs.fields(found)}
    return {name: str(found.__annotations__[name]) for name in getattr(found, "_fields", ())}


def classes_of_batches() -> list[type]:
    own = [
        one
        for one in vars(batches).values()
        if isinstance(one, type) and one.__module__ == batches.__name__
    ]
    return [one for one in own if fields_of(one) and one.__name__ not in COUNTS]


@pytest.mark.parametrize(
    "found", [*classes_of_batches(), *ELSEWHERE], ids=lambda found: found.__name__
)
def test_the_repr_has_no_value_of_a_field_that_may_hold_a_text(found):
    annotations = fields_of(found)
    planted = {
        name for name, kind in annotations.items() if any(word in kind for word in HOLDS_TEXT)
    } - SETTINGS
    # "documents" and "shard" hold one of these classes, whose own `repr` is tried by itself
    planted -= {name for name in planted if annotations[name] in ("DocumentBatch", "Shard")}
    values = {name: WORD if name in planted else 7 for name in annotations}
    if issubclass(found, tuple):
        one = found(*values.values())
    else:
        one = object.__new__(found)
        for name, value in values.items():
            object.__setattr__(one, name, value)
    assert planted or found in (Batch, Sample, Shard)
    for shown in (repr(one), str(one), f"{[one]} {(one,)} { {'job': one} }"):
        assert WORD not in shown
        assert found.__name__ in shown


def a_job() -> EmbedJob:
    part = TextPart(0, 9, WORD, WORD, WORD, {WORD: WORD})
    layout = batches.TextLayout(WORD, 9, [part], WORD, WORD).encode()
    documents = DocumentBatch(
        [f'["{WORD}"]'], [WORD], [f'{{"a": "{WORD}"}}'.encode()], [b"1"], [b"2"], [layout]
    )
    shard = Shard("desk", 3, documents, 7, (1,))
    return EmbedJob(shard, None, None, None, known={WORD: np.ones(3, np.float32)})


def test_what_goes_to_a_worker_and_back_shows_index_number_and_sizes():
    job = a_job()
    documents = job.shard.documents
    chunked = [ChunkedDocument([WORD], [WORD], [f'{{"b": "{WORD}"}}'.encode()], WORD)]
    failures = [Failure(documents.keys[0], WORD)]
    shard = EmbeddedShard(
        "desk", 3, documents, chunked, np.ones((1, 3), np.float32), failures, Work()
    )
    page = SourcePage(
        documents, Cursor((WORD,)), failures, [WORD], {WORD: WORD}, None, {WORD: [WORD]}
    )
    for one in (job, shard, page):
        assert WORD not in repr(one)
        assert WORD not in repr(pickle.loads(pickle.dumps(one)))  # on the other side, too
        assert WORD in str(pickle.dumps(one))
    assert "Shard(index='desk', number=3, documents=DocumentBatch(keys: 1, " in repr(job)
    assert "vectors: 1" in repr(shard)
