"""`rebuild --to`: the same points in another store, without embedding. The old one is only read,
and runs there go on until the settings change. What is somebody else's in the target is refused and
kept."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import time
from contextlib import ExitStack, closing
from unittest import mock

import numpy as np
import pytest
from qdrant_client import models

from rag_index.care.doctor import examine, repair
from rag_index.care.export import export
from rag_index.components.ledger import Ledger
from rag_index.components.stores import CALIBRATION, SEAL, open_store
from rag_index.errors import SettingsError
from rag_index.etl.another_store import parse_target
from tests.etl.plain import printed
from tests.fakes.ollama import FakeOllama
from tests.fakes.qdrant import FakeQdrant
from tests.project import Project, run_here
from tests.search.service.live import asking
from tests.twin import lose_ledger, twin

DOCUMENTS = 60
WRITES = re.compile(
    r"(PUT|PATCH|DELETE) |POST /collections/aliases|POST .*/points/(delete|batch|payload)"
)
"""Requests that change something at a Qdrant server."""
UPSERT, TO_ALIAS = "PUT /collections/test_notes__3/points", "POST /collections/aliases"
OTHERS = '\n[[indexes]]\nname = "titles"\ntable = "note"\nkey = "id"\ntext = "title"\n'


@pytest.fixture
def qdrant():
    with FakeQdrant() as fake:
        yield fake


@pytest.fixture(scope="module")
def indexed(tmp_path_factory) -> Project:
    """A project that was indexed and rebuilt, so that there is a collection to roll back to."""
    project = Project(tmp_path_factory.mktemp("store") / "project").fill(DOCUMENTS)
    project.execute("UPDATE note SET author = 'Zoë “Z” \U0001f600\n' WHERE id = 3")
    assert (project.run().state, project.run(full=True).state) == ("completed", "completed")
    return project


@pytest.fixture
def project(indexed, tmp_path) -> Project:
    return twin(indexed, tmp_path / "project")


class Points(dict[str, dict]):
    """All points of an index by id, as `export` writes them. They are equal if vectors differ in
    their last bit alone: the client behind the fake server divides each by its length once more."""

    def __eq__(self, other):
        if {key: {**point, "vector": None} for key, point in self.items()} != {
            key: {**point, "vector": None} for key, point in other.items()
        }:
            return False
        return all(
            np.allclose(point["vector"], other[key]["vector"], rtol=0, atol=1e-7)
            for key, point in self.items()
        )

    def __hash__(self):
        return id(self)


def exported(project: Project) -> Points:
    """Return the points of the index. Sparse vectors are sorted, which the fake server does not
    do."""
    file = project.folder / "out.jsonl"
    export(project.settings, "notes", str(file))
    points = Points()
    for line in file.read_text(encoding="utf-8").split("\n")[:-1]:
        point = json.loads(line)
        point["sparse"] = sorted(
            zip(point["sparse"]["indices"], point["sparse"]["values"], strict=True)
        )
        points[point["id"]] = point
    return points


def rebuild(project: Project, to: object, *more: object, code: int = 0) -> dict:
    """Rebuild the notes in another store, and return what --json prints."""
    return printed(
        project, "rebuild", "notes", "--serial", "--to", str(to), *map(str, more), code=code
    )


def use(project: Project, line: str) -> None:
    """Edit the settings file as the command tells the user to."""
    text = re.sub(r"\[store\]\n.*\n\n?", "", project.config.read_text())
    project.write_settings(text.replace("[[indexes]]", f"[store]\n{line}\n\n[[indexes]]", 1))


def findings(project: Project) -> list[str]:
    return [one.message for one in examine(project.settings).findings]


def names(project: Project) -> tuple[list[str], list[str]]:
    """Return the collections that the ledger has in the store of the settings, and those in
    another."""
    with project.ledger() as ledger:
        here, elsewhere = (
            ledger.collections("test_notes"),
            ledger.collections_elsewhere("test_notes"),
        )
        return [one.name for one in here], [one.name for one in elsewhere]


# The same index in another store


@pytest.mark.parametrize("new", ["folder", "server"])
@pytest.mark.parametrize("old", ["folder", "server"])
def test_the_same_index_is_made_in_another_store_without_embedding(project, tmp_path, old, new):
    with ExitStack() as stack:
        if old == "server":  # in two steps
            use(project, rebuild(project, stack.enter_context(FakeQdrant()).url)["store"])
        before = exported(project)
        place = stack.enter_context(FakeQdrant()).url if new == "server" else tmp_path / "new"
        said = rebuild(project, place)
        [outcome] = said["indexes"]
        assert (outcome["state"], outcome["chunks_embedded"], outcome["new"]) == (
            "completed",
            0,
            DOCUMENTS,
        )
        assert findings(project) == [], "nothing is wrong before the settings change"
        use(project, said["store"])
        assert (exported(project), findings(project)) == (before, [])
        if (old, new) == ("folder", "folder"):
            assert dict(exported(project)) == dict(before), "bit by bit"
        assert project.run().indexes[0].unchanged == DOCUMENTS, (
            "the run after it has nothing to embed"
        )
        assert (exported(project), findings(project)) == (before, [])
        assert printed(project, "search", "printer")["hits"]


@pytest.mark.parametrize("kind", ["folder", "server"])
def test_the_old_store_is_only_read(project, tmp_path, qdrant, kind):
    if kind == "server":
        use(project, rebuild(project, qdrant.url)["store"])
        project.run()

    def state():
        with project.store() as store:
            return store.aliases(), store.collections()

    before, seen = (state(), exported(project)), len(qdrant.seen)
    assert rebuild(project, tmp_path / "new")["indexes"][0]["state"] == "completed"
    assert [request for request in qdrant.seen[seen:] if WRITES.match(request)] == []
    assert (state(), exported(project)) == before


def test_runs_in_the_old_store_go_on_until_the_settings_change(project, tmp_path):
    before = project.config.read_text()
    as_of = printed(project, "status")["indexes"][0]["as_of"]
    line = rebuild(project, tmp_path / "new")["store"]
    assert printed(project, "status")["indexes"][0]["as_of"] == as_of, (
        "searches do not see what was read for it"
    )
    assert names(project) == (["test_notes__1", "test_notes__2"], ["test_notes__3"])
    project.execute("UPDATE note SET body = 'A new text.' WHERE id = 5")
    project.execute("DELETE FROM note WHERE id = 6")
    [nightly] = project.run().indexes
    assert (nightly.state, nightly.changed, nightly.deleted) == ("completed", 1, 1)
    assert project.run(full=True).state == "completed"
    assert (repair(project.settings).findings, repair(project.settings).repaired) == ([], [])
    assert printed(project, "rollback", "notes")["live"] == "test_notes__2"
    assert project.run().state == "completed"
    assert names(project)[1] == ["test_notes__3"], "nothing of it was taken for lost"

    use(project, line)
    with asking(project.settings) as client:
        assert client.get("/readyz").status_code == 200, "a service may start before the first run"
    [first] = project.run().indexes
    assert (first.state, first.changed, first.deleted, first.chunks_embedded) == (
        "completed",
        1,
        1,
        1,
    )
    assert (findings(project), names(project)[0]) == ([], ["test_notes__3"])
    after = exported(project)

    project.write_settings(before)
    [back] = project.run().indexes
    assert (back.state, back.unchanged) == ("completed", DOCUMENTS - 1)
    assert (exported(project), findings(project), names(project)[1]) == (
        after,
        [],
        ["test_notes__3"],
    )


def test_rows_of_a_store_that_was_left_go_with_the_next_rebuild_but_for_its_live_collection(
    project, tmp_path
):
    former = project.config.read_text()
    use(project, rebuild(project, tmp_path / "new")["store"])
    project.run()
    assert names(project) == (["test_notes__3"], ["test_notes__1", "test_notes__2"])
    for _ in range(2):
        project.run(full=True)
    assert names(project) == (["test_notes__4", "test_notes__5"], ["test_notes__2"])
    project.write_settings(former)
    assert project.run().indexes[0].unchanged == DOCUMENTS, "the former store may be named again"


def test_what_a_guard_held_back_in_another_store_is_published_by_no_repair(project, tmp_path):
    project.execute("INSERT INTO note (id, title, body) SELECT id + 1000, title, body FROM note")
    project.execute("INSERT INTO note (id, title, body) SELECT id + 5000, title, body FROM note")
    project.run()
    project.execute("DELETE FROM note WHERE id > 60")
    said = rebuild(project, tmp_path / "new", code=3)
    assert "it was not published" in said["indexes"][0]["message"]
    use(project, f'path = "{tmp_path / "new"}"')
    [finding] = findings(project)
    assert "`rag-index rebuild --to` has not published test_notes__3 in this store" in finding
    repair(project.settings)
    with closing(open_store(project.settings.store)) as store:
        assert store.aliases() == {}


def test_a_second_rebuild_to_the_same_place_takes_the_place_of_the_first(project, tmp_path):
    to = tmp_path / "new"
    for _ in range(3):
        line = rebuild(project, to)["store"]
    assert names(project) == (
        ["test_notes__1", "test_notes__2"],
        ["test_notes__4", "test_notes__5"],
    )
    with closing(open_store(parse_target(project.settings, str(to)))) as store:
        assert (sorted(store.collections()), store.aliases()) == (
            ["test_notes__4", "test_notes__5"],
            {"test_notes": "test_notes__5"},
        )
    use(project, line)
    assert (project.run().indexes[0].unchanged, findings(project)) == (DOCUMENTS, [])


# The first mark, up to three shards that are under way at once, and the mark of the first of them.
@pytest.mark.parametrize(("stop_on", "answered"), [(UPSERT, 6), (TO_ALIAS, 0)])
def test_a_rebuild_that_dies_is_resumed_and_runs_in_the_old_store_do_not_mind(
    project, qdrant, stop_on, answered
):
    before = exported(project)
    qdrant.break_next(stop_on, times=answered)
    qdrant.break_next(stop_on, times=None, status=403, error="killed here")
    said = rebuild(project, qdrant.url, "--shard-documents", 10, code=1)
    assert "killed here" in said["indexes"][0]["message"]
    assert "store" not in said
    assert qdrant.client.get_aliases().aliases == [], "no incomplete collection is live"
    assert (project.run().indexes[0].unchanged, findings(project)) == (DOCUMENTS, [])
    assert printed(project, "search", "printer")["hits"]

    qdrant.faults.clear()
    seen = qdrant.requests(UPSERT)
    said = rebuild(project, qdrant.url, "--shard-documents", 10)
    assert said["indexes"][0]["unchanged"] >= 10, "what was committed is not written again"
    assert qdrant.requests(UPSERT) - seen < 2 * 6, (
        "a shard and its commit mark, but for those that are there"
    )
    assert [one.name for one in qdrant.client.get_collections().collections] == ["test_notes__3"]
    use(project, said["store"])
    assert (exported(project), findings(project)) == (before, [])


def test_a_death_between_alias_and_ledger_leaves_an_index_that_can_be_used(project, tmp_path):
    update = Ledger.update_collection

    def dies(ledger, collection_id, **values):
        if values == {"state": "ready"}:
            raise KeyboardInterrupt
        return update(ledger, collection_id, **values)

    with mock.patch.object(Ledger, "update_collection", dies):
        run_here(project.config, "rebuild", "notes", "--serial", "--to", tmp_path / "new", code=130)
    use(project, f'path = "{tmp_path / "new"}"')
    assert (project.run().indexes[0].unchanged, findings(project)) == (DOCUMENTS, [])


def test_after_a_lost_ledger_the_other_store_fills_a_new_one(project, tmp_path):
    before = exported(project)
    use(project, rebuild(project, tmp_path / "new")["store"])
    lose_ledger(project)
    assert (
        "`rag-index doctor --repair` make its rows from the store"
        in project.run().indexes[0].message
    )
    assert repair(project.settings).findings == []
    assert (project.run().indexes[0].unchanged, exported(project)) == (DOCUMENTS, before)


def test_a_dropped_index_leaves_no_row_of_any_store(project, tmp_path):
    rebuild(project, tmp_path / "new")
    said = run_here(project.config, "drop", "notes", "--yes")[0]
    assert (
        "notes: deleted test_notes__1, test_notes__2. Another store keeps test_notes__3: name it"
        in said
    )
    use(project, f'path = "{tmp_path / "new"}"')
    assert "notes: deleted test_notes__3." in run_here(project.config, "drop", "notes", "--yes")[0]
    assert names(project) == ([], [])
    with sqlite3.connect(project.folder / ".rag-index" / "ledger.db") as ledger:
        assert ledger.execute("SELECT count(*) FROM rag_index_documents").fetchone() == (0,)


# What comes from the live collection


def test_calibration_seal_and_settings_made_by_hand_come_from_the_live_collection(
    project, tmp_path, qdrant
):
    use(project, rebuild(project, qdrant.url)["store"])
    project.run()
    with project.store() as store:
        learned = store.points("test_notes").metadata()
        marked = {**learned[CALIBRATION], "bias": -1.2345}
        store.points("test_notes__3").set_metadata({CALIBRATION: marked})
    qdrant.client.update_collection("test_notes__3", hnsw_config=models.HnswConfigDiff(m=48))
    qdrant.configs.setdefault("test_notes__3", {})["hnsw_config"] = {"m": 48}
    with FakeQdrant() as other:
        said = rebuild(project, other.url)
        assert "message" not in said["indexes"][0]
        use(project, said["store"])
        with project.store() as store:
            made = store.points("test_notes").metadata()
            assert (made[CALIBRATION], made[SEAL]) == (marked, learned[SEAL])
        assert other.configs["test_notes__4"]["hnsw_config"]["m"] == 48


def test_other_chunks_learn_for_themselves_and_the_command_says_first_what_is_embedded(
    project, tmp_path
):
    with project.store() as store:
        points = store.points("test_notes__2")
        points.set_metadata({CALIBRATION: {**points.metadata()[CALIBRATION], "bias": -1.2345}})
    project.write_settings(
        project.config.read_text().replace("chunk_chars = 200", "chunk_chars = 100")
    )
    err = run_here(project.config, "rebuild", "notes", "--serial", "--to", tmp_path / "new")[1]
    said = "notes: test_notes__2 was chunked as text/200/20/"
    assert said in err
    assert err.index(said) < err.index("60 documents: 60 new"), "before it starts"
    with closing(open_store(parse_target(project.settings, str(tmp_path / "new")))) as store:
        assert CALIBRATION not in store.points("test_notes").metadata(), (
            "the end of a run learns it, and not here"
        )


def test_another_model_embeds_every_text_and_the_command_says_so_first(project, tmp_path, fake):
    project.write_settings(
        project.config.read_text().replace("[[indexes]]", f"{fake.settings}[[indexes]]", 1)
    )
    err = run_here(project.config, "rebuild", "notes", "--serial", "--to", tmp_path / "new")[1]
    said = "test_notes__2 holds vectors of"
    assert re.search(rf"{said} .*wordllama.*, settings say .*: every text is embedded", err)
    assert err.index(said) < err.index("60 documents: 60 new")
    assert "every text is embedded" not in run_here(project.config, "status")[0]


def test_no_vector_is_taken_of_a_payload_that_another_program_changed(project, tmp_path):
    """Its vector is that of the text that was there before."""
    project.execute("UPDATE note SET title = 'printer', body = 'It prints again.' WHERE id = 7")
    with project.store() as store:
        points = store.points("test_notes")
        found = next(one for one in points.scroll() if one.payload["_rag"]["key"] == "7")
        found.payload["_rag"]["text"] = "printer\nIt prints again."
        points.update_payloads([(found.id, found.payload)])
    assert rebuild(project, tmp_path / "new")["indexes"][0]["chunks_embedded"] == 1


def test_vectors_are_found_by_id_without_the_ledgers_rows(project, tmp_path):
    before = exported(project)
    lose_ledger(project)
    refused = rebuild(project, tmp_path / "new", code=1)["indexes"][0]["message"]
    assert "test_notes__2 is live as test_notes" in refused
    said = rebuild(project, tmp_path / "new", "--allow-loss")
    assert said["indexes"][0]["chunks_embedded"] == 0
    assert names(project) == ([], ["test_notes__3"]), "no name of the old store is given again"
    use(project, said["store"])
    assert exported(project) == before
    assert (project.run().indexes[0].unchanged, findings(project)) == (DOCUMENTS, [])


def test_stored_contexts_count_as_text(tmp_path):
    with FakeOllama(model="fake-talk") as talk:
        context = f'[indexes.context]\nmodel = "fake-talk"\nhosts = ["{talk.url}"]\n'
        project = Project(tmp_path / "project").fill(10)
        project.write_settings(project.config.read_text() + context)
        assert project.run().state == "completed"
        assert any("context" in payload["_rag"] for payload, _ in project.points().values())
        before = exported(project)
        said = rebuild(project, tmp_path / "new")
        assert said["indexes"][0]["chunks_embedded"] == 0
        use(project, said["store"])
        assert exported(project) == before


def test_the_delete_guard_compares_with_the_live_collection_of_the_old_store(tmp_path):
    project = Project(tmp_path / "project").fill(200)
    project.run()
    project.execute("DELETE FROM note WHERE id > 50")
    out, _ = run_here(
        project.config, "rebuild", "notes", "--serial", "--to", tmp_path / "new", code=3
    )
    assert "lacks 150 of 200 documents of the live collection" in out
    assert "The settings stay as they are until all of notes are there" in out
    with closing(open_store(parse_target(project.settings, str(tmp_path / "new")))) as store:
        assert store.aliases() == {}
    said = rebuild(project, tmp_path / "new", "--allow-deletes")
    use(project, said["store"])
    assert len(project.texts()) == 50


def test_the_gate_asks_the_live_collection_of_the_old_store(project, tmp_path):
    lines = [
        json.dumps({"query": f"Note {n}", "relevant": [str(n)]}) for n in range(1, DOCUMENTS + 1)
    ]
    (project.folder / "golden.jsonl").write_text("\n".join(lines))
    project.write_settings(
        f'{project.config.read_text()}[indexes.gate]\nqueries = "golden.jsonl"\n'
    )
    assert rebuild(project, tmp_path / "new")["indexes"][0]["gate"]["before"] == 1.0
    for number in (3, 4):
        project.execute(
            "UPDATE note SET title = 'gone', body = 'gone with the wind' WHERE id = ?", number
        )
    said = rebuild(project, tmp_path / "other", code=3)
    assert (
        "recall@10 of 60 golden queries fell from 1.000 to 0.967" in said["indexes"][0]["message"]
    )
    with closing(open_store(parse_target(project.settings, str(tmp_path / "other")))) as store:
        assert store.aliases() == {}


# What is refused


@pytest.mark.parametrize("allowed", [(), ("--allow-loss",)])
def test_what_another_program_has_in_the_target_is_refused_and_kept(project, qdrant, allowed):
    with closing(open_store(parse_target(project.settings, qdrant.url))) as store:
        store.create("theirs", 4, {})
        store.point_alias("test_notes", "theirs")
        [outcome] = rebuild(project, qdrant.url, *allowed, code=1)["indexes"]
        assert "has an alias test_notes that points at theirs, which ledger" in outcome["message"]
        assert store.aliases() == {"test_notes": "theirs"}
        store.drop("theirs")
        store.create("test_notes", 4, {})
        [outcome] = rebuild(project, qdrant.url, *allowed, code=1)["indexes"]
        assert (
            "the store has a collection named test_notes, which rag-index did not make"
            in outcome["message"]
        )
        assert set(store.collections()) == {"test_notes"}
    assert project.run().state == "completed", "nothing has changed here"


def test_what_another_ledger_made_in_the_target_is_refused_and_kept(project, tmp_path, qdrant):
    other = Project(tmp_path / "other", extra=f'[store]\nurl = "{qdrant.url}"\n').fill(5)
    for _ in range(4):
        other.run(full=True)
    theirs = other.points()
    [outcome] = rebuild(project, qdrant.url, code=1)["indexes"]
    assert (
        "has an alias test_notes that points at test_notes__4, which ledger" in outcome["message"]
    )
    assert "--allow-loss takes its place" in outcome["message"]
    assert other.points() == theirs
    with (
        project.ledger() as ledger
    ):  # an unfinished rebuild of ours, for another store, with a name of theirs
        made = ledger.collection("test_notes__2")
        values = {
            name: getattr(made, name)
            for name in ("embedder_fingerprint", "embedder", "chunking", "dimension")
        }
        ledger.add_collection(
            alias="test_notes",
            name="test_notes__3",
            store_id="ours",
            state="building",
            elsewhere=1,
            **values,
        )
    said = rebuild(project, qdrant.url, "--allow-loss")
    with closing(open_store(parse_target(project.settings, qdrant.url))) as store:
        assert set(store.collections()) == {"test_notes__3", "test_notes__4", "test_notes__5"}, (
            "theirs are kept"
        )
    use(project, said["store"])
    assert project.run().state == "completed"


def test_a_collection_of_another_ledger_with_the_name_of_ours_is_not_taken_for_it(
    project, tmp_path
):
    place = tmp_path / "theirs" / "store"
    other = Project(tmp_path / "theirs", extra=f'[store]\npath = "{place}"\n').fill(5)
    for _ in range(3):
        other.run(full=True)
    rebuild(project, tmp_path / "new")
    before, theirs = names(project), other.points()
    use(project, f'path = "{place}"')
    assert "is not the one that the ledger knows" in project.run().indexes[0].message
    assert (names(project), other.points()) == (before, theirs)


def test_an_index_of_another_project_with_the_same_name_is_refused(tmp_path, qdrant):
    theirs = Project(tmp_path / "theirs", extra=f'[store]\nurl = "{qdrant.url}"\n').fill(5)
    text = theirs.config.read_text()
    theirs.write_settings(text.replace('"test"', '"desk"').replace('"notes"', '"it_notes"'))
    assert theirs.run().state == "completed"
    ours = Project(tmp_path / "ours").fill(5)
    ours.write_settings(ours.config.read_text().replace('"test"', '"desk_it"'))
    assert ours.run().state == "completed"
    [outcome] = rebuild(ours, qdrant.url, "--allow-loss", code=1)["indexes"]
    assert "belongs to index it_notes of project desk" in outcome["message"]
    assert len(theirs.points("it_notes")) == 5


def test_the_same_store_and_copies_of_it_are_refused(project, tmp_path, qdrant):
    def refused(to):
        [outcome] = rebuild(project, to, code=1)["indexes"]
        return outcome["message"]

    shutil.copytree(project.folder / ".rag-index" / "qdrant", tmp_path / "copy")
    assert (
        "is there already, so that is the store of the settings under another address, or a copy"
        in refused(tmp_path / "copy")
    )
    use(project, rebuild(project, qdrant.url)["store"])
    project.run()
    assert "is there already" in refused(qdrant.url.replace("127.0.0.1", "localhost"))
    assert names(project)[0] == ["test_notes__3"]
    assert project.run().state == "completed"


def test_what_is_no_other_store_is_a_mistake_in_one_line(project, tmp_path):
    (tmp_path / "link").symlink_to(project.folder / ".rag-index" / "qdrant")
    for to, key, message in (
        ("ftp://somewhere", None, "is not an address"),
        ("http://user:secret@somewhere", None, "must not hold a user"),
        ("localhost:6333", None, "has no scheme: write http://localhost:6333"),
        ("", None, "is empty: name a server"),
        (str(tmp_path / "new"), "key", "is a folder, which has no API key"),
        (str(project.folder / ".rag-index/qdrant"), None, "that is the store of the settings"),
        (str(tmp_path / "link"), None, "that is the store of the settings"),
    ):
        with pytest.raises(SettingsError, match=message) as raised:
            parse_target(project.settings, to, key)
        assert "\n" not in str(raised.value)
        assert "secret" not in str(raised.value)


def test_an_index_that_is_empty_has_nothing_to_take_along(tmp_path):
    project = Project(tmp_path / "project").fill(3)
    [outcome] = rebuild(project, tmp_path / "new", code=1)["indexes"]
    assert "index notes is empty: there is nothing to take to another store" in outcome["message"]
    assert project.run().indexes[0].new == 3


def test_a_server_that_is_not_there_ends_the_command_at_once(project):
    began = time.monotonic()
    out, err = run_here(
        project.config, "rebuild", "notes", "--serial", "--to", "http://127.0.0.1:9", code=1
    )
    assert (
        "Qdrant at http://127.0.0.1:9 does not answer as it should ([Errno 111] Connection refused)"
        in out
    )
    assert time.monotonic() - began < 20, (out, err)


# What the command says


def test_the_command_says_what_to_change_and_never_the_key(project, qdrant, monkeypatch):
    project.write_settings(project.config.read_text() + OTHERS)
    assert project.run("titles").state == "completed"
    asked = ("rebuild", "notes", "--serial", "--to", qdrant.url)
    assert "NOT_SET" in run_here(project.config, *asked, "--api-key-env", "NOT_SET", code=2)[1]
    monkeypatch.setenv("KEY", "s3cret")
    assert "--to" in run_here(project.config, "rebuild", "notes", "--api-key-env", "KEY", code=2)[1]
    out, err = run_here(project.config, *asked, "--api-key-env", "KEY")
    assert f'Now change {project.config}, section [store]: url = "{qdrant.url}"' in out
    assert "Its API key belongs into RAG_INDEX_STORE__API_KEY" in out
    assert f"`rag-index rebuild titles --to {qdrant.url} --api-key-env KEY`" in out
    assert "s3cret" not in out + err
    out = run_here(project.config, *asked)[0]
    assert "API" not in out.replace(str(project.folder), "")
    assert f"`rag-index rebuild titles --to {qdrant.url}`" in out
    assert printed(project, *asked)["missing"] == ["titles"]
    assert printed(project, "rebuild", "titles", "--serial", "--to", qdrant.url)["missing"] == []


def test_a_key_that_the_server_refuses_is_one_line_without_the_key(project, qdrant, monkeypatch):
    monkeypatch.setenv("KEY", "s3cret")
    qdrant.break_next(times=None, status=401, error="Invalid API key s3cret")
    asked = ("rebuild", "notes", "--serial", "--to", qdrant.url, "--api-key-env", "KEY")
    out, err = run_here(project.config, *asked, code=1)
    assert "does not allow this with the API key" in out
    assert "s3cret" not in out + err


def test_a_variable_that_comes_before_the_file_is_named(project, tmp_path, monkeypatch):
    monkeypatch.setenv("RAG_INDEX_STORE__PATH", str(project.folder / ".rag-index" / "qdrant"))
    out = run_here(project.config, "rebuild", "notes", "--serial", "--to", tmp_path / "new")[0]
    assert (
        f"Now set RAG_INDEX_STORE__PATH to {tmp_path / 'new'}, since RAG_INDEX_STORE__PATH is set."
        in out
    )


@pytest.mark.parametrize("remedy", ["there", "here"])
def test_an_index_that_was_left_in_the_former_store_is_not_called_stray(project, tmp_path, remedy):
    """Of two indexes, one was rebuilt in the other store before the settings named that."""
    project.write_settings(project.config.read_text() + OTHERS)
    assert project.run().state == "completed"
    former = project.settings.store.path
    use(project, rebuild(project, tmp_path / "new")["store"])
    [finding] = repair(project.settings).findings
    assert (finding.index, finding.kind, finding.examples) == (
        "titles",
        "left_behind",
        ("test_titles__1",),
    )
    assert "`rag-index rebuild titles --to`" in finding.remedy
    if remedy == "there":
        use(project, f'path = "{former}"')
        assert findings(project) == []
        said = printed(project, "rebuild", "titles", "--serial", "--to", str(tmp_path / "new"))
        assert said["indexes"][0]["chunks_embedded"] == 0
        use(project, said["store"])
        assert findings(project) == []
    else:
        said = printed(project, "rebuild", "titles", "--serial")
        assert said["indexes"][0]["state"] == "completed"
    assert len(project.texts("titles")) == DOCUMENTS
