"""The cache of contexts: shared by processes, in a file or on a server, written at once, and never an obstacle."""

import threading
import time

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from rag_index.chunking.context.cache import ContextCache, cache_url, contexts
from rag_index.documents.canonical import hash_text

DOCUMENT, ANOTHER, ONE, TWO = map(hash_text, ("document", "another", "one", "two"))


def known(cache):
    return cache.known([DOCUMENT])[DOCUMENT]


@pytest.fixture
def cache(url):
    cache = ContextCache(url, "recipe")
    yield cache
    cache.close()


def test_a_written_context_is_known_to_others(cache, url):
    assert known(cache) == {}
    cache.put(DOCUMENT, ONE, "first")
    cache.put(DOCUMENT, TWO, "sécond 漢字")
    cache.put(ANOTHER, ONE, "other")
    other = ContextCache(url, "recipe")
    assert known(other) == {ONE: "first", TWO: "sécond 漢字"}
    assert other.known([ANOTHER, hash_text("none")]) == {ANOTHER: {ONE: "other"}, hash_text("none"): {}}
    other.close()


def test_a_table_that_another_process_creates_at_the_same_moment_is_found(postgres):
    with postgres.database() as name:
        url = postgres.url(name)
        engine, cache, found = sa.create_engine(url), ContextCache(url, "recipe"), []
        with engine.connect() as connection:
            connection.execute(sa.schema.CreateTable(contexts))
            reader = threading.Thread(target=lambda: found.append(known(cache)))
            reader.start()
            time.sleep(0.5)
            connection.commit()
        reader.join(timeout=30)
        cache.put(DOCUMENT, ONE, "first")
        assert found == [{}]
        assert known(cache) == {ONE: "first"}
        cache.close()
        engine.dispose()


def test_the_cache_is_beside_the_ledger_or_in_its_database():
    assert cache_url(make_url("sqlite:////a/b/ledger.db")).database == "/a/b/contexts.db"
    server = make_url("postgresql+psycopg://me:s3cret@host/ledger")
    assert cache_url(server) == server


def test_a_database_that_cannot_be_used_is_warned_about_once_without_its_password(caplog):
    cache = ContextCache(make_url("postgresql+psycopg://me:s3cret@127.0.0.1:9/none"), "recipe")
    assert known(cache) == {}
    cache.put(DOCUMENT, ONE, "context")
    assert caplog.text.count("contexts are not kept for the next run") == 1
    assert "127.0.0.1:9/none" in caplog.text
    assert "s3cret" not in caplog.text
