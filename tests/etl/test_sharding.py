"""Shards: no document lost or doubled, each worth its seconds, and no worker idle at the end."""

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_index.core.documents.batches import DocumentBatch
from rag_index.core.settings import IndexSettings
from rag_index.etl.sharding import (
    MAX_DOCUMENTS,
    MAX_SHARD_CHARS,
    MIN_SHARD_SECONDS,
    WINDOW_BYTES,
    Sharder,
    first_rate,
    shard_limits,
)

pages = st.lists(st.lists(st.integers(0, 3000).map("x".__mul__), max_size=12), max_size=10)


def page_of(texts, first=0):
    keys = [str(first + i) for i in range(len(texts))]
    payloads, hashes = ([f"{kind}{key}".encode() for key in keys] for kind in "pt")
    return DocumentBatch(keys, list(texts), payloads, hashes, [b"h"] * len(keys))


def sharder(*, documents="auto", rate=1000.0, workers=2):
    return Sharder("notes", documents, chars_per_second=rate, workers=workers)


def shards_of(made, pages, *, total=None):
    """All shards of these pages, as a run asks for them; with a total, what is to come is said."""
    shards, seen = [], 0
    for number, texts in enumerate(pages, 1):
        page = page_of(texts, seen)
        seen += len(texts)
        if total is not None:
            made.expect(max(0, total - seen))
        shards += made.add(page, number)
    return [*shards, *made.rest()]


def sizes(made, count, chars):
    """How many documents the shards of so many documents of this length have."""
    return [len(shard.documents) for shard in made.add(page_of(["x" * chars] * count))]


def test_where_much_is_to_come_the_first_shards_are_smaller_for_each_worker():
    made = sharder(workers=2)
    made.begin_small()
    assert sizes(made, 200, 100)[:12] == [3, 3, 5, 5, 10, 10, 20, 20, 40, 40]
    assert set(sizes(made, 150_000, 100)) == {50}, "for thousands of shards"
    assert sizes(sharder(), 200, 100) == [50] * 4, "others have all of their seconds"


@settings(deadline=None)
@given(
    pages,
    st.just("auto") | st.integers(1, 7),
    st.integers(1, 5),
    st.sampled_from([1.0, 500.0, 1e9]),
    st.sampled_from([None, 0, -20, 300]),
)
def test_every_document_is_in_one_shard_with_all_its_columns(
    pages, documents, workers, rate, wrong
):
    """Rows may come and go after they were counted: what is told of the end is `wrong` by so
    many."""
    total = None if wrong is None else sum(map(len, pages)) + wrong
    shards = shards_of(sharder(documents=documents, rate=rate, workers=workers), pages, total=total)
    assert [key for shard in shards for key in shard.documents.keys] == [
        str(i) for i in range(sum(map(len, pages)))
    ]
    assert [text for shard in shards for text in shard.documents.texts] == [
        text for page in pages for text in page
    ]
    assert [shard.number for shard in shards] == list(range(1, len(shards) + 1))
    if documents != "auto":
        assert all(len(shard.documents) == documents for shard in shards[:-1]), (
            "a fixed size is kept"
        )
    page_of_key = {
        str(key): number
        for key, number in enumerate(n for n, page in enumerate(pages, 1) for _ in page)
    }
    for shard in shards:
        assert shard.index == "notes"
        assert set(shard.pages) == {page_of_key[key] for key in shard.documents.keys}
        assert len(shard.documents) > 0
        assert shard.chars == sum(map(len, shard.documents.texts))
        assert shard.documents.payloads == [f"p{key}".encode() for key in shard.documents.keys]
        assert shard.documents.text_hashes == [f"t{key}".encode() for key in shard.documents.keys]
        assert len(shard.documents.payload_hashes) == len(shard.documents)


def test_shards_are_bounded_however_fast_the_embedder_is():
    assert sizes(sharder(rate=1e12), MAX_DOCUMENTS + 10, 1) == [MAX_DOCUMENTS]
    assert sizes(sharder(rate=1e12), 9, MAX_SHARD_CHARS // 4) == [4, 4]
    assert sizes(sharder(rate=10), 3, 1000) == [1, 1, 1], (
        "one document longer than a shard is a shard"
    )


@pytest.mark.parametrize("workers", [1, 2, 7, 15])
@pytest.mark.parametrize("seconds_of_work", [6, 30, 400])
@pytest.mark.parametrize("told", [True, False])
def test_no_worker_idles_long_at_the_end(workers, seconds_of_work, told):
    """Shards get smaller as the end comes: the whole takes little more than the work shared out
    evenly."""
    rate, chars = 1000.0, 100
    count = int(seconds_of_work * workers * rate / chars)
    texts = ["x" * chars] * count
    given = [texts[first : first + 500] for first in range(0, count, 500)]
    shards = shards_of(sharder(rate=rate, workers=workers), given, total=count if told else None)
    free = [0.0] * workers  # when each is; it then takes the next shard
    for shard in shards:
        heapq.heappush(free, heapq.heappop(free) + shard.chars / rate)
    assert max(free) <= seconds_of_work + (2.0 * MIN_SHARD_SECONDS if told else 5.0)
    assert all(shard.chars <= 5 * rate + chars for shard in shards)
    small = sum(shard.chars < MIN_SHARD_SECONDS * rate for shard in shards)
    assert not told or small <= 1, "shards that cost more than they are worth"


@pytest.mark.parametrize("workers", [1, 4, 15])
@pytest.mark.parametrize("dimension", [256, 768, 4096])
@pytest.mark.parametrize(("chars", "count"), [(40, 60_000), (900, 20_000), (20_000, 3000)])
def test_the_vectors_of_all_shards_under_way_fit_into_memory(workers, dimension, chars, count):
    index = IndexSettings(name="notes", table="note", key="id", text=["body"])
    made = Sharder(
        "notes",
        "auto",
        chars_per_second=1e9,
        workers=workers,
        limits=shard_limits(index, dimension, workers),
    )
    step = index.chunk_chars - index.chunk_overlap
    for shard in made.add(page_of(["x" * chars] * count)):
        assert (
            4 * workers * len(shard.documents) * -(-chars // step) * dimension * 4
            <= WINDOW_BYTES * 1.1
        )


def test_a_document_that_ends_the_embedding_server_is_a_shard_of_its_own_and_of_its_page():
    made = sharder(documents=3)
    made.ends_server = {"2", "6"}
    made.suspects = {"2", "6"}
    batches = [
        page_of([f"text {number}" for number in range(first, first + 5)], first) for first in (0, 5)
    ]
    shards = [
        shard for page, batch in enumerate(batches, 1) for shard in made.add(batch, page)
    ] + made.rest()
    alone = [shard for shard in shards if shard.ends_server]
    assert [(one.documents.keys, one.documents.texts, one.pages) for one in alone] == [
        (["2"], ["text 2"], (1,)),
        (["6"], ["text 6"], (2,)),
    ]
    assert all(shard.suspect for shard in alone)
    others = [shard for shard in shards if not shard.ends_server]
    assert [key for shard in others for key in shard.documents.keys] == [
        "0",
        "1",
        "3",
        "4",
        "5",
        "7",
        "8",
        "9",
    ]
    assert not any(shard.suspect for shard in others)
    assert [shard.pages for shard in others] == [(1,), (1, 2), (2,)]
    assert len({shard.number for shard in shards}) == len(shards)


def test_before_anything_was_measured_a_large_model_is_taken_to_be_slow():
    large, small = (
        first_rate("fastembed", name)
        for name in ("intfloat/multilingual-e5-large", "all-MiniLM-L6-v2")
    )
    assert 200 < large < 2_000
    assert 10_000 < small < 50_000
    assert first_rate("local", "wordllama") > small
    assert first_rate("ollama", "nomic-embed-text") == first_rate("plugin", "mine")
