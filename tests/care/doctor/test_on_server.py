"""The doctor on a Qdrant server: what another program did, and what the server refuses by rule."""

import os
from functools import partial
from unittest import mock

import jwt
import pytest
from qdrant_client import QdrantClient, models

from rag_index.care.doctor import examine, repair
from rag_index.care.export import export
from rag_index.components.stores.server import ServerStore
from rag_index.core.settings import Alias
from rag_index.errors import StoreRefused
from rag_index.etl.publish import roll_back
from tests.etl.plain import printed
from tests.fakes.qdrant import FakeQdrant
from tests.live.qdrant import SERVERS, project_on
from tests.project import Project, run_here

pytestmark = pytest.mark.filterwarnings(
    "ignore:Payload indexes have no effect", "ignore:Api key is used"
)

DOCUMENTS = 40


class Served(Project):
    """An indexed project on a server, and a client that stands for a person or another program."""

    client: QdrantClient
    alias: Alias
    fake: FakeQdrant | None = None

    def read_only(self, *names: str) -> None:
        """Use an API key from now on that may read only these collections and aliases."""
        if self.fake is not None:
            self.fake.readable = set(names)
            return
        if "QDRANT_API_KEY" not in os.environ:
            pytest.skip(
                "needs a Qdrant server with keys: set QDRANT_API_KEY, and the server's"
                " service.jwt_rbac"
            )
        master = os.environ["QDRANT_API_KEY"]
        token = jwt.encode(
            {"access": [{"collection": name, "access": "r"} for name in names]}, master
        )
        self.write_settings(self.config.read_text().replace(f'"{master}"', f'"{token}"'))

    def rows(self) -> list[str]:
        """Return the names of the collections that the ledger knows."""
        with self.ledger() as ledger:
            return [one.name for one in ledger.collections(self.alias)]

    def lose_alias(self) -> None:
        lost = models.DeleteAlias(alias_name=self.alias)
        self.client.update_collection_aliases([models.DeleteAliasOperation(delete_alias=lost)])


@pytest.fixture(params=SERVERS)
def project(request, tmp_path):
    with (
        FakeQdrant() as fake,
        project_on(request.param, partial(Served, tmp_path / "project"), fake) as project,
    ):
        store = project.settings.store
        project.fake = fake if request.param == "loopback" else None
        project.client = QdrantClient(
            store.url, api_key=None if project.fake else os.environ.get("QDRANT_API_KEY")
        )
        project.alias = project.settings.alias("notes")
        assert project.fill(DOCUMENTS).run().state == "completed"
        yield project


def test_points_that_another_program_gave_a_number_are_deleted(project):
    foreign = [
        models.PointStruct(id=i, vector=[1.0, *[0.0] * 255], payload={"n": i})
        for i in (0, 5, 2**64 - 1)
    ]
    project.client.upsert(project.alias, foreign, wait=True)
    (found,) = examine(project.settings).findings
    assert (found.kind, found.count) == ("orphan_points", 3)
    with project.store() as store:
        before = store.points(project.alias).commit_mark()
        left = repair(project.settings)
        assert before < store.points(project.alias).commit_mark(), (
            "a copy from before the repair has other points"
        )
    assert left.findings == []
    assert [one.kind for one in left.repaired] == ["orphan_points"]
    assert project.run().state == "completed"


def test_a_healthy_index_under_strict_mode_is_not_called_damaged(project, tmp_path):
    strict = models.StrictModeConfig(
        enabled=True,
        max_query_limit=1000,
        unindexed_filtering_retrieve=False,
        unindexed_filtering_update=False,
    )
    project.client.update_collection(f"{project.alias}__1", strict_mode_config=strict)
    assert examine(project.settings).findings == []
    out = tmp_path / "points.jsonl"
    count = export(project.settings, "notes", str(out))
    assert len(out.read_text().splitlines()) == count > DOCUMENTS
    assert len(printed(project, "search", "printer", "--limit", "40")["hits"]) == 40
    project.execute("DELETE FROM note WHERE id = 11")
    project.execute("UPDATE note SET body = 'short' WHERE id = 10")
    report = project.run()
    assert (report.state, report.indexes[0].changed, report.indexes[0].deleted) == (
        "completed",
        1,
        1,
    )
    said = run_here(project.config, "search", "printer", "--filter", "author=author 1", code=1)[1]
    assert "add author to payload_indexes of the index" in said


def test_a_read_that_is_refused_is_no_damage(project):
    """Nobody could look, so nothing is known, and the doctor says so."""
    strict = models.StrictModeConfig(enabled=True, search_allow_exact=False)
    project.client.update_collection(f"{project.alias}__1", strict_mode_config=strict)
    ended = project.cli("doctor")
    assert (ended.returncode, "unreadable" in ended.stdout) in {(0, False), (1, False)}, ended
    with project.store() as store, pytest.raises(StoreRefused, match=r"docs/servers\.md"):
        store.points(f"{project.alias}__1").count()
    report = project.run()
    assert report.exit_code == 1
    assert (
        "search_allow_exact" in report.indexes[0].message
        or "Exact search disabled" in report.indexes[0].message
    )


@pytest.mark.long
def test_an_alias_that_is_lost_after_a_rollback_is_set_to_what_fits_and_was_not_left(project):
    text = project.config.read_text()
    project.write_settings(text.replace("chunk_chars = 200", "chunk_chars = 300"))
    assert project.run(full=True).state == "completed"
    project.write_settings(text)
    assert printed(project, "rollback", "notes")["live"] == f"{project.alias}__1"
    project.lose_alias()
    finding = next(one for one in examine(project.settings).findings if one.kind == "missing_alias")
    assert (finding.examples, repair(project.settings).findings) == ((f"{project.alias}__1",), [])
    assert project.run(full=True).state == "completed"  # now the third and the first fit
    for live in (f"{project.alias}__1", f"{project.alias}__3"):
        assert printed(project, "rollback", "notes")["live"] == live
        project.lose_alias()
        repair(project.settings)
        assert printed(project, "status")["indexes"][0]["collection"] == live


def test_a_rollback_that_dies_once_readers_have_it_is_not_undone_when_the_alias_is_lost(project):
    assert project.run(full=True).state == "completed"
    point = ServerStore.point_alias

    def point_and_die(store, *names):
        point(store, *names)
        raise KeyboardInterrupt

    dying = mock.patch.object(ServerStore, "point_alias", point_and_die)
    with (
        dying,
        project.store() as store,
        project.ledger() as ledger,
        pytest.raises(KeyboardInterrupt),
    ):
        roll_back(ledger, store, project.alias, "notes")
    project.lose_alias()
    assert repair(project.settings).findings == []
    assert printed(project, "status")["indexes"][0]["collection"] == f"{project.alias}__1"


def test_a_collection_with_the_name_of_the_alias_is_refused_before_anything_is_made(project):
    project.write_settings(project.config.read_text().replace('name = "notes"', 'name = "others"'))
    foreign = project.settings.alias("others")
    project.client.create_collection(
        foreign, models.VectorParams(size=3, distance=models.Distance.DOT)
    )
    report = project.run()
    assert report.exit_code == 1
    assert (
        f"a collection named {foreign}, which rag-index did not make" in report.indexes[0].message
    )
    assert "give this project another name (`project`" in report.indexes[0].message
    assert f"{foreign}__1" not in {one.name for one in project.client.get_collections().collections}
    [planned] = printed(project, "plan", code=1)["indexes"]
    assert (planned["error"], planned["new"]) == (report.indexes[0].message, 0)
    assert "foreign_collection" in {one.kind for one in examine(project.settings).findings}
    assert {one.kind for one in repair(project.settings).findings} == {"foreign_collection"}


def test_a_rebuild_does_not_take_the_place_of_what_another_machine_keeps(project, tmp_path):
    second = Served(tmp_path / "second").fill(3)
    second.write_settings(project.config.read_text())
    second.alias = project.alias
    report = second.run(full=True)
    assert report.exit_code == 1
    assert f"{project.alias}__1 is live as {project.alias}" in report.indexes[0].message
    assert "another machine may keep it up to date" in report.indexes[0].message
    assert project.run().indexes[0].unchanged == DOCUMENTS
    assert second.run(full=True, allow_loss=True).state == "completed"
    assert second.rows() == [f"{project.alias}__2"]


# API keys that may read one collection


@pytest.mark.long
def test_a_key_for_one_index_searches_it_and_what_it_may_not_see_is_not_lost(project, tmp_path):
    settings = project.config.read_text()
    project.write_settings(
        settings + settings[settings.index("[[indexes]]") :].replace('"notes"', '"more"')
    )
    project.run("more")
    project.read_only(project.alias)
    found = printed(project, "search", "printer", "--limit", "3", code=3)
    assert {hit["index"] for hit in found["hits"]} == {"notes"}
    assert "is required" in found["errors"]["more"]
    project.write_settings(project.config.read_text().partition('[[indexes]]\nname = "more"')[0])
    [shown] = printed(project, "status")["indexes"]
    assert (shown["collection"], shown["documents"]) == (f"{project.alias}__1", DOCUMENTS)
    assert export(project.settings, "notes", str(tmp_path / "out")) == shown["points"]
    for look in (examine, repair):
        with pytest.raises(
            StoreRefused,
            match=f"collection {project.alias}__1 is required.*give the key more access",
        ):
            look(project.settings)
    assert project.rows() == [f"{project.alias}__1"]


def test_a_key_for_a_collection_is_told_that_it_needs_the_alias(project):
    """The alias alone says which collection is live."""
    project.read_only(f"{project.alias}__1")
    for command in ("search printer", "doctor", "doctor --repair", "plan", "status"):
        said = run_here(project.config, *command.split(), code=1)[1]
        assert f"collection {project.alias} is required" in said, command
    assert project.rows() == [f"{project.alias}__1"]
