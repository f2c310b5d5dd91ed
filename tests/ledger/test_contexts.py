"""Contexts in the ledger: kept by document, chunk and recipe; what is old and not needed goes, and no more."""

from rag_index.core.documents.batches import Failure
from rag_index.core.documents.canonical import hash_text
from tests.ledger.conftest import add

DAY = 86_400.0
RECIPE, EARLIER = "0123456789abcdef", "fedcba9876543210"


def put(ledger, text: str, *, chunks: int = 1, recipe: str = RECIPE) -> None:
    for number in range(chunks):
        ledger.put_context(recipe, hash_text(text), hash_text(str(number)), text)


def has(ledger, text: str, *, recipe: str = RECIPE) -> bool:
    return bool(ledger.contexts(recipe, [hash_text(text)])[hash_text(text)])


def test_a_context_is_kept_by_its_document_chunk_and_recipe(ledger):
    put(ledger, "sécond 漢字", chunks=2)
    put(ledger, "other", recipe=EARLIER)
    ledger.put_context(RECIPE, hash_text("sécond 漢字"), hash_text("0"), "too late")
    first, other = hash_text("sécond 漢字"), hash_text("other")
    assert ledger.contexts(RECIPE, [first, other]) == {
        first: {hash_text("0"): "sécond 漢字", hash_text("1"): "sécond 漢字"}, other: {},
    }  # fmt: skip


def test_old_contexts_go_unless_a_document_of_a_collection_needs_them(ledger, clock):
    collection = add(ledger)
    ledger.update_collection(collection.id, chunking=f"text-1-200-20/context-{RECIPE}/bm25-1/canonical-3")
    plain = add(ledger, "p_others__1")
    ledger.update_collection(plain.id, chunking="text-1-200-20/bm25-1/canonical-3")
    ledger.record(collection.id, [("1", hash_text("indexed"), b"", 2)])
    ledger.record(plain.id, [("1", hash_text("without contexts"), b"", 2)])
    ledger.fail(collection.id, [Failure("2", "refused", hash_text("failed"))])
    texts = ("unneeded", "indexed", "failed", "without contexts")
    for text in texts:
        put(ledger, text, chunks=3)
    put(ledger, "indexed", recipe=EARLIER)
    assert ledger.prune_contexts(clock.now) == 0, "nothing is old"
    clock.now += 90 * DAY
    put(ledger, "new")
    assert ledger.prune_contexts(clock.now - DAY) == 7
    assert [has(ledger, text) for text in (*texts, "new")] == [False, True, True, False, True]
    assert not has(ledger, "indexed", recipe=EARLIER), "of a prompt or a model that no collection has"
    ledger.drop_collection(collection.id)
    assert ledger.prune_contexts(clock.now + DAY) == 7, "no collection needs any"
