"""Which texts travel in one request."""

from __future__ import annotations

from rag_index.embedders.dispatch import make_batches


def test_batches_are_bounded_and_hold_every_text_once():
    texts = ["x" * (number * 37 % 400 + 1) for number in range(500)] + ["y" * 5000]
    batches = make_batches(texts, max_texts=20, max_chars=1000)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(501))
    for batch in batches:
        assert batch.chars == sum(len(texts[row]) for row in batch.rows)
        assert len(batch.rows) == 1 or (len(batch.rows) <= 20 and batch.chars <= 1000)


def test_few_texts_are_shared_between_hosts():
    assert [len(batch.rows) for batch in make_batches(["x"] * 64, max_texts=64, max_chars=9999, hosts=4)] == [16] * 4
    assert [len(batch.rows) for batch in make_batches(["x"] * 9, max_texts=64, max_chars=9999, hosts=4)] == [8, 1]
