"""An index with access is measured with all its documents: a gate that finds nothing would let everything pass."""

from __future__ import annotations

from contextlib import closing

import pytest

from rag_index.evaluation import gate
from rag_index.evaluation.asking import ask_indexes
from rag_index.evaluation.golden import GoldenQuery
from rag_index.stores import open_store
from tests.retrieve.desk import Desk

ACCESS = 'access = "acl"\n[indexes.gate]\nqueries = "golden.jsonl"\n'
ROWS = [
    (1, "The printer on floor two is offline", {"_rag": {"groups": ["staff"]}}),
    (2, "The mailbox is full", {"_rag": {"groups": []}}),
]


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Desk:
    desk = Desk(tmp_path_factory.mktemp("desk"), names=("comments",), more={"comments": ACCESS})
    return desk.fill({"comments": ROWS})


def test_the_gate_finds_documents_whoever_they_are_for(desk):
    settings, query = desk.settings, GoldenQuery("mailbox full", {"2": 1})
    with closing(open_store(settings.store)) as store:
        live = store.aliases()[settings.alias("comments")]
        found = gate.ask(settings, settings.index("comments"), [query], store, [live, live])
    assert [sorted(one["search"][0]) for one in found] == [["1", "2"], ["1", "2"]]


def test_an_evaluation_finds_documents_whoever_they_are_for(desk):
    (found,) = ask_indexes(desk.settings, ["mailbox full"], ["comments"], 10)
    assert found.documents() == {("comments", "1"), ("comments", "2")}
