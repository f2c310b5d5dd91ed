"""What was deleted or changed is gone from every file once it is erased, and what lives is as it
was. `rag-index drop`: an index is gone with all its texts, and what nobody wants any longer is
named until then."""

import os
import shutil
import struct
import time
import uuid
from contextlib import closing
from functools import partial
from unittest import mock

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from rag_index.care.export import json_line
from rag_index.components.ledger.runs import IndexLease
from rag_index.components.stores import open_names
from rag_index.core.documents.batches import Failure
from rag_index.errors import IndexLocked, RagIndexError, StoreError
from rag_index.etl import run as run_module
from rag_index.etl.erase import drop_index
from rag_index.search import Retriever
from rag_index.watch.kept_runs import KeptRuns
from tests.etl.plain import printed
from tests.file_scanner import residues
from tests.forked_program import run_code
from tests.live.qdrant import STORES, project_on
from tests.project import SETTINGS, Project, run_here
from tests.twin import twin
from tests.waiting import eventually

SECRETS = {
    5: "Erika Mustermann lives at Heidestrasse 17 in the second house",
    6: "Iban DE02120300000000202051 of the second bank belongs to her",
}
RANDOM = np.random.default_rng(5)
VECTOR = np.asarray(RANDOM.normal(size=64), dtype=np.float32)
PLANTED = {
    "cbor": b"".join(b"\xfa" + struct.pack(">f", one) for one in VECTOR),
    "float32": VECTOR.tobytes(),
    "lz4": b"\x60notes \x02\x00" + bytes([0xF0, len(SECRETS[5]) - 15]) + SECRETS[5].encode(),
    "utf16": SECRETS[5].encode("utf-16-le"),
    "utf8": SECRETS[5][:40].encode(),
}
DYING = """
import os, sys
from functools import partial
from pathlib import Path
import sqlalchemy as sa
from rag_index.cli import main
from rag_index.components.stores.edge.edge_points import EdgePoints
from rag_index.components.stores.edge.store import EdgeStore
from rag_index.components.stores.server import ServerStore
from rag_index.components.stores.server.server_points import ServerPoints

left = {writes}

def count(*_):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)

def before(real, self, *given, **named):
    count()
    return real(self, *given, **named)

WRITES = [(kind, name) for kind in (EdgeStore, ServerStore) for name in ("create", "point_alias", "drop")]
for kind in (EdgePoints, ServerPoints):
    WRITES += [(kind, name) for name in "set_metadata index_fields upsert flush set_commit_mark delete_points".split()]
for kind, name in WRITES:
    run = partial(before, getattr(kind, name))
    setattr(kind, name, lambda self, *given, _run=run, **named: _run(self, *given, **named))
sa.event.listen(sa.Engine, "before_cursor_execute",
                lambda c, cur, sql, *rest: count() if sql.split()[0] in ("INSERT", "UPDATE", "DELETE") else None)
sys.addaudithook(lambda event, given: count() if event in ("os.rename", "shutil.rmtree") else None)
main(["--config", {config!r}, "erase", "notes"])
"""
OLD = '[[indexes]]\nname = "old"\ntable = "secrets"\nkey = "id"\ntext = "body"\n'
TEXT = "the launch code of the rocket is Xylophone"
SAID = (
    "rag-index.toml has no such index, but test_old__2 keeps its texts: `rag-index drop old`"
    " deletes them"
)


def test_the_scanner_finds_what_is_planted(tmp_path):
    for name, content in PLANTED.items():
        (tmp_path / name).write_bytes(RANDOM.bytes(77) + content + bytes(50))
    (tmp_path / "clean").write_bytes(
        SECRETS[5][:12].encode() + VECTOR[:7].tobytes() + RANDOM.bytes(2 << 20)
    )
    assert residues(tmp_path, [SECRETS[5]], [VECTOR]) == sorted(PLANTED)
    assert residues(tmp_path, ["Nobody lives here, and nobody ever did"], [VECTOR[::-1]]) == []


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    project = Project(
        tmp_path_factory.mktemp("erase") / "project", "[store]\nkeep_previous = 1\n"
    ).fill(40)
    for number, secret in SECRETS.items():
        project.execute("UPDATE note SET body = ? WHERE id = ?", secret, number)
    project.run()
    return project


@pytest.fixture
def project(indexed, tmp_path):
    return twin(indexed, tmp_path / "project")


def data(project):
    return project.settings.store.path.parent


def erasing(project, erases="true"):
    """Let each run end by erasing, or not."""
    lines = [
        line for line in project.config.read_text().splitlines() if not line.startswith("erase = ")
    ]
    project.write_settings("\n".join(lines).replace("[store]", f"[store]\nerase = {erases}") + "\n")


def test_what_was_deleted_or_changed_is_gone_from_every_file(project):
    vectors = [
        v
        for payload, v in project.points().values()
        if payload["_rag"]["document_id"] in ("5", "6")
    ]
    assert len(vectors) == 2
    project.run(full=True)  # so that a former collection is kept
    project.execute("DELETE FROM note WHERE id = 5")
    project.execute("UPDATE note SET body = 'moved away' WHERE id = 6")
    project.run(allow_deletes=True)
    gone = SECRETS.values()
    assert residues(data(project), gone, vectors), "or the scanner looks for nothing"
    living = project.texts()
    told = printed(project, "erase", "notes")
    assert (told["documents"], told["points"], told["held_back"]) == (2, len(project.points()), 0)
    assert told["dropped"] == ["test_notes__2", "test_notes__1"]
    assert (residues(data(project), gone, vectors), project.texts()) == ([], living)
    assert "Nothing found." in run_here(project.config, "doctor")[0]
    assert project.run().indexes[0].unchanged == 39
    assert "no earlier collection" in run_here(project.config, "rollback", "notes", code=2)[1]
    assert printed(project, "erase", "notes")["documents"] == 0, "once more does no harm"


def test_a_reader_lets_go_of_what_was_erased_at_its_next_searches(project):
    with Retriever.from_settings(project.config) as retriever:
        assert retriever.search_sync("ticket").hits
        project.execute("DELETE FROM note WHERE id = 5")
        project.run(allow_deletes=True)
        run_here(project.config, "erase", "notes")

        def erased():
            return retriever.search_sync("ticket").hits and not residues(
                data(project), [SECRETS[5]]
            )

        assert eventually(erased)


def test_a_nightly_run_erases_by_itself_and_says_what_is_pending_without(project):
    erasing(project)
    project.execute("DELETE FROM note WHERE id = 5")
    project.run(allow_deletes=True)
    assert residues(data(project), [SECRETS[5]]) == []
    assert "may keep texts" not in run_here(project.config, "status")[0]
    live = printed(project, "status")["indexes"][0]["collection"]
    project.run()
    assert printed(project, "status")["indexes"][0]["collection"] == live, (
        "nothing was deleted, and nothing is copied"
    )

    erasing(project, "false")
    for statement in (
        "body = 'moved away' WHERE id = 6",
        "author = 'her former name' WHERE id = 7",
    ):
        project.execute(f"UPDATE note SET {statement}")
        project.run()
    sentence = "the store's files may keep texts of 2 deleted or changed documents since"
    assert sentence in run_here(project.config, "status")[0]
    [status] = printed(project, "status")["indexes"]
    assert (status["erasable"], status["erasable_since"] > "2020") == (2, True)
    assert f"advice: {sentence}" in run_here(project.config, "doctor")[0]
    with project.ledger() as ledger:
        [collection] = ledger.collections()
        ledger.update_collection(collection.id, erased_at=collection.erased_at - 90_000)
    erasing(project)
    assert f"pending_erasures: {sentence}" in run_here(project.config, "doctor", code=3)[0]


@pytest.mark.long
def test_single_documents_and_rebuilds_are_erased_too(project):
    erasing(project)
    project.execute("UPDATE note SET body = 'moved away' WHERE id = 5")
    run_here(project.config, "index", "notes", "--id", "5")
    assert residues(data(project), [SECRETS[5]]) == []
    project.execute("DELETE FROM note WHERE id = 6")
    project.run(full=True, allow_deletes=True)
    assert residues(data(project), [SECRETS[6]]) == []


def test_an_erasure_waits_for_a_rebuild_that_is_not_finished_and_says_so(project):
    project.execute("DELETE FROM note WHERE id = 5")
    project.run(allow_deletes=True)
    with mock.patch.object(run_module, "publish", side_effect=StoreError("no room")):
        assert project.run(full=True).state == "failed"
    said = (
        "the rebuild test_notes__2 is not finished, and an erasure waits for it: `rag-index rebuild"
        " notes` completes"
    )
    assert said in run_here(project.config, "erase", "notes", code=1)[1]
    erasing(project)
    project.execute("DELETE FROM note WHERE id = 6")
    report = project.run()
    assert (report.indexes[0].deleted, report.state) == (1, "completed")
    assert said in report.indexes[0].message
    with project.store() as store:
        assert sorted(store.collections()) == ["test_notes__1", "test_notes__2"]
    project.run(full=True)
    assert residues(data(project), SECRETS.values()) == []


def test_what_the_guard_holds_back_is_counted_and_the_exit_code_says_so(project):
    project.fill(200, first=41)
    project.run()
    project.execute("DELETE FROM note WHERE id > 90")
    project.run()
    out, _ = run_here(project.config, "erase", "notes", code=3)
    assert "notes: not erased: 150 documents are held back" in out
    project.run(allow_deletes=True)
    assert printed(project, "erase", "notes")["held_back"] == 0


@pytest.mark.long
def test_the_ledger_and_its_log_forget_what_a_failure_said_of_a_text(project):
    with project.ledger() as ledger:
        [collection] = ledger.collections()
        ledger.fail(
            collection.id, [Failure("5", f"the server refuses {SECRETS[5]!r}", b"another text")]
        )
        ledger.put_context("recipe", b"document", b"chunk", SECRETS[6])
        project.execute("DELETE FROM note WHERE id IN (5, 6)")
        project.run(allow_deletes=True)
        assert "ledger.db" in " ".join(residues(data(project), [SECRETS[6]]))
        run_here(project.config, "erase", "notes")
        assert residues(data(project), SECRETS.values()) == [], (
            "although a process has the ledger open"
        )


@pytest.mark.long
def test_an_older_store_that_is_put_back_shows_nothing_that_was_erased_since(project, tmp_path):
    shutil.copytree(project.settings.store.path, tmp_path / "copy")
    project.execute("DELETE FROM note WHERE id IN (5, 6)")
    project.run(allow_deletes=True)
    run_here(project.config, "erase", "notes")
    shutil.rmtree(project.settings.store.path)
    shutil.copytree(tmp_path / "copy", project.settings.store.path)
    with (
        Retriever.from_settings(project.config) as retriever,
        pytest.raises(RagIndexError, match="in the ledger"),
    ):
        retriever.search_sync("Mustermann Iban")
    run_here(project.config, "doctor", "--repair")
    project.run()
    assert not project.texts().keys() & {"5", "6"}
    run_here(project.config, "erase", "notes")
    assert residues(data(project), SECRETS.values()) == []


@pytest.fixture(params=STORES)
def stored(request, tmp_path):
    """A project with rights and payload indexes in a store of each kind, two of whose documents
    go."""
    with project_on(request.param, partial(Project, tmp_path / "project")) as project:
        project.fill(40).execute("CREATE TABLE reader (note_id INTEGER, team TEXT)")
        project.execute("INSERT INTO reader SELECT id, 'team ' || (id % 3) FROM note WHERE id < 30")
        text = (
            project.config.read_text()
            if request.param != "embedded"
            else SETTINGS.format(extra="[store]")
        )
        rights = (
            'access = "SELECT note_id, team FROM reader"\npayload_indexes = {author = "keyword"}\n'
        )
        project.write_settings(text + rights)
        project.run()
        url = project.settings.store.url
        project.client = (
            QdrantClient(url, api_key=os.environ.get("QDRANT_API_KEY")) if url else None
        )
        project.exact = request.param != "loopback"  # which scales vectors once more
        yield project


def what_lives(project):
    """Return the live points as an export writes them, what a caller finds, and how a server keeps
    them."""
    alias = project.settings.alias("notes")
    with project.store() as store:
        points = sorted(map(json_line, store.points(alias).scroll(vectors=project.exact)))
        own = {"store_id", "name", "replaces"}
        metadata = {
            key: value for key, value in store.points(alias).metadata().items() if key not in own
        }
    with Retriever.from_settings(project.config) as retriever:
        hits = {
            hit.document_id for hit in retriever.search_sync("printer mail", groups=["team 1"]).hits
        }
    assert hits
    if project.client is None:
        return points, metadata, hits
    seen = project.client.get_collection(alias)
    fields = {field: kind.data_type for field, kind in seen.payload_schema.items()}
    return points, metadata, hits, seen.config.model_copy(update={"metadata": None}), fields


@pytest.mark.long
def test_what_lives_is_as_it_was_with_rights_vectors_and_what_was_set_by_hand(stored):
    stored.execute("DELETE FROM note WHERE id = 5")
    stored.execute("UPDATE note SET body = 'moved away' WHERE id = 6")
    if stored.client is not None:
        int8 = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        quantised, hnsw = models.ScalarQuantization(scalar=int8), models.HnswConfigDiff(m=24)
        name = stored.settings.alias("notes")
        stored.client.update_collection(
            f"{name}__1", quantization_config=quantised, hnsw_config=hnsw
        )
        stored.client.create_payload_index(
            f"{name}__1", "by_hand", models.PayloadSchemaType.INTEGER
        )
    stored.run()
    before = what_lives(stored)
    assert (printed(stored, "erase", "notes")["documents"], what_lives(stored)) == (2, before)
    assert stored.run().indexes[0].unchanged == 39
    with stored.store() as store:
        assert (
            len(
                [
                    one
                    for one in store.collections()
                    if one.startswith(stored.settings.alias("notes"))
                ]
            )
            == 1
        )


@pytest.mark.long
def test_a_watch_erases_once_a_day_at_most_and_goes_on_in_the_copy(stored):
    erasing(stored)
    alias = stored.settings.alias("notes")
    with closing(KeptRuns(stored.settings, "notes", lambda: False)) as watched:
        for document, live, pending in ((5, 2, 0), (6, 2, 1), (7, 2, 2)):
            stored.execute("DELETE FROM note WHERE id = ?", document)
            assert watched.run(time.time()).complete
            with stored.ledger() as ledger:
                [collection] = ledger.collections(alias)
                assert (collection.name, collection.erasable) == (f"{alias}__{live}", pending)
    assert printed(stored, "doctor")["findings"] == [], "what waits for its day is no finding"
    with closing(KeptRuns(stored.settings, "notes", lambda: False)) as watched:
        with stored.ledger() as ledger:
            ledger.update_collection(collection.id, erased_at=time.time() - 90_000)
        assert watched.run(time.time()).is_index_complete, (
            "nothing was written, and a day has passed"
        )
    assert printed(stored, "status")["indexes"][0]["collection"] == f"{alias}__3"
    assert not stored.texts().keys() & {"5", "6", "7"}


@pytest.mark.long
@pytest.mark.parametrize("stored", ["embedded", "loopback"], indirect=True)
def test_a_kill_at_any_step_leaves_the_former_collection_live_or_the_copy(stored):
    deaths, alias = 0, stored.settings.alias("notes")
    secrets = [f"{uuid.uuid4()} {uuid.uuid4()}" for _ in range(40)]
    for number, secret in enumerate(secrets, 1):
        stored.execute("UPDATE note SET body = ? WHERE id = ?", secret, number)
    while True:
        stored.execute("DELETE FROM note WHERE id = ?", deaths + 1)
        assert stored.run(allow_deletes=True).state == "completed"
        living, gone = stored.texts(), secrets[deaths]
        ended = run_code(DYING.format(config=str(stored.config), writes=deaths), {})
        if ended.returncode == 0:
            break
        assert ended.returncode == -9, ended.stderr
        assert stored.texts() == living
        with stored.ledger() as ledger:
            pending = ledger.erasable(alias).documents
        assert pending or not residues(data(stored), [gone]), "what is left is said to be pending"
        deaths += 1
    assert deaths > 12
    assert residues(data(stored), [gone]) == []
    with stored.store() as store:
        assert len([one for one in store.collections() if one.startswith(alias)]) == 1
    assert (stored.run().indexes[0].unchanged, printed(stored, "doctor")["findings"]) == (
        len(living),
        [],
    )


def rows_of(project: Project, alias: str) -> int:
    """Count the ledger's rows about an alias and its collections."""
    with project.ledger() as ledger:
        runs = ledger.last_run(alias) is not None
        return runs + sum(1 + ledger.totals(one.id).documents for one in ledger.collections(alias))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["embedded", "server"])
def test_an_index_that_no_setting_wants_is_named_and_dropped_with_all_its_texts(
    tmp_path, qdrant, kind
):
    """The project has indexed two indexes, one of them twice, and its settings name the other
    alone."""
    project = Project(
        tmp_path / "project", "" if kind == "embedded" else f'[store]\nurl = "{qdrant.url}"'
    ).fill(20)
    settings = project.config.read_text()
    project.execute("CREATE TABLE secrets (id INTEGER PRIMARY KEY, body TEXT)")
    project.execute(f"INSERT INTO secrets SELECT id, '{TEXT} ' || id FROM note")
    project.write_settings(settings + OLD)
    project.run()
    project.run("old", full=True)
    with project.ledger() as ledger:
        ledger.put_context("recipe", b"document", b"chunk", TEXT)
    project.write_settings(settings)
    assert printed(project, "status")["unwanted"] == {"old": SAID}
    assert run_here(project.config, "status")[0].splitlines()[-1] == f"old: {SAID}"
    assert {"index": "old", "message": SAID} in printed(project, "doctor")["advice"]
    kept = project.folder / ".rag-index"
    assert bool(residues(kept / "qdrant", [TEXT])) == (kind == "embedded"), (
        "otherwise this tests nothing"
    )
    assert residues(kept, [TEXT])

    asked = project.cli("drop", "old")  # nobody answers
    assert asked.returncode == 2
    assert "old: test_old__1 (20 documents), test_old__2 (20 documents)\n" in asked.stderr
    assert "--yes deletes without asking" in asked.stderr
    assert rows_of(project, "test_old") == 43

    assert printed(project, "drop", "old", "--yes")["dropped"] == ["test_old__1", "test_old__2"]
    with open_names(project.settings.store) as names:
        assert list(names.collections()) == ["test_notes__1"]
        assert names.aliases() == {"test_notes": "test_notes__1"}
    assert (residues(kept, [TEXT]), rows_of(project, "test_old")) == ([], 0)
    assert printed(project, "doctor")["findings"] == []
    said = run_here(project.config, "drop", "old", code=2)[1]
    assert "nothing is kept of an index 'old'; the indexes are notes" in said


def test_an_index_that_the_settings_have_is_indexed_again_by_the_next_run(tmp_path):
    project = Project(tmp_path / "project").fill(20)
    project.run()
    before = project.texts()
    with project.ledger() as ledger, IndexLease(ledger, "test_notes", "a run"):
        with pytest.raises(IndexLocked):
            drop_index(project.settings, "notes")
        said = run_here(project.config, "drop", "notes", code=2)[1]
        assert "so its next run indexes everything again" in said
    assert project.texts() == before
    drop_index(project.settings, "notes")
    said = run_here(project.config, "drop", "note", code=2)[1]
    assert "nothing is kept of an index 'note', did you mean 'notes'?" in said
    assert (project.run().indexes[0].new, project.texts()) == (20, before)


def test_a_project_whose_name_begins_alike_is_not_named(tmp_path, qdrant):
    extra = f'[store]\nurl = "{qdrant.url}"'
    other = Project(tmp_path / "other", extra=extra).fill(5)
    other.write_settings(
        other.config.read_text().replace('project = "test"', 'project = "test_other"')
    )
    project = Project(tmp_path / "project", extra=extra).fill(5)
    assert (other.run().state, project.run().state) == ("completed", "completed")
    assert printed(project, "status")["unwanted"] == {}
