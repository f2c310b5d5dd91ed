"""The cache of query vectors."""

from __future__ import annotations

import numpy as np

from rag_index.retrieve.query_model import QueryCache, query_key

VECTOR = np.ones(3, np.float32)


def key(n: object):
    return query_key("model", str(n))


def test_a_key_is_model_and_text():
    assert query_key("a", "text") == query_key("a", "text")
    assert len({query_key("a", "text"), query_key("b", "text"), query_key("a", "text "), query_key("a", "\ud800")}) == 4


def test_vectors_expire_and_use_does_not_keep_them():
    now = [0.0]
    cache = QueryCache(2, 60, clock=lambda: now[0])
    cache.put(key(1), VECTOR)
    now[0] = 59
    assert cache.get(key(1)) is VECTOR
    now[0] = 61
    assert cache.get(key(1)) is None
    assert len(cache) == 0
    cache.put(key(1), VECTOR)
    assert cache.get(key(1)) is VECTOR


def test_size_zero_turns_the_cache_off():
    cache = QueryCache(0, 60)
    cache.put(key(1), VECTOR)
    assert cache.get(key(1)) is None
    assert len(cache) == 0
