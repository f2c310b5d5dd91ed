"""Words first: a first run with a slow embedder writes all documents by their words before it embeds them."""

from contextlib import closing

import numpy as np
import pytest

from rag_index.components.ledger import Ledger
from rag_index.core.documents.keys import document_id
from rag_index.etl import window, words_first
from rag_index.etl.words_first import WordsFirst
from tests.etl.plain import Died, counts, printed, run_plain
from tests.project import Project

SHARDS = "[parallel]\nshard_documents = 4\n"


@pytest.fixture(autouse=True)
def pays(monkeypatch):
    """Let the pass take place whatever it costs, and readers see at once what is committed."""
    monkeypatch.setattr(words_first, "WORTH_SECONDS", 0.0)
    monkeypatch.setattr(words_first, "SHARE", 0)
    monkeypatch.setattr(window, "MIN_HAND_OVER_SECONDS", 0.0)


@pytest.fixture(params=["", "server"])
def project(request, tmp_path, fake):
    """A project in the embedded store or on a server, with an embedder on a server."""
    store = f'[store]\nurl = "{request.getfixturevalue("qdrant").url}"\n' if request.param else ""
    return Project(tmp_path / "project", extra=f"{store}{fake.settings}{SHARDS}").fill(30)


def ledger_rows(project):
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        [collection] = ledger.collections()
        return dict(ledger.rows(collection.id)), ledger.totals(collection.id)


def stop_after_words(monkeypatch):
    """Let runs die when all documents are written by their words."""

    def die(self):
        write(self)
        raise Died

    write = WordsFirst._write
    monkeypatch.setattr(WordsFirst, "_write", die)


@pytest.fixture
def halted(project, monkeypatch):
    """A project whose first run died between the two passes."""
    with monkeypatch.context() as patch:
        stop_after_words(patch)
        with pytest.raises(Died):
            run_plain(project)
    return project


def vectorless(project):
    return {payload["_rag"]["document_id"] for payload, vector in project.points().values() if not vector}


def content(project):
    """Return everything that is stored of each point."""
    with project.store() as store:
        found = store.scroll(project.settings.alias("notes"), vectors=True)
        return {p.id: (p.payload, np.round(p.vector, 4).tolist(), p.sparse) for p in found}


def test_everything_is_found_by_its_words_before_it_is_embedded(halted):
    rows, totals = ledger_rows(halted)
    assert 20 <= totals.by_words < 30  # a shard that was under way is left to the next run
    assert totals.points == sum(row.chunks for row in rows.values())
    assert vectorless(halted) == {document_id(key) for key, row in rows.items() if row.by_words}
    assert len({payload["_rag"]["document_id"] for payload, _ in halted.points().values()}) == 30
    assert printed(halted, "doctor")["findings"] == []


def test_the_next_run_ends_equal_to_one_without_the_pass(halted, tmp_path):
    assert counts(run_plain(halted))["new"] >= 20
    rows, totals = ledger_rows(halted)
    assert (totals.by_words, totals.pending, vectorless(halted)) == (0, 0, set())
    plain = Project(tmp_path / "plain", extra=halted.extra.replace('project = "test"', "")).fill(30)
    plain.write_settings(plain.config.read_text().replace('project = "test"', 'project = "plain"'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WordsFirst, "write_if_due", lambda self: None)
        run_plain(plain)
    assert content(plain) == content(halted)
    assert ledger_rows(plain)[0] == rows
