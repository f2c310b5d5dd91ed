"""An embedder that learned the corpus: what it finds then, and which collection uses which table."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from rag_index.embedders import open_embedder
from rag_index.embedders.local import settings_for
from rag_index.indexing.changed import BatchIndexer, index_documents
from rag_index.ledger import Ledger
from rag_index.retrieve import Retriever
from tests.project import Project
from tests.twin import twin

SLANG = "falcon walnut violin glacier candle pepper anchor tiger copper saddle orchid marble".split()
OFFICIAL = "invoice printer network password keyboard monitor license backup mailbox scanner firewall router".split()
FILLERS = "today again please somebody office morning floor team before without always since nobody quickly".split()
NOTES = 360


def words(rng: np.random.Generator, count: int) -> str:
    return " ".join(rng.choice(FILLERS, count))


@pytest.fixture(scope="module")
def indexed(tmp_path_factory) -> Project:
    """Notes whose titles have a word of slang for what their texts name, and a note without a title for each thing."""
    project = Project(tmp_path_factory.mktemp("adapt") / "project")
    rng = np.random.default_rng(3)
    rows = []
    for i in range(NOTES):
        slang, official = SLANG[i % len(SLANG)], OFFICIAL[i % len(SLANG)]
        rows.append((i, f"{slang} {words(rng, 4)}", f"{words(rng, 6)} {official} {words(rng, 6)}"))
    rows += [(1000 + i, "", f"the {one}") for i, one in enumerate(OFFICIAL)]
    with project.source() as db:
        db.executemany("INSERT INTO note (id, title, body) VALUES (?, ?, ?)", rows)
    project.write_settings(project.config.read_text() + 'search = "dense"\n')
    assert project.run().exit_code == 0
    return project


@pytest.fixture(scope="module")
def adapted(indexed, tmp_path_factory) -> Project:
    project = twin(indexed, tmp_path_factory.mktemp("adapted") / "project")
    found = project.json("adapt")
    assert found["model"] is not None
    assert found["after"]["MRR@10"]["low"] > found["before"]["MRR@10"]["mean"]
    return project


@pytest.fixture
def project(adapted, tmp_path) -> Project:
    """A project with an index of the plain model, and a table that the next rebuild uses."""
    return twin(adapted, tmp_path / "project")


def found_by_slang(project: Project) -> int:
    """Return for how many words of slang the note that only names the thing is among the first 40."""
    with Retriever.from_settings(project.settings) as retriever:
        hits = [retriever.search_sync(slang, limit=40).hits for slang in SLANG]
    return sum(f"{1000 + number}" in [hit.document_id for hit in one] for number, one in enumerate(hits))


def live(project: Project) -> str:
    """Return the model of the live collection, after checking that its vectors are what that model makes."""
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        name = project.json("status")["indexes"][0]["collection"]
        made_by = ledger.collection(name).embedder
    with closing(open_embedder(settings_for(project.settings.embedder, made_by))) as embedder:
        for payload, vector in list(project.points().values())[:3]:
            expected = embedder.embed_documents([payload["_rag"]["text"]])[0]
            assert np.allclose(vector, expected, atol=1e-6)
        return embedder.identity().model


def tables(project: Project) -> list[Path]:
    return sorted(project.settings.embedder.tables.glob("*.npy"))


def test_equal_documents_give_an_equal_table_by_titles_or_by_first_lines(project):
    [path] = tables(project)
    content = path.read_bytes()
    path.unlink()
    learned = project.json("adapt")
    assert (learned["model"], learned["titles"] > NOTES * 0.8) == (path.stem, True)
    assert path.read_bytes() == content
    text = project.config.read_text()
    project.write_settings(text.replace('text = ["title", "body"]', 'title = "title"\ntext = ["body"]'))
    assert project.json("adapt")["titles"] == learned["titles"]


def test_only_a_rebuild_takes_the_table_which_finds_more_and_a_rollback_takes_it_back(project):
    [table] = tables(project)
    project.execute("UPDATE note SET body = 'another text of some words' WHERE id = 1")
    assert project.run().exit_code == 0
    assert (live(project), found_by_slang(project) <= 6) == ("wordllama", True)
    assert project.run(full=True).exit_code == 0
    assert (live(project), found_by_slang(project) >= 11) == (table.stem, True)
    project.execute("UPDATE note SET body = 'a third text of some words' WHERE id = 1")
    assert index_documents(project.settings, "notes", ["1"]).state == "completed"
    assert project.json("plan")["indexes"][0].get("error") is None
    assert project.json("doctor")["findings"] == []
    assert live(project) == table.stem
    assert project.cli("rollback", "notes").returncode == 0
    assert project.run().exit_code == 0
    assert live(project) == "wordllama"


def test_a_watch_embeds_with_the_table_of_what_is_live_now(project):
    with closing(BatchIndexer(project.settings)) as indexer, closing(Ledger(project.settings.ledger_url)) as ledger:
        for number, rebuild in enumerate((False, True)):
            project.run(full=rebuild)
            project.execute("UPDATE note SET body = ? WHERE id = 2", f"text {number} of a few words")
            ledger.put_changes([("test_notes", "2", 0.0)])
            assert indexer.index("notes").error is None
            assert live(project).startswith("wordllama-adapted-") == rebuild
            assert f"text {number}" in project.texts()["2"][0]


def test_a_table_is_kept_while_a_collection_uses_it_and_one_that_cannot_be_used_is_told_with_the_remedy(project):
    assert project.run(full=True).exit_code == 0
    [table] = tables(project)
    content = table.read_bytes()
    table.unlink()
    for damage, command in (("missing", ["search", "falcon"]), ("damaged", ["index", "notes"])):
        ended = project.cli(*command)
        assert ended.returncode == 1
        line = ended.stderr.splitlines()[-1]
        assert f"{table.name} is {damage}: put the file back" in line
        assert "rag-index adapt --undo" in line
        table.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    table.write_bytes(content)
    for undone, kept in ((True, [table]), (False, [table]), (False, [])):  # a rollback needs it the second time
        assert project.json("adapt", "--undo") == {"undone": undone}
        assert tables(project) == kept
        assert project.run(full=True).exit_code == 0
        assert live(project) == "wordllama"


def test_nothing_is_written_if_there_is_nothing_to_learn(tmp_path):
    project, rng = Project(tmp_path / "project"), np.random.default_rng(4)
    with project.source() as db:
        rows = [(i, words(rng, 4), words(rng, 12)) for i in range(200)]
        db.executemany("INSERT INTO note (id, title, body) VALUES (?, ?, ?)", rows)
    ended = project.cli("adapt")
    assert ended.returncode == 3
    assert ended.stdout.splitlines()[-1] == "The gain may be chance: nothing was written."
    assert tables(project) == []


def test_what_cannot_be_learned_from_is_said(tmp_path):
    few = Project(tmp_path / "few").fill(20)
    ended = few.cli("adapt")
    assert ended.returncode == 2
    assert ended.stderr.strip() == (
        "rag-index: 20 documents have more than some words of text, and adapt needs at least 100: name other indexes"
    )
    other = Project(tmp_path / "other", extra='[embedder]\nkind = "ollama"\nmodel = "nomic-embed-text"')
    assert "[embedder] kind is 'ollama'" in other.cli("adapt").stderr
