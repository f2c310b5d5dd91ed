"""What is to be done with a page: each document in one group, and the one that its history asks
for."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_index.components.ledger import FailedDocument, RecordedDocument
from rag_index.core.documents.batches import DocumentBatch
from rag_index.core.documents.canonical import hash_bytes, hash_text
from rag_index.etl.diff import diff

KEY, TEXT, PAYLOAD = "1", "a text", b'{"a":1}'
SAME = RecordedDocument(hash_text(TEXT), hash_bytes(PAYLOAD), 2, 0)
OTHER_TEXT = RecordedDocument(hash_text("another"), hash_bytes(PAYLOAD), 2, 0)
OTHER_PAYLOAD = RecordedDocument(hash_text(TEXT), hash_bytes(b"{}"), 2, 0)
BEGUN = RecordedDocument(b"", b"", 0, 1)
"""A new document that was about to be written when a run died."""
WAS_EMPTY = RecordedDocument(hash_text(""), hash_bytes(PAYLOAD), 0, 0)
rows = st.builds(
    RecordedDocument,
    st.sampled_from([hash_text(TEXT), hash_text("b"), hash_text(""), b""]),
    st.sampled_from([hash_bytes(PAYLOAD), hash_bytes(b"{}")]),
    st.integers(0, 2),
    st.integers(0, 1),
)


def page_of(*documents):
    keys, texts, payloads = ([document[i] for document in documents] for i in range(3))
    return DocumentBatch(
        keys, texts, payloads, list(map(hash_text, texts)), list(map(hash_bytes, payloads))
    )


def failed_of(text=TEXT, tries=1):
    return FailedDocument(KEY, hash_text(text), "it was refused", tries, 0.0, 0.0, 0.0)


def group_of(plan):
    """The group of the only document of a plan."""
    groups = {
        "new": plan.new,
        "changed": len(plan.to_embed) - plan.new,
        "payload": len(plan.payload_only),
        "unchanged": plan.unchanged,
        "empty": plan.empty - len(plan.emptied) - len(plan.newly_empty),
        "emptied": len(plan.emptied),
        "newly empty": len(plan.newly_empty),
        "given up": plan.given_up,
    }
    assert sorted(groups.values()) == [0] * (len(groups) - 1) + [1], groups
    return max(groups, key=groups.__getitem__)


def test_the_group_of_a_document_by_what_the_ledger_knows():
    for row, text, group in (
        (None, TEXT, "new"),
        (SAME, TEXT, "unchanged"),
        (OTHER_TEXT, TEXT, "changed"),
        (OTHER_PAYLOAD, TEXT, "payload"),
        (WAS_EMPTY, TEXT, "changed"),
        (BEGUN, TEXT, "new"),
        (SAME._replace(pending=1), TEXT, "changed"),
        (OTHER_PAYLOAD._replace(pending=1), TEXT, "changed"),
        (SAME._replace(by_words=1), TEXT, "new"),
        (OTHER_TEXT._replace(by_words=1), TEXT, "new"),
        (SAME._replace(by_words=1), "", "emptied"),
        (None, "", "newly empty"),
        (WAS_EMPTY, "", "empty"),
        (WAS_EMPTY._replace(payload_hash=b"x"), "", "newly empty"),
        (SAME, "", "emptied"),
        (BEGUN, "", "emptied"),
        (WAS_EMPTY._replace(pending=1), "", "emptied"),
    ):
        assert (
            group_of(diff(page_of((KEY, text, PAYLOAD)), {KEY: row} if row else {}, {})) == group
        ), (row, text)


@pytest.mark.parametrize("tries", [1, 2, 11, 30])
def test_a_watch_tries_after_a_minute_then_twice_as_long_up_to_a_day_and_none_after_five_nights(
    tries,
):
    failed = replace(failed_of(tries=tries), first_at=0.0, last_at=1000.0)
    wait = {1: 60, 2: 120, 11: 61_440, 30: 86_400}[tries]
    assert not failed.is_due(999.0 + wait, watched=True)
    assert failed.is_due(1000.0 + wait, watched=True)
    assert failed.is_due(1001.0, watched=False), "a night tries all"
    assert failed.is_due(4 * 86_400.0, watched=False), "the fifth night"
    assert not failed.is_due(5 * 86_400.0, watched=False)
    assert not failed.is_due(5 * 86_400.0, watched=True)


def test_a_failed_document_is_tried_if_it_is_due_or_a_person_asks_for_more():
    for row, failure, retry, group in (
        (None, failed_of(tries=1), False, "new"),
        (None, failed_of(tries=9), False, "given up"),
        (None, failed_of(tries=50), True, "new"),
        (OTHER_TEXT, failed_of(tries=9), False, "given up"),
        (OTHER_TEXT, failed_of("an older text", tries=99), False, "changed"),
        (SAME._replace(pending=1), failed_of(tries=99), False, "changed"),
        (OTHER_PAYLOAD, failed_of("an older text", tries=99), False, "payload"),
        (SAME, failed_of("an older text", tries=99), False, "unchanged"),
    ):
        known = {KEY: row} if row else {}
        page, few = page_of((KEY, TEXT, PAYLOAD)), lambda failed: failed.tries < 9
        assert group_of(diff(page, known, {KEY: failure}, retry=retry, is_due=few)) == group, (
            row,
            failure,
        )


def test_a_failed_document_whose_text_went_back_is_failed_no_more():
    """The index holds what the source has: nobody has to look at it."""
    failed = {KEY: failed_of("the text between")}
    assert diff(page_of((KEY, TEXT, PAYLOAD)), {KEY: SAME}, failed).recovered == [KEY]
    assert diff(page_of((KEY, "", PAYLOAD)), {KEY: WAS_EMPTY}, failed).recovered == [KEY]
    assert diff(page_of((KEY, TEXT, PAYLOAD)), {KEY: OTHER_TEXT}, failed).recovered == []
    assert diff(page_of((KEY, TEXT, PAYLOAD)), {KEY: SAME}, {}).recovered == []


failures = st.builds(failed_of, st.sampled_from([TEXT, "b"]), st.sampled_from([1, 9]))


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([TEXT, "b", ""]), st.sampled_from([PAYLOAD, b"{}"])), max_size=20
    ),
    st.dictionaries(st.integers(0, 25).map(str), rows),
    st.dictionaries(st.integers(0, 25).map(str), failures),
)
def test_every_document_is_counted_once_and_none_that_is_pending_is_left(documents, known, failed):
    page = page_of(*((str(i), *document) for i, document in enumerate(documents)))
    plan = diff(page, known, failed)
    assert len(plan.to_embed) + len(
        plan.payload_only
    ) + plan.unchanged + plan.empty + plan.given_up == len(page)
    assert plan.empty <= page.texts.count("") + sum(row.chunks == 0 for row in known.values())
    dealt_with = {*plan.to_embed.keys, *(row[0] for row in plan.emptied)}
    assert {key for key in page.keys if key in known and known[key].pending} <= dealt_with
    assert "" not in plan.to_embed.texts
    assert "" not in plan.payload_only.texts
