"""Commits: what is deleted and recorded for each kind of document, and what a dead process
leaves."""

import re
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from rag_index.components.ledger import Collection, RecordedDocument
from rag_index.core.documents.batches import (
    ChunkedDocument,
    CommitMark,
    DocumentBatch,
    EmbeddedShard,
    Failure,
    PointBatch,
    Shard,
    WrittenShard,
)
from rag_index.core.documents.canonical import encode_payload, hash_text
from rag_index.core.documents.groups import stored_groups
from rag_index.core.documents.keys import encode_key, point_id
from rag_index.core.documents.work import Work
from rag_index.errors import IndexLocked, StoreMismatch
from rag_index.etl import commit, upsert
from rag_index.etl.collection import verify_counts
from rag_index.etl.commit import (
    CommitPlan,
    Committer,
    DocumentRow,
    FailedWrite,
    StaleChunks,
    update_payloads,
)
from rag_index.etl.upsert import batches, chunk_hash
from tests.components.ledger.conftest import add
from tests.etl.plain import Died, die, run_plain

OLD, NEW, PAYLOAD = hash_text("old"), hash_text("new"), hash_text("{}")


@pytest.fixture
def store(project):
    with project.store() as opened:
        opened.create("p_notes__1", 2, {})
        yield opened


def write(store, key: str, text_hash: bytes, chunks: range) -> None:
    ours = {"key": key, "text_hash": text_hash.hex(), "payload_hash": PAYLOAD.hex()}
    ids = [point_id("notes", key, number) for number in chunks]
    payloads = [{"_rag": {**ours, "chunk": number}} for number in chunks]
    store.points("p_notes__1").upsert(PointBatch(ids, np.ones((len(ids), 2), np.float32), payloads))
    store.points("p_notes__1").flush()


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("left", ["all", "all but one chunk", "one new chunk"])
def test_a_document_keeps_what_it_had_if_nothing_new_was_written_and_otherwise_loses_all(
    ledger, store, left, earlier
):
    """A failed document holds what it had whole, or nothing: never a part of a text that was not
    committed. It killed its worker, or had been pending since an `earlier` run died."""
    collection = add(ledger)
    ledger.record(collection.id, [("7", OLD, PAYLOAD, 2)])
    write(store, "7", OLD, range(2))
    write(store, "8", NEW, range(3))
    intact = left == "all"
    if left == "one new chunk":
        write(store, "7", NEW, range(1))
    elif not intact:
        store.points("p_notes__1").delete_points([point_id("notes", "7", 1)])
    committer, keys = Committer("notes", ledger, store, collection), ["7", "8"]
    if earlier:
        ledger.mark_pending(collection.id, keys)
    committer.begin_shard(Shard("notes", 1, DocumentBatch(keys, [], [], [], []), 0))
    failures = [Failure(key, "it kills", NEW, process_died=not earlier) for key in keys]
    committer.commit(WrittenShard(1, [], [], [], [], failures, Work()))
    assert {point.payload["_rag"]["key"] for point in store.points("p_notes__1").scroll()} == (
        {"7"} if intact else set()
    )
    assert ledger.known(collection.id, ["7", "8"]) == (
        {"7": RecordedDocument(OLD, PAYLOAD, 2, 0)} if intact else {}
    )
    assert verify_counts(ledger, store, collection) == ((1, 2) if intact else (0, 0))
    tries = {key: one.tries for key, one in ledger.failures(collection.id).items()}
    assert tries == dict.fromkeys("78", 2 if earlier else 1), "the run that died was a try as well"


@pytest.mark.parametrize(("points", "pending"), [(2, False), (1, False), (2, True)])
def test_what_is_pending_or_lacks_points_is_not_up_to_date_because_its_groups_changed(
    ledger, store, points, pending
):
    collection = add(ledger)
    ledger.record(collection.id, [("7", OLD, PAYLOAD, 2)])
    write(store, "7", OLD, range(points))
    if pending:
        ledger.mark_pending(collection.id, ["7"])
    before, whole = ledger.known(collection.id, ["7"]), points == 2 and not pending
    committer = Committer("notes", ledger, store, collection)
    assert update_payloads(committer, {"7": ["board"]}, before, alone=False) == (
        {"7"} if whole else set()
    )
    assert [stored_groups(point.payload) for point in store.points("p_notes__1").scroll()] == [
        ["board"]
    ] * points
    assert (ledger.known(collection.id, ["7"]) == before) == (not whole)


def test_a_file_that_is_excluded_after_a_run_died_loses_the_points_that_the_run_wrote(project):
    """The ledger has it as pending and without chunks."""
    head = project.config.read_text().partition("[[indexes]]")[0]
    project.write_settings(f'{head}[[indexes]]\nname = "notes"\nkind = "code"\nroot = "src"\n')
    (project.folder / "src").mkdir()
    for name in ("kept.py", "excluded.py"):
        (project.folder / "src" / name).write_text("def f():\n    return 1\n")
    with mock.patch.object(Committer, "commit", die), pytest.raises(Died):
        run_plain(project)
    (project.folder / "src" / "excluded.py").write_bytes(b"now = 'binary'\0")
    run_plain(project, allow_deletes=True)
    assert {payload["_rag"]["key"] for payload, _ in project.points().values()} == {
        encode_key(["kept.py"])
    }


def test_a_document_without_its_points_is_embedded_although_its_payload_alone_changed(project):
    run_plain(project.fill(3))
    with project.store() as store:
        lost = next(
            point
            for point in store.points("test_notes").scroll(vectors=True)
            if point.payload["_rag"]["key"] == "2"
        )
        vector = np.asarray([lost.vector], np.float32)
        store.points("test_notes").delete_points([lost.id])
        store.points("test_notes").upsert(
            PointBatch([point_id("notes", "9", 0)], vector, [lost.payload])
        )  # as many as before
    project.execute("UPDATE note SET author = 'another' WHERE id = 2")
    with pytest.raises(StoreMismatch):  # of the point that no document explains
        run_plain(project)
    assert project.points()[lost.id][0]["author"] == "another"


@pytest.mark.parametrize(
    ("row", "stale", "new", "erasable"),
    [
        pytest.param(None, [], 1, 0, id="new"),
        pytest.param(
            RecordedDocument(b"", b"", 0, 1),
            [StaleChunks("7", 3, None)],
            1,
            0,
            id="never committed, since a run died",
        ),
        pytest.param(
            RecordedDocument(OLD, PAYLOAD, 5, 1),
            [StaleChunks("7", 3, None)],
            0,
            1,
            id="pending, since a run died",
        ),
        pytest.param(RecordedDocument(OLD, PAYLOAD, 3, 0), [], 0, 1, id="as many chunks as before"),
        pytest.param(
            RecordedDocument(OLD, PAYLOAD, 5, 0),
            [StaleChunks("7", 3, 5)],
            0,
            1,
            id="fewer chunks than before",
        ),
        pytest.param(
            RecordedDocument(NEW, PAYLOAD, 3, 0, 1), [], 1, 0, id="the same text gets its vectors"
        ),
        pytest.param(
            RecordedDocument(OLD, PAYLOAD, 5, 0, 1),
            [StaleChunks("7", 3, 5)],
            1,
            1,
            id="another text gets its vectors",
        ),
    ],
)
def test_a_written_document_loses_stale_chunks_and_is_counted(row, stale, new, erasable):
    plan = CommitPlan()
    plan.add_written(DocumentRow("7", NEW, PAYLOAD, 3), row)
    assert plan == CommitPlan(stale=stale, new=new, erasable=erasable)


ROW, WORDED = RecordedDocument(OLD, PAYLOAD, 5, 0), RecordedDocument(OLD, PAYLOAD, 5, 0, 1)
ALL = [StaleChunks("7", 0, None)]


@pytest.mark.parametrize(
    ("row", "is_uncertain", "is_damaged", "expected"),
    [
        pytest.param(None, False, False, CommitPlan(dropped=["7"]), id="new"),
        pytest.param(
            None, True, True, CommitPlan(ALL, dropped=["7"]), id="new, and its process died"
        ),
        pytest.param(ROW, False, False, CommitPlan(restored=["7"]), id="known"),
        pytest.param(
            ROW,
            True,
            False,
            CommitPlan([StaleChunks("7", 5, None)], restored=["7"]),
            id="its process died early",
        ),
        pytest.param(ROW, True, True, CommitPlan(ALL, dropped=["7"]), id="its process died late"),
        pytest.param(
            ROW._replace(pending=1),
            True,
            True,
            CommitPlan(ALL, dropped=["7"], crashed={"7"}),
            id="a run died",
        ),
        pytest.param(
            WORDED,
            False,
            False,
            CommitPlan([StaleChunks("7", 0, 5)], erasable=1, dropped=["7"]),
            id="by its words",
        ),
        pytest.param(
            WORDED,
            True,
            False,
            CommitPlan(ALL, erasable=1, dropped=["7"]),
            id="by its words, and its process died",
        ),
    ],
)
def test_a_failed_document_keeps_all_of_its_points_or_none(row, is_uncertain, is_damaged, expected):
    plan = CommitPlan()
    plan.add_failed_write(FailedWrite("7", row, is_uncertain), is_damaged=is_damaged)
    assert plan == expected


def test_a_commit_that_dies_before_its_mark_is_in_the_ledger_leaves_documents_pending(
    ledger, store
):
    """Rows without the mark would look like a ledger that was put back to an older copy."""
    collection = add(ledger)
    ledger.record(collection.id, [("7", OLD, PAYLOAD, 1)])
    committer = Committer("notes", ledger, store, collection)
    committer.begin_shard(Shard("notes", 1, DocumentBatch(["7"], [], [], [], []), 0))
    write(store, "7", NEW, range(1))
    with mock.patch.object(ledger, "record_commit", die), pytest.raises(Died):
        committer.commit(WrittenShard(1, ["7"], [NEW], [PAYLOAD], [1], [], Work()))
    assert ledger.known(collection.id, ["7"]) == {"7": RecordedDocument(OLD, PAYLOAD, 1, 1)}
    assert not ledger.different_commits(
        ledger.collection("p_notes__1"), store.points("p_notes__1").commit_mark()
    )


class TakenLease:
    """A lease that another run takes over after this many checks."""

    epoch = 7

    def __init__(self, checks: int) -> None:
        self.checks = checks

    def check(self) -> None:
        self.checks -= 1
        if self.checks < 0:
            raise IndexLocked("another took over")


@pytest.mark.parametrize(
    ("checks", "pending", "store_mark", "ledger_mark"),
    [
        pytest.param(0, 0, 0, 0, id="documents become pending"),
        pytest.param(1, 1, 0, 0, id="the marks move on"),
        pytest.param(2, 1, 1, 0, id="the store was marked"),
        pytest.param(3, 1, 1, 1, id="the shard is committed"),
        pytest.param(4, 1, 2, 1, id="the store was marked again"),
    ],
)
def test_a_run_whose_lease_was_taken_writes_neither_rows_nor_marks(
    ledger, store, checks, pending, store_mark, ledger_mark
):
    collection = add(ledger)
    ledger.record(collection.id, [("7", OLD, PAYLOAD, 1)])
    committer = Committer("notes", ledger, store, collection, TakenLease(checks))

    def write_shard() -> None:
        committer.begin_shard(Shard("notes", 1, DocumentBatch(["7"], [], [], [], []), 0))
        committer.commit(WrittenShard(1, ["7"], [NEW], [PAYLOAD], [1], [], Work()))

    with pytest.raises(IndexLocked):
        write_shard()
    assert ledger.known(collection.id, ["7"]) == {"7": RecordedDocument(OLD, PAYLOAD, 1, pending)}
    assert store.points("p_notes__1").commit_mark().number == store_mark
    assert ledger.collection("p_notes__1").commit_mark.number == ledger_mark


def test_a_run_that_was_frozen_while_it_compared_the_marks_says_that_another_took_over(
    ledger, store, monkeypatch
):
    """It has the ledger's mark of before, and then gets the store's mark from after the other
    run."""
    lease = TakenLease(99)
    committer = Committer("notes", ledger, store, add(ledger), lease)
    read = ledger.collection

    def frozen(name: str) -> Collection | None:
        known = read(name)
        store.points(name).set_commit_mark(CommitMark(5, "2026-12-01T02:00:00+00:00"))
        lease.checks = 0
        return known

    monkeypatch.setattr(ledger, "collection", frozen)
    with pytest.raises(IndexLocked, match="another took over"):
        committer.begin_shard(Shard("notes", 1, DocumentBatch(["7"], [], [], [], []), 0))
    assert store.points("p_notes__1").commit_mark().number == 5


def test_a_payload_is_decoded_once_for_all_chunks_also_where_a_batch_ends(monkeypatch):
    monkeypatch.setattr(upsert, "POINTS_PER_UPSERT", 3)
    columns = [b'{"_rag":{"groups":["staff"]},"author":"kim","tags":["a"]}', b"{}"]
    documents = DocumentBatch(["7", "8"], ["", ""], columns, [OLD, NEW], [PAYLOAD, PAYLOAD])
    own = [encode_payload({"author": f"author {number}"}) for number in range(4)]
    chunked = [
        ChunkedDocument(["a", "b", "c", "d"], payloads=own),
        ChunkedDocument(["e"], ["context of e"]),
    ]
    vectors = np.arange(10, dtype=np.float32).reshape(5, 2)
    with mock.patch.object(upsert, "decode_payload", wraps=upsert.decode_payload) as decode:
        found = list(batches(EmbeddedShard("notes", 1, documents, chunked, vectors, [], Work())))
    assert [call.args[0] for call in decode.call_args_list if call.args[0] not in own] == columns

    assert [len(batch) for batch in found] == [3, 2]
    np.testing.assert_array_equal(np.concatenate([batch.vectors for batch in found]), vectors)
    ids = [point_id("notes", "7", number) for number in range(4)]
    assert [one for batch in found for one in batch.ids] == [*ids, point_id("notes", "8", 0)]
    *of_seven, of_eight = [payload for batch in found for payload in batch.payloads]
    for number, payload in enumerate(of_seven):
        ours = payload.pop("_rag")
        assert payload == {"author": f"author {number}", "tags": ["a"]}
        assert (ours["chunk"], ours["text"], ours["groups"], ours["own"]) == (
            number,
            "abcd"[number],
            ["staff"],
            ["author"],
        )
        assert ours["chunk_hash"] == chunk_hash({**payload, "_rag": ours})
    assert of_eight.keys() == {"_rag"}
    assert (of_eight["_rag"]["context"], "groups" in of_eight["_rag"]) == ("context of e", False)


def test_each_test_that_the_protocol_of_commits_names_exists():
    named = re.findall(r"^    `(test_\w+)`$", commit.__doc__, re.MULTILINE)
    texts = [
        file.read_text(encoding="utf-8") for file in Path(__file__).parents[1].rglob("test_*.py")
    ]
    assert len(named) > 10
    assert [name for name in named if not any(f"\ndef {name}(" in text for text in texts)] == []
