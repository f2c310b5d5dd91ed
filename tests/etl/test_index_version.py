"""One version of all that makes an index: a user who upgrades rebuilds once, is told why, and embeds nothing again."""

from contextlib import closing

import pytest

from rag_index.components.ledger import Ledger
from rag_index.core.documents import INDEX_CHANGES, INDEX_VERSION
from tests.project import Project

RELEASED = "text-1/200/0/bm25-4-english/canonical-1"
"""How the first release recorded what made an index."""


def made_as(project: Project, chunking: str) -> None:
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        (collection,) = ledger.collections()
        ledger.update_collection(collection.id, chunking=chunking)


def test_an_index_of_an_older_release_says_why_it_must_be_rebuilt_and_is_rebuilt_once(project: Project) -> None:
    project.fill(30).run()
    made_as(project, RELEASED)
    why = f"test_notes__1 was made by an older rag-index; {INDEX_CHANGES}: run `rag-index rebuild notes`"
    assert why in project.cli("status").stdout.splitlines()[-1]
    assert project.json("plan", code=1)["indexes"][0]["error"] == why
    assert project.run().indexes[0].message == why
    assert project.json("doctor", code=3)["findings"][0]["message"] == why.partition(": run")[0]
    assert project.json("search", "note 7")["hits"]
    assert project.run(full=True).state == "completed"
    assert project.json("status")["indexes"][0]["outdated"] == ""
    assert project.json("status", "--report")["runs"][0]["metrics"]["texts"] == 0
    assert project.run().indexes[0].unchanged == 30


@pytest.mark.parametrize("newer", [INDEX_VERSION + 1, INDEX_VERSION + 10])
def test_an_index_of_a_newer_release_is_not_written_by_an_older_one(project: Project, newer: int) -> None:
    project.fill(3).run()
    made_as(project, f"text/200/0/index-{newer}")
    assert project.run().indexes[0].message.startswith("test_notes__1 was made by a newer rag-index: run")


def test_another_query_prefix_asks_for_a_rebuild_that_embeds_nothing(project: Project) -> None:
    project.fill(30).run()
    before = project.points()
    project.write_settings(f'{project.config.read_text()}\n[embedder]\nquery_prefix = "query: "\n')
    assert "query prefix 'query: '" in project.run().indexes[0].message
    assert project.run(full=True).state == "completed"
    assert project.json("status", "--report")["runs"][0]["metrics"]["texts"] == 0
    assert {key: point[1] for key, point in project.points().items()} == {
        key: point[1] for key, point in before.items()
    }
