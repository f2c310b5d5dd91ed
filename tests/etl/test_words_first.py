"""Words first: a first run with a slow embedder writes all documents by their words before it
embeds them."""

import itertools
import json
import os
import re
import socket
import threading
from contextlib import closing, contextmanager
from unittest import mock

import numpy as np
import pytest

from rag_index.components.ledger.runs import IndexLease
from rag_index.components.sources import digest
from rag_index.components.stores.edge.store import EdgeStore
from rag_index.core.documents.batches import Failure
from rag_index.core.documents.keys import document_id
from rag_index.core.reports.progress import RunRecord
from rag_index.errors import StoreError
from rag_index.etl import run as run_module
from rag_index.etl import window, words_first
from rag_index.etl.commit import Committer
from rag_index.etl.fetch import fetch_page
from rag_index.etl.local_steps import LocalSteps
from rag_index.etl.opened import RunOptions, open_index
from rag_index.etl.run import run_index
from rag_index.etl.sharding import Sharder
from rag_index.etl.upsert import Destination
from rag_index.etl.words_first import WordsFirst
from rag_index.search import fan_out
from rag_index.search.retriever import Retriever
from tests.etl.plain import Died, Documents, counts, die, printed, run_plain, watched_run
from tests.fakes.onnx_models import write_model
from tests.project import Project, run_here
from tests.twin import lose_ledger
from tests.waiting import eventually

SHARDS = "[parallel]\nshard_documents = 4\n"
DEFAULTS = {name: getattr(words_first, name) for name in ("WORTH_SECONDS", "SHARE")}
BOTH = pytest.mark.parametrize("project", ["", "server"], indirect=True)


@pytest.fixture(autouse=True)
def pays(monkeypatch):
    """Let the pass take place whatever it costs, and readers see at once what is committed."""
    monkeypatch.setattr(words_first, "WORTH_SECONDS", 0.0)
    monkeypatch.setattr(words_first, "SHARE", 0)
    monkeypatch.setattr(window, "MIN_HAND_OVER_SECONDS", 0.0)


@pytest.fixture
def project(request, tmp_path, fake):
    """A project in the embedded store or on a server, with an embedder on a server."""
    store = (
        f'[store]\nurl = "{request.getfixturevalue("qdrant").url}"\n'
        if getattr(request, "param", "")
        else ""
    )
    return Project(tmp_path / "project", extra=f"{store}{fake.settings}{SHARDS}").fill(30)


def die_after(call, times):
    """Return a call that dies in place of the one after so many."""
    left = iter(range(times))

    def count(*given, **named):
        return call(*given, **named) if next(left, None) is not None else die()

    return count


def ledger_rows(project):
    with project.ledger() as ledger:
        [collection] = ledger.collections()
        return dict(ledger.rows(collection.id)), ledger.totals(collection.id)


def stop_after_words(project):
    """Let a run die when all documents are written by their words."""

    def write_and_die(self):
        write(self)
        raise Died

    write = WordsFirst.write_all
    with mock.patch.object(WordsFirst, "write_all", write_and_die), pytest.raises(Died):
        run_plain(project)
    return project


@pytest.fixture
def halted(project):
    """A project whose first run died between the two passes."""
    return stop_after_words(project)


def vectorless(project):
    return {
        payload["_rag"]["document_id"]
        for payload, vector in project.points().values()
        if not vector
    }


def content(project):
    """Return everything that is stored of each point."""
    with project.store() as store:
        found = store.points(project.settings.alias("notes")).scroll(vectors=True)
        return {p.id: (p.payload, np.round(p.vector or [], 4).tolist(), p.sparse) for p in found}


@BOTH
def test_everything_is_found_by_its_words_before_it_is_embedded_and_status_says_so(halted):
    rows, totals = ledger_rows(halted)
    assert 0 < totals.by_words < 30  # a shard that was under way is left to the next run
    assert totals.points == sum(row.chunks for row in rows.values())
    assert vectorless(halted) == {document_id(key) for key, row in rows.items() if row.by_words}
    under_way = {document_id(key) for key, row in rows.items() if row.pending}
    assert (
        len({payload["_rag"]["document_id"] for payload, _ in halted.points().values()} | under_way)
        == 30
    )
    assert printed(halted, "doctor")["findings"] == []
    sentence = r"notes is not complete: \d+ documents can be found by their words, \d+ by meaning"
    assert re.search(sentence, run_here(halted.config, "status")[0])


@pytest.mark.long
@BOTH
def test_the_next_run_ends_equal_to_one_without_the_pass(halted, tmp_path):
    embedded = sum(not (row.pending or row.by_words) for row in ledger_rows(halted)[0].values())
    assert counts(run_plain(halted))["new"] == 30 - embedded > 0
    rows, totals = ledger_rows(halted)
    assert (totals.by_words, totals.pending, vectorless(halted)) == (0, 0, set())
    plain = Project(tmp_path / "plain", extra=halted.extra.replace('project = "test"', "")).fill(30)
    plain.write_settings(plain.config.read_text().replace('project = "test"', 'project = "plain"'))
    with mock.patch.object(WordsFirst, "write_if_due"):
        run_plain(plain)
    assert (content(plain), ledger_rows(plain)[0]) == (content(halted), rows)


def test_a_killed_pass_is_gone_on_with_and_skips_what_it_wrote(project, monkeypatch):
    monkeypatch.setattr(words_first, "MAX_DOCUMENTS", 10)
    with (
        mock.patch.object(Committer, "commit", die_after(Committer.commit, 2)),
        pytest.raises(Died),
    ):
        run_plain(project)
    assert printed(project, "doctor")["findings"] == []
    _, totals = ledger_rows(stop_after_words(project))
    assert (totals.documents + totals.pending, printed(project, "doctor")["findings"]) == (30, [])
    run_plain(project)
    assert (ledger_rows(project)[1].by_words, vectorless(project), len(project.texts())) == (
        0,
        set(),
        30,
    )


def test_what_changes_or_goes_between_the_passes_is_brought_up_to_date(halted):
    halted.execute("UPDATE note SET body = 'one chunk about giraffes' WHERE id = 20")
    halted.execute("UPDATE note SET body = '' , title = '' WHERE id = 21")
    halted.execute("UPDATE note SET author = 'zoe' WHERE id = 22")
    halted.execute("DELETE FROM note WHERE id = 23")
    outcome = run_plain(halted)
    assert (outcome.state, outcome.documents, outcome.empty, outcome.deleted) == (
        "completed",
        29,
        1,
        2,
    )
    texts = halted.texts()
    assert texts["20"] == ["Note 20\none chunk about giraffes"]
    assert not texts.keys() & {"21", "23"}
    assert {
        p["author"] for p, _ in halted.points().values() if p["_rag"]["document_id"] == "22"
    } == {"zoe"}
    assert vectorless(halted) == set()
    assert "can be found" not in run_here(halted.config, "status")[0]
    assert counts(run_plain(halted)) == {"unchanged": 28, "empty": 1}


def test_a_document_that_fails_in_the_end_is_as_if_there_had_been_no_pass(halted, fake):
    fake.fault("nan", marker="ticket 25 ")
    assert run_plain(halted).failed == 1
    rows, totals = ledger_rows(halted)
    assert (len(rows), totals.by_words, vectorless(halted)) == (29, 0, set())
    assert "25" not in halted.texts()
    [finding] = json.loads(run_here(halted.config, "doctor", "--json", code=3)[0])["findings"]
    assert finding["kind"] == "failed_documents"


def test_a_lost_ledger_is_made_again_with_what_has_no_vectors(halted):
    before = ledger_rows(halted)[1].by_words
    lose_ledger(halted)
    printed(halted, "doctor", "--repair")
    assert ledger_rows(halted)[1].by_words >= before
    run_plain(halted)
    assert vectorless(halted) == set()


def test_a_store_or_ledger_that_was_put_back_between_the_passes_is_seen(halted):
    rows, _ = ledger_rows(halted)
    key, row = next((key, row) for key, row in rows.items() if row.by_words)
    with halted.ledger() as ledger:
        [collection] = ledger.collections()
        ledger.record(collection.id, [(key, row.text_hash, row.payload_hash, row.chunks)])
    [finding] = json.loads(run_here(halted.config, "doctor", "--json", code=3)[0])["findings"]
    assert (finding["kind"], finding["count"]) == ("different_documents", 1)


def test_digests_of_a_first_run_are_committed_and_spare_the_next_one(project, monkeypatch):
    monkeypatch.setattr(digest, "MIN_ROWS", 10)
    monkeypatch.setattr(
        "rag_index.etl.fetch.MAX_PAGE_ROWS", 8
    )  # most are written by words before the scan sees them
    run_plain(project)
    with project.ledger() as ledger:
        [collection] = ledger.collections()
        assert not ledger.any_unplaced(collection.id)
        assert all(found := ledger.digests(collection.id).values())
        assert found
    assert counts(run_plain(project)) == {"unchanged": 30}
    project.execute("DELETE FROM note WHERE id = 30")
    assert counts(run_plain(project)) == {"unchanged": 29, "deleted": 1}


def test_a_slow_model_in_the_process_has_the_pass_too(tmp_path):
    embedder = f'[embedder]\nkind = "fastembed"\nmodel = "{write_model(tmp_path / "mini")}"\n'
    halted = stop_after_words(Project(tmp_path / "project", extra=f"{embedder}{SHARDS}").fill(30))
    assert ledger_rows(halted)[1].by_words > 0
    assert counts(run_plain(halted))["new"] > 0
    assert vectorless(halted) == set()


@pytest.mark.long
@pytest.mark.parametrize("why", ["dense", "complete", "rebuild"])
def test_nothing_is_written_twice_where_no_document_lacks_a_vector_for_long(
    project, monkeypatch, why
):
    if why == "dense":
        project.write_settings(project.config.read_text() + 'search = "dense"\n')
    if why in ("complete", "rebuild"):
        run_plain(project)
        project.fill(20, first=31)
    monkeypatch.setattr(WordsFirst, "write_all", die)
    run_plain(project, full=why == "rebuild")


@pytest.mark.parametrize("embedder", ["local", "ollama"])
@pytest.mark.parametrize(("rate", "pays"), [(10.0, True), (1e6, False)])
def test_the_measured_rate_decides_and_not_the_kind_of_embedder(
    tmp_path, fake, monkeypatch, embedder, rate, pays
):
    """30 notes of about 100 characters: 5 minutes at 10 characters per second."""

    def observe(self, chars, seconds):
        self.last = rate

    monkeypatch.setattr(words_first, "WORTH_SECONDS", DEFAULTS["WORTH_SECONDS"])
    monkeypatch.setattr(words_first, "SHARE", DEFAULTS["SHARE"])
    monkeypatch.setattr(Sharder, "observe", observe)
    extra = fake.settings if embedder == "ollama" else ""
    project = Project(tmp_path / "project", extra=f"{extra}{SHARDS}").fill(30)
    written = []
    monkeypatch.setattr(WordsFirst, "write_all", lambda self: written.append(self) or "")
    run_plain(project)
    assert len(written) == pays
    assert vectorless(project) == set()


def test_a_small_shard_that_loads_the_model_does_not_show_that_the_model_is_slow():
    sharder = Sharder("notes", 4, chars_per_second=2_000_000.0, workers=1)
    for _ in range(2):
        sharder.observe(1_600, 0.4)
        assert sharder.last == 25_000
    sharder.observe(1_600, 0.4)
    assert sharder.last == 4_000, "the model was loaded for the first one, and each is as slow"
    sharder.observe(40_000, 4.0)
    assert sharder.last == 10_000


def test_a_source_that_is_slow_to_read_is_not_taken_for_a_slow_embedder(project, monkeypatch):
    """The clock stands still but for 1,000 s that the first page takes."""
    now = [0.0]

    def slow_fetch(*given):
        now[0] += 1000
        return fetch_page(*given)

    monkeypatch.setattr(run_module, "fetch_page", slow_fetch)
    monkeypatch.setattr(words_first, "time", mock.Mock(monotonic=lambda: now[0]))
    monkeypatch.setattr(Sharder, "observe", lambda self, chars, seconds: None)
    monkeypatch.setattr(WordsFirst, "write_all", die)
    run_plain(project)


class Writes:
    """What was written in which order: each document, and whether with its vector."""

    def __init__(self, monkeypatch):
        self.order, self.turn, write = [], threading.Lock(), Destination.write

        def note(to, shard):
            assert to._turn.locked(), "a shard is written outside of its turn"
            with self.turn:
                self.order += [
                    (document_id(key), len(shard.vectors) > 0) for key in shard.documents.keys
                ]
            return write(to, shard)

        monkeypatch.setattr(Destination, "write", note)

    def by_words(self):
        return {document for document, has_vector in self.order if not has_vector}

    def lost(self):
        """Return the documents whose vectors were written over by their words."""
        found, embedded = set(), set()
        for document, has_vector in self.order:
            if has_vector:
                embedded.add(document)
            elif document in embedded:
                found.add(document)
        return found


@pytest.mark.parametrize("state", ["pending", "embedded", "failed"])
def test_what_is_handed_out_after_the_pass_has_read_it_is_not_written_by_its_words(
    project, monkeypatch, state
):
    """The pass has read a page; before it writes that, another shard takes note 25."""
    writes, new, passes = Writes(monkeypatch), WordsFirst._new, []

    def overtaken(self, documents):
        found = new(self, documents)
        key = next((key for key in found.keys if document_id(key) == "25"), None)
        if key is not None and not passes:
            passes.append(self)
            with project.ledger() as ledger:
                [collection] = ledger.collections()
                if state == "pending":
                    ledger.mark_pending(collection.id, [key])
                elif state == "embedded":
                    ledger.record(collection.id, [(key, b"t" * 16, b"p" * 16, 1)])
                else:
                    ledger.fail(collection.id, [Failure(key, "it cannot be read", b"t" * 16)])
        return found

    monkeypatch.setattr(WordsFirst, "_new", overtaken)
    stop_after_words(project)
    assert passes
    assert "25" not in writes.by_words()
    assert writes.by_words(), (
        "the pass writes the others; how many depends on what was embedded before it"
    )


@pytest.mark.long
def test_shards_that_are_handed_out_are_embedded_and_committed_during_the_pass(
    project, fake, monkeypatch
):
    """Each note is a write of the pass. The server answers the second shard and later ones only
    once the pass has written three, which then waits for one of them."""
    writes, committed, due, calls = (
        Writes(monkeypatch),
        [],
        WordsFirst.write_if_due,
        iter(range(100)),
    )
    embed_texts, requests, three_written = fake.embed, itertools.count(), threading.Event()

    def embed_in_time(texts, **how):
        # A single text compares models.
        if len(texts) > 1 and next(requests) > 0:
            three_written.wait(60)
        return embed_texts(texts, **how)

    monkeypatch.setattr(fake, "embed", embed_in_time)
    monkeypatch.setattr(words_first, "MAX_DOCUMENTS", 1)
    monkeypatch.setattr(
        WordsFirst, "write_if_due", lambda self: due(self) if next(calls) >= 4 else None
    )
    write, commit = WordsFirst._write_shard, Committer.commit

    def note_commit(self, written, *, by_words=False):
        committed.append(by_words)
        return commit(self, written, by_words=by_words)

    def write_in_time(self, documents, chunker):
        if committed.count(True) == 3:
            three_written.set()
            shards = self.commit_done.__self__._done
            eventually(lambda: not shards.empty(), "no shard was embedded meanwhile")
        write(self, documents, chunker)

    monkeypatch.setattr(Committer, "commit", note_commit)
    monkeypatch.setattr(WordsFirst, "_write_shard", write_in_time)
    project.write_settings(project.config.read_text().replace(SHARDS, f"{SHARDS}workers = 2\n"))
    settings, record = project.settings, RunRecord("notes")
    with (
        open_index(settings, "notes", RunOptions(), run_id="two") as opened,
        closing(LocalSteps(settings)) as steps,
    ):
        run_index(opened, steps, record, documents=Documents())
    assert record.outcome.state == "completed"
    first, last = committed.index(True), len(committed) - committed[::-1].index(True)
    assert False in committed[first:last], "no shard was committed between writes of the pass"
    assert (writes.lost(), vectorless(project), len(project.texts())) == (set(), set(), 30)


def test_a_right_that_is_taken_away_between_the_passes_is_gone_before_anything_is_embedded(project):
    project.write_settings(project.config.read_text() + 'access = "author"\n')
    stop_after_words(project)

    def seen(groups):
        with Retriever.from_settings(project.settings) as retriever:
            return "25" in {
                hit.document_id for hit in retriever.search_sync("ticket 25", groups=groups).hits
            }

    assert (seen("author 4"), seen("boss")) == (True, False)
    project.execute("UPDATE note SET author = 'boss' WHERE id = 25")
    with mock.patch.object(window.Window, "push", die), pytest.raises(Died):
        run_plain(project)
    assert (seen("author 4"), seen("boss")) == (False, True)
    assert "25" in vectorless(project)
    run_plain(project)
    assert (seen("author 4"), seen("boss"), vectorless(project)) == (False, True, set())


def asked(project, query="", **options):
    with Retriever.from_settings(project.settings) as retriever:
        return retriever.search_sync(query, **options)


@pytest.mark.long
@BOTH
def test_a_search_finds_either_half_and_orders_what_has_no_vector_by_its_words(halted):
    for document in (
        "2",
        "25",
    ):  # one has a vector, or is pending with its points, and the other has none
        result = asked(halted, f"note {document}", limit=30)
        assert (result.hits[0].document_id, result.nothing_fits, result.unsure) == (
            document,
            False,
            False,
        )
        assert result.missing.startswith("notes was never filled, since its last run failed: ")
        assert "documents can be found by their words, " in result.missing
    lacking = vectorless(halted)
    result = asked(halted, "printer network ticket", limit=30)
    words = asked(halted, "printer network ticket", limit=30, dense_weight=0)
    assert {hit.cosine for hit in result.hits if hit.document_id in lacking} == {
        min(hit.cosine for hit in result.hits)
    }
    order = [
        [(hit.document_id, hit.bm25) for hit in one.hits if hit.document_id in lacking]
        for one in (result, words)
    ]
    assert [bm25 for _, bm25 in order[0]] == [bm25 for _, bm25 in order[1]]
    with pytest.raises(StoreError, match="notes/25 has no vector yet"):
        asked(halted, like="notes/25")


@contextmanager
def filling(project):
    """Let a run seem to be filling the index."""
    alias = project.settings.alias("notes")
    with project.ledger() as ledger, IndexLease(ledger, alias, "a-run"):
        ledger.start_run("a-run", alias, host=socket.gethostname(), pid=os.getpid())
        yield


def test_a_query_is_searched_by_words_if_the_embedder_is_busy_and_the_answer_says_so(
    halted, fake, monkeypatch
):
    monkeypatch.setattr(fan_out, "FILLING_SECONDS", 60.0)
    with filling(halted):
        before = asked(halted, "ticket 25", limit=30)
        assert "by words alone" not in before.missing
        monkeypatch.setattr(fan_out, "FILLING_SECONDS", 0.2)
        fake.fault("hang", path=None)
        result = asked(halted, "ticket 25")
    assert result.hits[0].document_id == "25"
    [own] = [hit for hit in before.hits if hit.document_id == "25"]
    assert own.relevance == result.hits[0].relevance, (
        "where it has no vector, its words alone say how relevant it is"
    )
    assert result.missing.startswith("notes is still being filled: ")
    busy = "It was searched by words alone, since its embedder is busy with documents of notes."
    assert result.missing.endswith(busy)
    assert all(hit.bm25 for hit in result.hits)


@pytest.mark.long
@pytest.mark.parametrize("by", ["words", "minutes"])
def test_a_reader_of_the_embedded_store_sees_what_is_written_while_the_run_goes_on(
    project, monkeypatch, by
):
    dying = mock.patch.object(Committer, "commit", die_after(Committer.commit, 2))
    with mock.patch.object(WordsFirst, "write_if_due"), dying, pytest.raises(Died):
        run_plain(project)
    monkeypatch.setattr(window, "MIN_HAND_OVER_SECONDS", 1e9 if by == "words" else 0.0)
    if by == "minutes":
        monkeypatch.setattr(WordsFirst, "write_if_due", lambda self: None)
    seen = []

    def push(self, shard):
        push_shard(self, shard)
        seen.append(len(retriever.search_sync("ticket", limit=30).hits))

    push_shard = window.Window.push
    with Retriever.from_settings(project.settings) as retriever:
        before = len(retriever.search_sync("ticket", limit=30).hits)
        monkeypatch.setattr(window.Window, "push", push)
        run_plain(project)
    assert before <= 16
    assert max(seen) >= (26 if by == "words" else before + 4)


def test_a_later_run_lets_readers_see_all_that_it_has_written_at_once(project, monkeypatch):
    """While somebody searches, each time would cost a copy of the collection."""
    run_plain(project)
    handed = []
    monkeypatch.setattr(EdgeStore, "hand_over", lambda self: handed.append(type(self)))
    project.execute("UPDATE note SET body = 'now it prints'")
    assert run_plain(project).changed == 30
    assert not handed


@pytest.mark.long
def test_a_document_that_has_failed_is_not_written_by_its_words_again(project, fake):
    fake.fault("nan", marker="ticket 25 ")
    with pytest.raises(Died):
        run_plain(project, delete=False)
    project.fill(20, first=31)
    assert watched_run(project).outcome.failed == 1  # its next try comes later
    assert (vectorless(project), "25" in project.texts()) == (set(), False)


def test_an_erasure_and_an_export_in_between_keep_what_has_no_vector(halted):
    before = content(halted)
    run_here(halted.config, "erase", "notes")
    assert content(halted) == before
    out = halted.folder / "notes.jsonl"
    run_here(halted.config, "export", "notes", "--out", out)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {line["id"] for line in lines if "vector" in line} == {
        i for i, point in before.items() if point[1]
    }
    run_plain(halted)
    assert vectorless(halted) == set()
