"""What the ledger knows of erased documents, in both of its databases, and what it forgets."""

from contextlib import closing, nullcontext

import pytest

from rag_index.components.ledger import Ledger
from rag_index.components.ledger.documents import key_hash
from rag_index.errors import LedgerError
from tests.ledger.conftest import add

ALIAS, MAIL = "p_notes", "änna@example.org"


@pytest.fixture
def collection(each_ledger):
    return add(each_ledger)


def test_pieces_stay_until_the_erasure_ends_and_are_unknown_of_what_a_run_has_changed(each_ledger, collection):
    each_ledger.note_erasable(collection.id, ["1"])
    for pieces in ({"1": b"x", "2": b"a", "3": b""}, {"2": b"b", "3": b"c"}):
        each_ledger.note_named(ALIAS, pieces)
    pending = each_ledger.pending_erasures(ALIAS)
    assert pending.pieces == {key_hash("1"): b"", key_hash("2"): b"ab", key_hash("3"): b""}
    each_ledger.end_erasure(ALIAS, unproven=False)
    assert each_ledger.pending_erasures(ALIAS).pieces == {key_hash("2"): b"ab"}
    each_ledger.note_erasable(collection.id, ["2"])
    assert each_ledger.pending_erasures(ALIAS).pieces == {key_hash("2"): b""}
    each_ledger.end_erasure(ALIAS)
    assert each_ledger.pending_erasures(ALIAS).hashes == []
    each_ledger.note_named(ALIAS, {"2": b"c"})
    assert each_ledger.pending_erasures(ALIAS).pieces == {key_hash("2"): b"c"}, "it was indexed again"
    each_ledger.forget_named(ALIAS, ["2"])
    assert (each_ledger.pending_erasures(ALIAS).pieces, each_ledger.pending_erasures(ALIAS).named) == ({}, False)


def test_no_name_of_an_erased_document_stays(each_ledger, collection):
    each_ledger.start_run("run", ALIAS, host="h", pid=1)
    report = {"lost": [MAIL, "7"], "documents": 7, MAIL: "a key stays"}
    each_ledger.finish_run("run", state="failed", message=f"document {MAIL} of 7", report=report)
    with closing(Ledger(each_ledger._url)) as killed:
        killed.begin_scan(ALIAS)
        killed.see([f'"{MAIL}"'], page=1)
        each_ledger.forget_names(ALIAS, [MAIL, "7"], [f'"{MAIL}"'])
        temporary = each_ledger.engine.dialect.name == "sqlite"  # so a kill ends them
        with nullcontext() if temporary else pytest.raises(LedgerError, match="lost what this run has seen"):
            killed.check_scan(killed._scan)
    run = each_ledger.last_run(ALIAS)
    assert run.report[MAIL] == "a key stays"
    assert (run.message, run.report["lost"], run.report["documents"]) == (
        "document (erased) of 7",
        ["(erased)", "7"],
        7,
    )


@pytest.mark.parametrize("name", ["notes", "failed", "0.613", "true", "4930901820"])
def test_a_report_stays_one_whatever_an_erased_document_is_called(each_ledger, name):
    each_ledger.start_run("run", ALIAS, host="h", pid=1)
    report = {"index": "notes", "state": "failed", "seconds": 0.613, "verified": True, "gate": {"lost": ["a", name]}}
    each_ledger.finish_run("run", state="failed", message=f"document {name} of 4", report=report)
    each_ledger.forget_names(ALIAS, [name], [])
    run = each_ledger.last_run(ALIAS)
    assert run.message == "document (erased) of 4"
    assert run.report == {**report, "gate": {"lost": ["a", "(erased)"]}}
