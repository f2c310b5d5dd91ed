"""The doctor on a Qdrant server: what another program did, and what the server refuses by rule."""

from __future__ import annotations

import os
import uuid
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from qdrant_client import QdrantClient, models

from rag_index.doctor import examine, repair
from rag_index.errors import StoreRefused
from rag_index.stores import open_store
from rag_index.transfer.export import export
from tests.fakes.qdrant import FakeQdrant
from tests.project import Project

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
    pytest.mark.filterwarnings("ignore:Api key is used"),
]

DOCUMENTS = 150


class Served(Project):
    """An indexed project on a server, and a client that stands for a person or another program."""

    client: QdrantClient
    alias: str

    def never(self, names: list[str], rebuild: bool) -> None:
        raise AssertionError(f"nothing has to be embedded: {names}, {rebuild}")


@pytest.fixture(params=["loopback", pytest.param("real", marks=pytest.mark.qdrant_server)])
def project(request: pytest.FixtureRequest, tmp_path) -> Iterator[Served]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    if request.param == "loopback":
        with FakeQdrant() as fake:
            yield _indexed(tmp_path, name, fake.url, None)
        return
    if "QDRANT_URL" not in os.environ:
        pytest.skip("needs a Qdrant server: set QDRANT_URL")
    project = _indexed(tmp_path, name, os.environ["QDRANT_URL"], os.environ.get("QDRANT_API_KEY"))
    yield project
    with closing(open_store(project.settings.store)) as store:
        for collection in store.collections():
            if collection.startswith(f"{name}_"):
                store.drop(collection)


def _indexed(folder, name: str, url: str, key: str | None) -> Served:
    extra = f'[store]\nurl = "{url}"' + (f'\napi_key = "{key}"' if key else "")
    project = Served(folder / "project", extra=extra).fill(DOCUMENTS)
    project.write_settings(project.config.read_text().replace('project = "test"', f'project = "{name}"'))
    project.client, project.alias = QdrantClient(url, api_key=key), f"{name}_notes"
    assert project.run().state == "completed"
    return project


def test_points_that_another_program_gave_a_number_are_deleted(project):
    foreign = [models.PointStruct(id=i, vector=[1.0, *[0.0] * 255], payload={"n": i}) for i in (5, 2**40)]
    project.client.upsert(project.alias, foreign, wait=True)
    (found,) = examine(project.settings).findings
    assert (found.kind, found.count) == ("orphan_points", 2)
    with closing(open_store(project.settings.store)) as store:
        before = store.commit_mark(project.alias)
        left = repair(project.settings, None, project.never)
        assert before < store.commit_mark(project.alias), "a copy from before the repair has other points"
    assert left.findings == []
    assert [one.kind for one in left.repaired] == ["orphan_points"]
    assert project.run().state == "completed"


def test_a_healthy_index_under_strict_mode_is_not_called_damaged(project, tmp_path):
    strict = models.StrictModeConfig(
        enabled=True, max_query_limit=100, unindexed_filtering_retrieve=False, unindexed_filtering_update=False
    )
    project.client.update_collection(f"{project.alias}__1", strict_mode_config=strict)
    assert examine(project.settings).findings == []
    out = tmp_path / "points.jsonl"
    count = export(project.settings, "notes", str(out))
    assert len(out.read_text().splitlines()) == count > DOCUMENTS
    found = project.json("search", "printer", "--limit", "150")
    assert len(found["hits"]) == 150
    project.execute("DELETE FROM note WHERE id = 11")
    project.execute("UPDATE note SET body = 'short' WHERE id = 10")
    report = project.run()
    assert (report.state, report.indexes[0].changed, report.indexes[0].deleted) == ("completed", 1, 1)
    ended = project.cli("search", "printer", "--filter", "author=author 1")
    assert ended.returncode == 1
    assert "add author to payload_indexes of the index" in ended.stderr


def test_a_read_that_is_refused_is_no_damage(project):
    """Nobody could look, so nothing is known: the doctor says so, and a repair does not build the index again."""
    strict = models.StrictModeConfig(enabled=True, search_allow_exact=False)
    project.client.update_collection(f"{project.alias}__1", strict_mode_config=strict)
    ended = project.cli("doctor")
    assert (ended.returncode, "unreadable" in ended.stdout) in {(0, False), (1, False)}, ended
    with closing(open_store(project.settings.store)) as store, pytest.raises(StoreRefused, match=r"docs/servers\.md"):
        store.count(f"{project.alias}__1")
    report = project.run()
    assert report.exit_code == 1
    assert "search_allow_exact" in report.indexes[0].message or "Exact search disabled" in report.indexes[0].message


def test_what_a_person_set_on_the_collection_outlives_a_rebuild(project):
    int8 = models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8))
    project.client.update_collection(
        f"{project.alias}__1",
        hnsw_config=models.HnswConfigDiff(m=32),
        vectors_config={"": models.VectorParamsDiff(on_disk=True)},
        quantization_config=int8,
    )
    assert project.run(full=True).state == "completed"
    assert project.json("status")["indexes"][0]["collection"] == f"{project.alias}__2"
    config = project.client.get_collection(f"{project.alias}__2").config
    assert config.hnsw_config.m == 32
    assert config.params.vectors.on_disk is True
    assert config.quantization_config.scalar.type == models.ScalarType.INT8


def test_a_lost_alias_after_a_rollback_comes_back_to_the_collection_that_fits(project):
    text = project.config.read_text()
    project.write_settings(text.replace("chunk_chars = 200", "chunk_chars = 300"))
    assert project.run(full=True).state == "completed"
    project.write_settings(text)
    assert project.json("rollback", "notes")["live"] == f"{project.alias}__1"
    with closing(open_store(project.settings.store)) as store:
        assert set(store.collections()) >= {f"{project.alias}__1", f"{project.alias}__2"}
    project.client.update_collection_aliases(
        [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=project.alias))]
    )
    finding = next(one for one in examine(project.settings).findings if one.kind == "missing_alias")
    assert finding.examples == (f"{project.alias}__1",)
    assert repair(project.settings, None, project.never).findings == []
    assert project.run().state == "completed"


def test_a_collection_with_the_name_of_the_alias_is_refused_before_anything_is_made(project):
    project.write_settings(project.config.read_text().replace('name = "notes"', 'name = "others"'))
    foreign = f"{project.settings.alias('others')}"
    project.client.create_collection(foreign, models.VectorParams(size=3, distance=models.Distance.DOT))
    report = project.run()
    assert report.exit_code == 1
    assert f"a collection named {foreign}, which rag-index did not make" in report.indexes[0].message
    assert "give this project another name" in report.indexes[0].message
    assert f"{foreign}__1" not in {one.name for one in project.client.get_collections().collections}
