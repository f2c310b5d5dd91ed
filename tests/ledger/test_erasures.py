"""How much there is to erase, in both databases of the ledger."""

from rag_index.components.ledger.tables import DAY
from tests.ledger.conftest import add

ALIAS = "p_notes"


def test_deletions_and_changes_are_counted_in_all_collections_until_the_erasure_ends(each_ledger):
    kept, live = add(each_ledger), add(each_ledger, "p_notes__2")
    assert each_ledger.erasable(ALIAS).documents == 0
    each_ledger.note_erasable(kept.id, 2)
    each_ledger.forget(live.id, ["1"])
    pending = each_ledger.erasable(ALIAS)
    assert (pending.documents, pending.since, pending.lately) == (3, kept.created_at, False)
    each_ledger.drop_collection(kept.id)
    each_ledger.end_erasure(live.id)
    assert (each_ledger.erasable(ALIAS).documents, each_ledger.erasable(ALIAS).lately) == (0, True)
    each_ledger.update_collection(live.id, erased_at=each_ledger.clock() - DAY)
    assert not each_ledger.erasable(ALIAS).lately
