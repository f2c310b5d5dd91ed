"""Shards: no document lost or doubled, each worth its seconds, and no worker idle at the end."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_index.documents.batches import DocumentBatch
from rag_index.indexing.sharding import MAX_CHARS, MEASURABLE_CHARS, MIN_SECONDS, Sharder, parts_of, poison
from rag_index.settings.sections import ParallelSettings

MAX = ParallelSettings().max_shard_documents


def page_of(texts, first=0):
    keys = [str(first + i) for i in range(len(texts))]
    return DocumentBatch(
        keys, list(texts), [f"p{k}".encode() for k in keys], [f"t{k}".encode() for k in keys], [b"h"] * len(keys)
    )


def sharder(*, documents=None, seconds=5.0, rate=1000.0, workers=2):
    given = ParallelSettings(shard_documents=documents or "auto", shard_seconds=seconds)
    return Sharder("notes", given, chars_per_second=rate, workers=workers)


def shards_of(made, pages, *, total=None):
    """All shards of these pages, as a run asks for them; with a total, what is to come is said."""
    shards, seen = [], 0
    for texts in pages:
        page = page_of(texts, seen)
        seen += len(texts)
        if total is not None:
            made.expect(total - seen)
        shards += made.add(page)
    return [*shards, *made.rest()]


def test_the_number_of_shards_is_known_as_soon_as_it_can_be():
    made = sharder(documents=20)
    made.expect(30, all_new=True)  # a first run: everything that follows has to be embedded
    assert [shard.number for shard in made.add(page_of(["text"] * 50))] == [1, 2]
    assert made.total == 4
    made = sharder(documents=20)
    made.expect(30)
    assert len(list(made.add(page_of(["text"] * 50)))) == 2
    assert made.total is None, "nobody knows how many of the others have changed"
    assert (len(list(made.rest())), made.total) == (1, 3)


pages = st.lists(st.lists(st.integers(0, 3000).map("x".__mul__), max_size=12), max_size=10)


@settings(deadline=None)
@given(pages, st.none() | st.integers(1, 7), st.integers(1, 5), st.sampled_from([1.0, 500.0, 1e9]), st.booleans())
def test_every_document_is_in_one_shard_with_all_its_columns(pages, documents, workers, rate, told):
    total = sum(map(len, pages)) if told else None
    shards = shards_of(sharder(documents=documents, rate=rate, workers=workers), pages, total=total)
    assert [key for shard in shards for key in shard.documents.keys] == [str(i) for i in range(sum(map(len, pages)))]
    assert [text for shard in shards for text in shard.documents.texts] == [text for page in pages for text in page]
    assert [shard.number for shard in shards] == list(range(1, len(shards) + 1))
    for shard in shards:
        assert shard.index == "notes"
        assert len(shard.documents) > 0
        assert shard.chars == sum(map(len, shard.documents.texts))
        assert shard.documents.payloads == [f"p{key}".encode() for key in shard.documents.keys]
        assert shard.documents.text_hashes == [f"t{key}".encode() for key in shard.documents.keys]
        assert len(shard.documents.payload_hashes) == len(shard.documents)


@settings(deadline=None)
@given(pages, st.integers(1, 9))
def test_a_fixed_size_is_kept_whatever_was_measured(pages, documents):
    made = sharder(documents=documents, rate=1.0)
    made.observe(1000, 0.001)
    sizes = [len(shard.documents) for shard in shards_of(made, pages)]
    assert all(size == documents for size in sizes[:-1])
    assert all(0 < size <= documents for size in sizes[-1:])


def test_shards_are_worth_their_seconds_by_the_measured_rate():
    made = sharder(seconds=5, rate=100)
    assert [shard.chars for shard in made.add(page_of(["x" * 100] * 10))] == [500, 500]
    made.observe(20_000, 10)
    assert made.chars_per_second == 2000
    assert [shard.chars for shard in made.add(page_of(["x" * 100] * 250))] == [10_000, 10_000]
    made.observe(10_000, 10)
    assert 1000 < made.chars_per_second < 2000, "one slow shard does not decide alone"


def test_measures_that_say_nothing_change_nothing():
    made = sharder(rate=100)
    made.observe(0, 1.0)
    made.observe(100, 0.0)
    made.observe(100, -1.0)
    assert made.chars_per_second == 100


def test_a_small_shard_that_took_long_says_nothing_of_the_embedder():
    made = sharder(rate=50_000)
    made.observe(40, 3.0)  # most of it for loading a model
    assert made.chars_per_second == 50_000
    made.observe(40, 0.0001)
    assert made.chars_per_second == 400_000, "a small shard can show that the embedder is faster"
    made.observe(MEASURABLE_CHARS, 1.0)
    assert made.chars_per_second < 400_000, "one of some size can show that it is slower"


def test_shards_are_bounded_however_fast_the_embedder_is():
    made = sharder(rate=1e12)
    shards = list(made.add(page_of(["x"] * (MAX + 10))))
    assert [len(shard.documents) for shard in shards] == [MAX]
    long = "x" * (MAX_CHARS // 4)
    assert [len(shard.documents) for shard in sharder(rate=1e12).add(page_of([long] * 9))] == [4, 4]


def test_one_document_longer_than_a_shard_is_a_shard():
    assert [len(shard.documents) for shard in sharder(rate=10).add(page_of(["x" * 1000] * 3))] == [1, 1, 1]


def test_a_small_change_is_one_shard():
    assert len(shards_of(sharder(rate=1000), [["x" * 100] * 5])) == 1
    assert shards_of(sharder(), []) == []
    assert shards_of(sharder(), [[]]) == []


def makespan(shards, workers, rate):
    """Seconds until the last worker is done, each taking the next shard when it is free."""
    free = [0.0] * workers
    for shard in shards:
        heapq.heappush(free, heapq.heappop(free) + shard.chars / rate)
    return max(free)


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 15])
@pytest.mark.parametrize("seconds_of_work", [6, 30, 100, 400])
@pytest.mark.parametrize("told", [True, False])
def test_no_worker_idles_long_at_the_end(workers, seconds_of_work, told):
    """Shards get smaller as the end comes: the whole takes little more than the work shared out evenly."""
    rate, chars = 1000.0, 100
    count = int(seconds_of_work * workers * rate / chars)
    texts = ["x" * chars] * count
    given = [texts[first : first + 500] for first in range(0, count, 500)]
    shards = shards_of(sharder(rate=rate, workers=workers), given, total=count if told else None)
    ideal = seconds_of_work
    worst = 2.0 * MIN_SECONDS if told else 5.0
    assert makespan(shards, workers, rate) <= ideal + worst
    assert all(shard.chars <= 5 * rate + chars for shard in shards)
    if told:
        small = sum(shard.chars < MIN_SECONDS * rate for shard in shards)
        assert small <= 1, "shards that cost more than they are worth"


def test_what_is_left_is_shared_by_all_workers():
    """Nobody said how much is to come, and then it ends: what waits is not one shard for one worker."""
    made = sharder(rate=1000, workers=4)
    assert list(made.add(page_of(["x" * 100] * 49))) == []
    shards = list(made.rest())
    assert len(shards) >= 4
    assert makespan(shards, 4, 1000) <= 2.0


def test_the_end_that_was_told_wrongly_loses_nothing():
    """Rows came and went since they were counted."""
    for told in (0, 3, 1000):
        made = sharder(rate=1000, workers=3)
        made.expect(told)
        shards = [*made.add(page_of(["x" * 100] * 90)), *made.rest()]
        assert sum(len(shard.documents) for shard in shards) == 90


@pytest.mark.parametrize("count", [1, 7, 8, 9, 100])
def test_a_shard_in_parts_is_the_same_documents(count):
    (shard,) = sharder(documents=count).add(page_of(["x" * i for i in range(count)]))
    parts = parts_of(shard)
    assert len(parts) <= 8
    assert [key for part in parts for key in part.documents.keys] == shard.documents.keys
    assert sum(part.chars for part in parts) == shard.chars
    assert {(part.index, part.number) for part in parts} == {("notes", 1)}


def test_a_poison_shard_names_each_document():
    (shard,) = sharder(documents=3).add(page_of(["a", "b", "c"]))
    embedded = poison(shard)
    assert [(failure.key, failure.text_hash) for failure in embedded.failures] == [
        ("0", b"t0"),
        ("1", b"t1"),
        ("2", b"t2"),
    ]
    assert (len(embedded.documents), embedded.chunks, len(embedded.vectors)) == (0, [], 0)


def test_settings_bound_the_documents_of_a_shard():
    def sizes(count: int, chars: int, **bounds: int) -> list[int]:
        sharder = Sharder("n", ParallelSettings(shard_seconds=1.0, **bounds), chars_per_second=1000.0, workers=1)
        sharder.expect(10**6)
        return [len(shard.documents) for shard in [*sharder.add(page_of(["x" * chars] * count)), *sharder.rest()]][:3]

    assert sizes(100, 500) == [2, 2, 2]
    assert sizes(100, 500, min_shard_documents=30) == [30, 30, 30]
    assert sizes(100, 10, max_shard_documents=20) == [20, 20, 20]
    assert sizes(20, MAX_CHARS // 2, min_shard_documents=5) == [2, 2, 2], "never more than memory has room for"
