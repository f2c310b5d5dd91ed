"""Two projects whose names make one alias, in one store: nothing of the first is touched by a command of the second."""

import pickle

import pytest

from rag_index.components.stores import OWNER
from rag_index.core.settings import Alias
from tests.etl.plain import watched_run
from tests.fakes.qdrant import FakeQdrant
from tests.project import Project, run_here

DOCUMENTS = 12
ALIAS = "desk_it_notes"
REFUSED = "belongs to index it_notes of project desk, and index notes of project desk_it would have the same name: give"
WRITERS = [
    "index", "index notes --id 3", "index --allow-deletes", "rebuild notes", "rebuild notes --allow-loss",
    "index-all notes --retry-failed", "rollback notes", "doctor", "doctor --repair", "drop notes --yes", "erase notes",
    "move --to elsewhere",
]  # fmt: skip
READERS = ["search printer", "export notes --out -", "search --like notes/3", "plan"]


BOTH = pytest.mark.parametrize("shared", ["embedded", "server"], indirect=True)


@pytest.fixture
def shared(request, tmp_path):
    """The settings of a store that several projects share."""
    if getattr(request, "param", "embedded") == "embedded":
        yield f'[store]\npath = "{tmp_path / "shared"}"'
        return
    with FakeQdrant() as fake:
        yield f'[store]\nurl = "{fake.url}"\n[store.server]\ngrpc_port = 0'


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
        points = {name: [(point.id, point.payload) for point in store.scroll(name)] for name in sorted(metadata)}
        return store.aliases(), metadata, points


def change_metadata(project: Project, **values) -> None:
    with project.store() as store:
        for name in store.names():
            store.set_metadata(name, values)


def refused(project: Project, command: str) -> str:
    """Return what a command that must fail has said."""
    return "\n".join(run_here(project.config, *command.split(), code=3 if command.startswith("doctor") else 1))


@pytest.mark.long
@BOTH
def test_no_command_touches_what_is_another_projects(first, second):
    before = content(first)
    assert set(before[2]) == {f"{ALIAS}__1", f"{ALIAS}__2"}
    for command in [*WRITERS, *READERS]:
        assert REFUSED in refused(second, command), command
        assert content(first) == before, command
    assert first.run().state == "completed"
    assert first.run(full=True).state == "completed"
    assert sorted(content(first)[2]) == [f"{ALIAS}__2", f"{ALIAS}__3"], "the owner keeps one and drops the oldest"


def test_a_collection_without_a_mark_is_known_by_its_points(first, second):
    change_metadata(first, **{OWNER: None})
    before = content(first)
    for command in WRITERS[3:]:
        said = refused(second, command)
        assert REFUSED in said or "does not know it" in said, command
        assert content(first) == before, command
    first.run()
    assert content(first)[1][f"{ALIAS}__2"][OWNER] == {"project": "desk", "index": "it_notes"}


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


def test_a_run_of_a_watch_is_refused(first, second):
    before = content(first)
    assert REFUSED in str(watched_run(second).error)
    assert content(first) == before


def test_a_ledger_that_two_projects_share_changes_nothing_of_that(first, second):
    for project in (first, second):
        text = project.config.read_text()
        project.write_settings(
            text.replace("[source]", f'[ledger]\nurl = "sqlite:///{first.folder}/both.db"\n[source]')
        )
    run_here(first.config, "doctor", "--repair")
    before = content(first)
    for command in WRITERS[3:]:
        assert REFUSED in refused(second, command), command
    assert content(first) == before


@BOTH
def test_a_move_leaves_another_projects_collections_in_the_target(first, second, tmp_path):
    text = second.config.read_text()
    at = text.index("[store]")
    second.write_settings(text[:at] + f'[store]\npath = "{tmp_path / "own"}"\n' + text[text.index("[[indexes]]") :])
    assert second.run().state == "completed"
    before = content(first)
    target = first.settings.store.url or first.settings.store.path
    assert REFUSED in "\n".join(run_here(second.config, "move", "--to", target, code=1))
    assert content(first) == before


def test_a_ledger_that_was_lost_is_filled_from_its_own_collection(first):
    before = content(first)
    (first.folder / ".rag-index" / "ledger.db").unlink()
    run_here(first.config, "doctor", "--repair")
    after = content(first)
    assert (after[0], after[2]) == (before[0], before[2])
    assert first.run().indexes[0].unchanged == DOCUMENTS


def test_an_alias_is_a_text_that_knows_whose_it_is():
    alias = pickle.loads(pickle.dumps(Alias("desk_it", "notes")))
    assert (alias, alias.owner) == (ALIAS, {"project": "desk_it", "index": "notes"})
    assert alias == Alias("desk", "it_notes")
    assert alias.owner != Alias("desk", "it_notes").owner
