"""The pruning of the cache of contexts: what is old and not needed goes, and no more."""

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from rag_index.chunking.context.cache import ContextCache, prune_contexts, recipe_in
from rag_index.documents.canonical import hash_text
from rag_index.errors import LedgerUnavailable

DAY = 86_400.0
ONE = hash_text("one")


class Cache:
    """A cache whose clock a test sets, in days."""

    def __init__(self, url) -> None:
        self.url = url

    def put(self, text: str, *, day: float, recipe: str = "recipe", chunks: int = 1) -> None:
        cache = self._open(recipe, day)
        for number in range(chunks):
            cache.put(hash_text(text), hash_text(str(number)), text)
        cache.close()

    def has(self, text: str, *, recipe: str = "recipe") -> bool:
        cache = self._open(recipe, 0)
        found = cache.known([hash_text(text)])[hash_text(text)]
        cache.close()
        return bool(found)

    def prune(self, *indexed: tuple[str, list[str]], before: float, today: float = 1_000.0) -> int:
        pages = [(recipe, list(map(hash_text, texts))) for recipe, texts in indexed]
        return prune_contexts(self.url, before * DAY, lambda: pages, clock=lambda: today * DAY)

    def _open(self, recipe: str, day: float) -> ContextCache:
        return ContextCache(self.url, recipe, clock=lambda: day * DAY)


@pytest.fixture
def cache(url):
    return Cache(url)


def test_old_contexts_go_unless_they_are_indexed(cache):
    for text in ("unneeded", "indexed"):
        cache.put(text, day=800, chunks=3)
    cache.put("indexed", day=800, recipe="earlier")
    cache.put("new", day=999)
    indexed = ("recipe", ["indexed", "without a context"])
    assert cache.prune(indexed, before=910) == 4
    assert [cache.has(text) for text in ("unneeded", "indexed", "new")] == [False, True, True]
    assert not cache.has("indexed", recipe="earlier"), "of a prompt or a model that no collection has"
    assert cache.prune(before=940) == 0, "what was needed counts as written today"
    assert cache.prune(indexed, before=1_001, today=1_091) == 1
    assert cache.prune(before=1_092) == 3, "it is no longer indexed"


def test_the_ledger_is_read_only_if_something_is_old(cache):
    cache.put("text", day=950)
    read = []
    assert prune_contexts(cache.url, 910 * DAY, lambda: read.append("the ledger") or []) == 0
    assert not read
    assert prune_contexts(cache.url, 951 * DAY, lambda: read.append("the ledger") or []) == 1
    assert read


def test_nothing_goes_if_it_is_not_known_what_is_indexed(cache):
    cache.put("text", day=800)

    def fail():
        yield "recipe", [hash_text("another")]
        raise LedgerUnavailable("down")

    with pytest.raises(LedgerUnavailable):
        prune_contexts(cache.url, 910 * DAY, fail)
    assert cache.has("text")


def test_more_than_a_transaction_deletes(cache, monkeypatch):
    monkeypatch.setattr("rag_index.chunking.context.cache.MAX_ROWS", 10)
    cache.put("text", day=800, chunks=30)
    assert cache.prune(before=910) == 30
    assert cache.prune(before=910) == 0


def test_no_cache_is_made_and_one_that_cannot_be_used_is_left_alone(tmp_path, caplog):
    missing = make_url(f"sqlite:///{tmp_path / 'contexts.db'}")
    assert prune_contexts(missing, 910 * DAY, list) == 0
    assert not list(tmp_path.iterdir())
    engine = sa.create_engine(missing)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE other (id INTEGER)")
    engine.dispose()
    assert prune_contexts(missing, 910 * DAY, list) == 0
    assert not caplog.text
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"not a database at all, but some text" * 100)
    url = make_url(f"sqlite:///{damaged}")
    assert prune_contexts(url, 910 * DAY, list) == 0
    assert "old contexts were not deleted" in caplog.text


def test_the_recipe_in_the_name_of_what_made_the_chunks():
    assert recipe_in("text-1-200-20/context-0123456789abcdef/bm25-1/canonical-3") == "0123456789abcdef"
    assert recipe_in("text-1-200-20/context-0123456789abcdef") == "0123456789abcdef"
    assert recipe_in("text-1-200-20/bm25-1/canonical-3") == ""
