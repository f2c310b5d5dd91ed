"""The contexts that the ledger has: known to other processes as soon as they are written, and never an obstacle."""

import pytest
from sqlalchemy.engine import make_url

from rag_index.chunking.context.writer import ContextCache
from rag_index.documents.canonical import hash_text

DOCUMENT, ANOTHER, ONE, TWO = map(hash_text, ("document", "another", "one", "two"))


def known(cache):
    return cache.known([DOCUMENT])[DOCUMENT]


def test_a_written_context_is_known_to_others(url):
    cache, other = ContextCache(url, "recipe"), ContextCache(url, "recipe")
    assert known(cache) == {}
    cache.put(DOCUMENT, ONE, "first")
    cache.put(DOCUMENT, TWO, "sécond 漢字")
    cache.put(ANOTHER, ONE, "other")
    assert known(other) == {ONE: "first", TWO: "sécond 漢字"}
    cache.close()
    other.close()


@pytest.mark.parametrize("url", ["postgresql+psycopg://me:s3cret@127.0.0.1:9/none", "sqlite:////nowhere/ledger.db"])
def test_a_ledger_that_cannot_be_used_is_warned_about_once_without_its_password(caplog, url):
    cache = ContextCache(make_url(url), "recipe")
    assert known(cache) == {}
    cache.put(DOCUMENT, ONE, "context")
    assert caplog.text.count("contexts are not kept for the next run") == 1
    assert "127.0.0.1:9/none" in caplog.text or "there is no /nowhere/ledger.db on this machine" in caplog.text
    assert "s3cret" not in caplog.text
