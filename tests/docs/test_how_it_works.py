"""docs/how-it-works.md: payload, metadata and tables are those of the code. Numbers on any page are, too."""

import re

import numpy as np
import pytest

from rag_index.components.chunking.text_chunker import TextChunker
from rag_index.components.embedders import EmbedderIdentity
from rag_index.components.embedders.bm25 import Bm25Model
from rag_index.components.hosts import host_pool
from rag_index.components.ledger import runs, tables
from rag_index.components.stores.edge import store as edge_store
from rag_index.components.stores.server import server_collection as server
from rag_index.core.documents.batches import RESERVED_KEY, ChunkedDocument, DocumentBatch, EmbeddedShard, ShardStats
from rag_index.etl import deletes, publish
from rag_index.etl.collection import CollectionMaker
from rag_index.etl.commit import batches
from rag_index.etl.opened import RunOptions, open_index
from tests.docs.pages import code, page, section, table
from tests.project import Project

PAGE = page("how-it-works")


def test_the_payload_of_a_point_is_as_documented():
    documents = DocumentBatch(["7"], ["text"], [b'{"_rag":{"groups":["staff"]},"author":"kim"}'], [b"t"], [b"p"])
    vectors = np.ones((1, 2), dtype=np.float32)
    (batch,) = batches(EmbeddedShard("notes", 1, documents, [ChunkedDocument(["text"])], vectors, [], ShardStats()))
    documented = [code(row[0]) for row in table(section(PAGE, "## Keys and points"), f"key in `{RESERVED_KEY}`")]
    assert set(batch.payloads[0]) == {"author", RESERVED_KEY}
    assert sorted(documented) == sorted(batch.payloads[0][RESERVED_KEY])


def test_the_metadata_of_a_collection_is_as_documented(tmp_path):
    settings = Project(tmp_path / "project").settings
    identity = EmbedderIdentity("local", "wordllama", "digest", 4)
    with open_index(settings, "notes", RunOptions(), run_id="documented") as opened:
        collection = CollectionMaker(opened, identity, TextChunker(100, 10), Bm25Model("english")).current()
        metadata = opened.store.collections()[collection.name]
    (documented,) = re.findall(r"^A collection has .*metadata.*", section(PAGE, "## Keys and points"), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", documented)) == metadata.keys()
    assert collection.name == "test_notes__1"


def test_the_tables_of_the_ledger_begin_as_documented():
    (prefix,) = re.findall(r"tables begin with `(\w+)`", section(PAGE, "## The ledger"))
    assert all(name.startswith(prefix) for name in tables.metadata.tables)


NUMBERS = [
    ("how-it-works", "for five nights with the same text"),
    ("how-it-works", f"a lease of {runs.LEASE_SECONDS:.0f} s, which the run renews every {runs.RENEW_SECONDS:.0f} s"),
    ("how-it-works", f"{publish.VERIFIED_SAMPLE} sampled documents"),
    ("how-it-works", f"more than {deletes.UNGUARDED_DELETES} documents"),
    ("troubleshooting", f"fewer than {edge_store.MIN_FREE // 1024**2} MB are free"),
    ("servers", f"{server.REQUEST_POINTS}, at most {server.BATCH_BYTES // 10**6} MB"),
    ("servers", f"rests for {host_pool.FIRST_REST:.0f} s, doubled each time, up to {host_pool.MAX_REST:.0f} s"),
]


@pytest.mark.parametrize(("name", "words"), NUMBERS, ids=[words for _, words in NUMBERS])
def test_numbers_are_those_of_the_code(name, words):
    assert words in page(name)
