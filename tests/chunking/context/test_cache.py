"""The cache of contexts: shared by processes, in a file or on a server, written at once, and never an obstacle."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from rag_index.chunking.context.cache import ContextCache, cache_url, contexts
from rag_index.documents.canonical import hash_text

ROOT = Path(__file__).parents[2]
DOCUMENT, ONE, TWO = hash_text("document"), hash_text("one"), hash_text("two")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        yield make_url(f"sqlite:///{tmp_path / 'folder' / 'contexts.db'}")
        return
    postgres = request.getfixturevalue("postgres")
    with postgres.database() as name:
        yield postgres.url(name)


@pytest.fixture
def cache(url):
    cache = ContextCache(url, "recipe")
    yield cache
    cache.close()


def test_a_written_context_is_known_to_others(cache, url):
    assert cache.known(DOCUMENT) == {}
    cache.put(DOCUMENT, ONE, "first")
    cache.put(DOCUMENT, TWO, "sécond 漢字")
    cache.put(hash_text("another"), ONE, "other")
    other = ContextCache(url, "recipe")
    assert other.known(DOCUMENT) == {ONE: "first", TWO: "sécond 漢字"}
    other.close()


def test_an_existing_context_is_not_replaced(cache):
    cache.put(DOCUMENT, ONE, "first")
    cache.put(DOCUMENT, ONE, "another")
    assert cache.known(DOCUMENT) == {ONE: "first"}


def test_recipes_do_not_share_contexts(cache, url):
    cache.put(DOCUMENT, ONE, "first")
    other = ContextCache(url, "another recipe")
    assert other.known(DOCUMENT) == {}
    other.put(DOCUMENT, ONE, "second")
    assert (other.known(DOCUMENT), cache.known(DOCUMENT)) == ({ONE: "second"}, {ONE: "first"})
    other.close()


WRITES = """
import sys
from sqlalchemy.engine import make_url
from rag_index.chunking.context.cache import ContextCache
from rag_index.documents.canonical import hash_text
cache = ContextCache(make_url(sys.argv[1]), "recipe")
print("ready", flush=True)
sys.stdin.readline()
for number in range(100):
    cache.put(hash_text("document"), hash_text(f"{sys.argv[2]} {number}"), "context")
    cache.put(hash_text("document"), hash_text(f"same {number}"), "context")
print(len(cache.known(hash_text("document"))))
"""


def test_processes_write_side_by_side_from_the_first_moment(cache, url):
    whole_url = url.render_as_string(hide_password=False)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITES, whole_url, name],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b", "c")
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:  # now all of them create the table at once
        writer.stdin.write("go\n")
        writer.stdin.flush()
    ended = [writer.communicate(timeout=60) for writer in writers]
    assert [error for _, error in ended] == [""] * 3
    assert len(cache.known(DOCUMENT)) == 400


def test_a_table_that_another_process_creates_at_the_same_moment_is_found(postgres):
    with postgres.database() as name:
        url = postgres.url(name)
        engine, cache, found = sa.create_engine(url), ContextCache(url, "recipe"), []
        with engine.connect() as connection:
            connection.execute(sa.schema.CreateTable(contexts))
            reader = threading.Thread(target=lambda: found.append(cache.known(DOCUMENT)))
            reader.start()
            time.sleep(0.5)
            connection.commit()
        reader.join(timeout=30)
        cache.put(DOCUMENT, ONE, "first")
        assert found == [{}]
        assert cache.known(DOCUMENT) == {ONE: "first"}
        cache.close()
        engine.dispose()


def test_the_cache_is_beside_the_ledger_or_in_its_database():
    assert cache_url(make_url("sqlite:////a/b/ledger.db")).database == "/a/b/contexts.db"
    server = make_url("postgresql+psycopg://me:s3cret@host/ledger")
    assert cache_url(server) == server


def test_a_database_that_cannot_be_used_is_warned_about_once_without_its_password(caplog):
    cache = ContextCache(make_url("postgresql+psycopg://me:s3cret@127.0.0.1:9/none"), "recipe")
    assert cache.known(DOCUMENT) == {}
    cache.put(DOCUMENT, ONE, "context")
    assert caplog.text.count("contexts are not kept for the next run") == 1
    assert "127.0.0.1:9/none" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_damaged_file_is_warned_about(tmp_path, caplog):
    (tmp_path / "contexts.db").write_bytes(b"not a database at all, but some text" * 100)
    cache = ContextCache(make_url(f"sqlite:///{tmp_path / 'contexts.db'}"), "recipe")
    assert cache.known(DOCUMENT) == {}
    cache.put(DOCUMENT, ONE, "context")
    assert caplog.text.count("contexts are not kept for the next run") == 1
