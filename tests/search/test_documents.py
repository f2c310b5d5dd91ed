"""Documents read by their id: whole, in order, and only those that searches may find."""

import asyncio

import pytest

from rag_index.errors import DocumentNotFound, SettingsError, StoreError, UnknownIndex

LONG = " ".join(f"Sentence number {number} of a long comment about a printer." for number in range(40))
ODD = ["a/b c", "ünï", "007", "7", '["x"]', "[1,2]", "%2F", "…"]
ROWS = {
    "comments": [(1, LONG, {"priority": "high"}), (7, "A short one", {"priority": "low"})],
    "titles": [(key, f"The title of {key}") for key in ODD],
}


@pytest.fixture
def desk(blank):
    return blank.fill(ROWS)


def read(retriever, *where):
    return asyncio.run(retriever.document(*where))


def test_every_document_that_a_search_gives_can_be_read_with_all_its_chunks_in_order(desk):
    with desk.retriever() as retriever:
        found = read(retriever, "comments", "1")
        assert [chunk.chunk for chunk in found.chunks] == list(range(len(found.chunks)))
        assert len(found.chunks) > 10
        assert " ".join(chunk.text for chunk in found.chunks) == LONG
        assert found.payload == {"priority": "high"}
        hits = retriever.search_sync("title", indexes=["titles"], limit=50, dense_weight=1).hits
        assert {hit.document_id for hit in hits} == set(ODD)
        for hit in hits:
            assert [chunk.text for chunk in read(retriever, hit.index, hit.document_id).chunks] == [hit.text]


def test_what_is_not_there_is_not_found_and_an_index_that_is_empty_or_unknown_is_named(desk):
    desk.write(comments='required_filter = { priority = "high" }')
    with desk.retriever() as retriever:
        assert read(retriever, "comments", "1").chunks
        for missing in ("7", "2", "01", "1.0", " 1", "", '"1"', "a", "\ud800", "1" * 5000):
            with pytest.raises(DocumentNotFound, match="index comments has no document"):
                read(retriever, "comments", missing)
        with pytest.raises(StoreError, match="rag-index index solutions"):
            read(retriever, "solutions", "1")
        with pytest.raises(UnknownIndex, match="did you mean 'titles'"):
            read(retriever, "title", "1")


def test_a_key_of_several_columns_needs_all_of_them(embedded):
    text = embedded.config.read_text().replace('key = "id"', 'key = ["site", "id"]', 1)
    embedded.config.write_text(text)
    with embedded.retriever() as retriever:
        for given in ("1", "[" * 100_000):
            with pytest.raises(SettingsError, match="not a JSON array of 2 values"):
                read(retriever, "comments", given)
        with pytest.raises(DocumentNotFound):
            read(retriever, "comments", '["1",1]')
