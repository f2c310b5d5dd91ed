"""The collection of an index: what makes it searchable, which release and which model without a
digest made it, and, where two projects' names make one alias in one store, that no command of one
touches what is the other's."""

import pickle
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest

from rag_index.care.doctor import examine
from rag_index.care.plan import plan_runs
from rag_index.components.embedders import EmbedderIdentity
from rag_index.components.stores.edge.edge_points import EdgePoints
from rag_index.components.stores.server import ServerStore
from rag_index.components.stores.server.link import ServerAccess
from rag_index.core.documents import INDEX_CHANGES, INDEX_VERSION
from rag_index.core.settings import Alias
from rag_index.etl import run as run_module
from rag_index.etl.changed import index_documents
from rag_index.etl.collection import make_searchable
from rag_index.etl.run import search_index_due
from tests.etl.plain import printed, run_plain, watched_run
from tests.fakes.ollama import FakeOllama, vector_of
from tests.project import SETTINGS, Project, run_here

IDENTITY = EmbedderIdentity("local", "wordllama", "d" * 64, 4, "doc: ", "query: ")
RELEASED = f"text-1/200/0/bm25-4-english/index-{INDEX_VERSION - 1}"
"""How a release before this one recorded what made an index."""
EMBEDDER = '[embedder]\nkind = "openai"\nmodel = "fake-embed"\nurl = "{url}/v1"\n'
DOCUMENTS = 12
ALIAS = "desk_it_notes"
REFUSED = (
    "belongs to index it_notes of project desk, and index notes of project desk_it would have the"
    " same name: give"
)
WRITERS = [
    "index",
    "index notes --id 3",
    "index --allow-deletes",
    "rebuild notes",
    "rebuild notes --allow-loss",
    "index-all notes --retry-failed",
    "rollback notes",
    "doctor",
    "doctor --repair",
    "drop notes --yes",
    "erase notes",
]
READERS = ["search printer", "export notes --out -", "search --like notes/3", "plan"]
BOTH = pytest.mark.parametrize("shared", ["embedded", "server"], indirect=True)


def test_payload_indexes_follow_the_settings_and_nothing_is_done_twice(qdrant):
    with closing(ServerStore(ServerAccess(qdrant.url))) as store:
        store.create("c", 4, {"other": 1})
        ours = dict(qdrant.indexes["c"])
        for fields in ({"priority": "keyword", "number": "float"}, {"priority": "integer"}, {}):
            make_searchable(store.points("c"), IDENTITY, fields)
            assert qdrant.indexes["c"] == ours | fields
            before = qdrant.requests("/collections/c/index"), qdrant.requests("PATCH")
            make_searchable(store.points("c"), IDENTITY, fields)
            assert (qdrant.requests("/collections/c/index"), qdrant.requests("PATCH")) == before
        metadata = store.points("c").metadata()
        assert (EmbedderIdentity(**metadata["embedder_identity"]), metadata["other"]) == (
            IDENTITY,
            1,
        )


def test_a_run_follows_the_payload_indexes_of_the_settings_and_says_which_are_empty(tmp_path):
    """SQLite has neither booleans nor JSON: it gives numbers and text, and filters that expect more
    find nothing."""
    project = Project(tmp_path / "project").fill(2)
    run_plain(project)
    for column, value in (("urgent", 1), ("meta", '{"tag": "x"}'), ("blank", None)):
        project.execute(f"ALTER TABLE note ADD {column}")
        project.execute(f"UPDATE note SET {column} = ?", value)
    kinds = {
        "urgent": "bool",
        "meta.tag": "keyword",
        "blank": "bool",
        "author": "keyword",
        "priority": "integer",
    }
    added = ", ".join(f'"{field}" = "{kind}"' for field, kind in kinds.items())
    text = project.config.read_text().replace(
        '"priority"]', '"priority", "urgent", "meta", "blank"]'
    )
    project.config.write_text(f"{text}payload_indexes = {{ {added} }}\n")
    assert (
        run_plain(project).message
        == "the payload index on urgent is empty: its kind is bool, and the source gives other"
        " values; the payload index on meta.tag is empty: its kind is keyword, and the source"
        " gives other values"
    )
    with project.store() as store:
        assert store.points("test_notes__1").metadata()["payload_indexes"] == {
            **kinds,
            "_rag.chunk": "integer",
        }


@pytest.mark.parametrize(
    ("dimension", "indexed", "due"), [(256, False, False), (768, False, True), (768, True, False)]
)
def test_a_run_builds_only_what_is_large_and_lacks_it(dimension, indexed, due):
    points = SimpleNamespace(indexed=lambda: indexed, count=lambda: 100_000)
    assert search_index_due(points, dimension) == due


def test_a_run_is_complete_before_it_builds_the_search_index_and_single_documents_build_none(
    tmp_path, monkeypatch
):
    project, seen = Project(tmp_path / "project").fill(20), []

    def note_state(points):
        with project.ledger() as ledger:
            seen.append(ledger.last_run("test_notes").state)

    monkeypatch.setattr(run_module, "AUTO_MB", 0)
    monkeypatch.setattr(EdgePoints, "indexed", lambda points: False)
    monkeypatch.setattr(EdgePoints, "optimize", note_state)
    assert (project.run().state, seen) == ("completed", ["completed"])
    project.execute("UPDATE note SET body = 'changed' WHERE id = 5")
    assert (index_documents(project.settings, "notes", ["5"]).changed, seen) == (1, ["completed"])


def made_as(project: Project, chunking: str) -> None:
    with project.ledger() as ledger:
        (collection,) = ledger.collections()
        ledger.update_collection(collection.id, chunking=chunking)


def test_an_index_of_an_older_release_says_why_it_must_be_rebuilt_and_is_rebuilt_once(
    project: Project,
) -> None:
    project.fill(30).run()
    made_as(project, RELEASED)
    why = (
        f"test_notes__1 was made by an older rag-index; {INDEX_CHANGES}: run `rag-index rebuild"
        " notes`"
    )
    assert why in run_here(project.config, "status")[0].splitlines()[-1]
    assert printed(project, "plan", code=1)["indexes"][0]["error"] == why
    assert project.run().indexes[0].message == why
    assert printed(project, "doctor", code=3)["findings"][0]["message"] == why.partition(": run")[0]
    assert printed(project, "search", "note 7")["hits"]
    assert project.run(full=True).state == "completed"
    assert printed(project, "status")["indexes"][0]["outdated"] == ""
    assert printed(project, "status", "--report")["runs"][0]["metrics"]["texts"] == 0
    assert project.run().indexes[0].unchanged == 30


def test_an_index_of_a_newer_release_is_not_written_by_an_older_one(project):
    project.fill(3).run()
    made_as(project, f"text/200/0/index-{INDEX_VERSION + 10}")
    assert (
        project.run()
        .indexes[0]
        .message.startswith("test_notes__1 was made by a newer rag-index: run")
    )


def test_another_query_prefix_asks_for_a_rebuild_that_embeds_nothing(project: Project) -> None:
    project.fill(30).run()
    before = project.points()
    project.write_settings(f'{project.config.read_text()}\n[embedder]\nquery_prefix = "query: "\n')
    assert "query prefix 'query: '" in project.run().indexes[0].message
    assert project.run(full=True).state == "completed"
    assert printed(project, "status", "--report")["runs"][0]["metrics"]["texts"] == 0
    after = project.points()
    assert after.keys() == before.keys()
    assert all(after[key][1] == vector for key, (_, vector) in before.items())


@pytest.fixture
def hosted(tmp_path):
    with FakeOllama(dimension=64) as server:
        extra = EMBEDDER.format(url=server.url)
        made = Project(tmp_path / "project", extra).fill(12)
        table = SETTINGS[SETTINGS.index("[[indexes]]") :]
        made.write_settings(SETTINGS.format(extra=extra) + table.replace('"notes"', '"again"'))
        yield made


def fingerprints(project):
    with project.store() as store:
        found = [
            store.points(project.settings.alias(name)).metadata() for name in ("notes", "again")
        ]
    return {one["embedder_fingerprint"] for one in found} | {
        one["embedder_identity"]["digest"] for one in found
    }


def test_noise_is_no_other_model(hosted, monkeypatch):
    """Every vector is a little different each time, as those of a busy GPU are. The first one that
    was recorded counts for all indexes, so that searches embed a query once for both."""
    chance = np.random.default_rng(7)

    def noisy(text, dimension):
        return (
            np.asarray(vector_of(text, dimension)) + 0.002 * chance.standard_normal(dimension)
        ).tolist()

    monkeypatch.setattr("tests.fakes.ollama.vector_of", noisy)
    assert hosted.run().exit_code == 0
    recorded = fingerprints(hosted)
    assert len(recorded) == 2
    hosted.fill(3, first=13)
    report = hosted.run()
    assert (report.exit_code, [one.unchanged for one in report.indexes]) == (0, [12, 12])
    assert fingerprints(hosted) == recorded
    assert [one.message for one in plan_runs(hosted.settings, hosted.settings.indexes)] == ["", ""]
    assert not examine(hosted.settings).findings


def test_another_model_of_the_same_name_is_refused_until_a_rebuild_which_reuses_no_vector(
    hosted, monkeypatch
):
    hosted.run()
    before, old = hosted.points(), fingerprints(hosted)
    monkeypatch.setattr(
        "tests.fakes.ollama.vector_of", lambda text, size: vector_of(f"another {text}", size)
    )
    hosted.fill(1, first=13)
    report = hosted.run("notes")
    assert report.exit_code != 0
    assert "rag-index rebuild notes" in report.indexes[0].message
    assert (hosted.points(), hosted.run(full=True).exit_code) == (before, 0)
    after = hosted.points()
    assert all(after[one][1] != vector for one, (_, vector) in before.items())
    assert not fingerprints(hosted) & old


@pytest.fixture
def shared(request, tmp_path):
    """The settings of a store that several projects share."""
    if getattr(request, "param", "embedded") == "embedded":
        return f'[store]\npath = "{tmp_path / "shared"}"'
    return (
        f'[store]\nurl = "{request.getfixturevalue("qdrant").url}"\n[store.server]\ngrpc_port = 0'
    )


def project_of(folder, name: str, index: str, extra: str) -> Project:
    project = Project(folder / name, extra=extra).fill(DOCUMENTS)
    text = project.config.read_text().replace('project = "test"', f'project = "{name}"')
    project.write_settings(text.replace('name = "notes"', f'name = "{index}"'))
    return project


@pytest.fixture
def first(tmp_path, shared) -> Project:
    """A project that has indexed twice, so that the store keeps a collection for a rollback."""
    first = project_of(tmp_path, "desk", "it_notes", shared)
    assert first.run().state == first.run(full=True).state == "completed"
    return first


@pytest.fixture
def second(tmp_path, shared) -> Project:
    return project_of(tmp_path, "desk_it", "notes", shared)


def content(project: Project):
    with project.store() as store:
        metadata = store.collections()
        points = {
            name: [(point.id, point.payload) for point in store.points(name).scroll()]
            for name in sorted(metadata)
        }
        return store.aliases(), metadata, points


def refused(project: Project, command: str) -> str:
    """Return what a command that must fail has said."""
    return "\n".join(
        run_here(project.config, *command.split(), code=3 if command.startswith("doctor") else 1)
    )


@pytest.mark.long
@BOTH
def test_no_command_touches_what_is_another_projects_and_no_watch_does(first, second):
    before = content(first)
    assert set(before[2]) == {f"{ALIAS}__1", f"{ALIAS}__2"}
    for command in [*WRITERS, *READERS]:
        assert REFUSED in refused(second, command), command
        assert content(first) == before, command
    assert REFUSED in str(watched_run(second).error)
    assert (content(first), first.run().state, first.run(full=True).state) == (
        before,
        "completed",
        "completed",
    )
    assert sorted(content(first)[2]) == [
        f"{ALIAS}__2",
        f"{ALIAS}__3",
    ], "the owner keeps one and drops the oldest"


@pytest.mark.long
@BOTH
def test_an_alias_that_is_lost_is_not_free(first, second, tmp_path):
    with first.store() as store:
        store.point_alias("other", f"{ALIAS}__2")
        store.create("other__1", 4, {"alias": "other"})
        store.point_alias(ALIAS, "other__1")
    for command in ("index", "rebuild notes --allow-loss", "doctor --repair", "drop notes --yes"):
        assert REFUSED in refused(second, command)
    run_here(first.config, "doctor", "--repair")
    assert content(first)[0][ALIAS] == f"{ALIAS}__2"


def test_a_ledger_that_two_projects_share_changes_nothing_of_that(first, second):
    both = f'[ledger]\nurl = "sqlite:///{first.folder}/both.db"\n[source]'
    for project in (first, second):
        project.write_settings(project.config.read_text().replace("[source]", both))
    run_here(first.config, "doctor", "--repair")
    before = content(first)
    for command in WRITERS[3:]:
        assert REFUSED in refused(second, command), command
    assert content(first) == before


def test_a_ledger_that_was_lost_is_filled_from_its_own_collection(first):
    before = content(first)
    (first.folder / ".rag-index" / "ledger.db").unlink()
    run_here(first.config, "doctor", "--repair")
    after = content(first)
    assert (after[0], after[2], first.run().indexes[0].unchanged) == (
        before[0],
        before[2],
        DOCUMENTS,
    )


def test_an_alias_is_a_text_that_knows_whose_it_is():
    alias = pickle.loads(pickle.dumps(Alias("desk_it", "notes")))
    assert (alias, alias.owner) == (ALIAS, {"project": "desk_it", "index": "notes"})
    assert alias == Alias("desk", "it_notes")
    assert alias.owner != Alias("desk", "it_notes").owner
