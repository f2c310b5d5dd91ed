"""What a run does while a service is away: a step that may be repeated is tried again, from a look
whether the service is back, until so long after its first failure. What a text that ends its server
costs, and faults of an embedder."""

import re
import time

import pytest

from rag_index.components.embedders import servers
from rag_index.components.hosts.endpoint import PLAIN_TEXT
from rag_index.core import recovery
from rag_index.core.recovery import may_try_again, retry_message, retry_step, retryable_for
from rag_index.errors import SourceTimedOut, StoreUnavailable, TerminalError
from rag_index.etl.sharding import Sharder
from tests.etl.plain import listed_as_deadly, printed
from tests.fakes.ollama import ROW_FAULTS, FakeOllama, ended_by, vector_of
from tests.project import Project, run_here
from tests.waiting import when

IS_SUSPECT = Sharder._is_suspect
"""How a shard with documents that are listed is told; most tests of this folder do without it."""
PASSING = [
    ("hang", {"seconds": 30}),
    ("reset", {}),
    ("half", {}),
    ("few", {}),
    ("html", {}),
    *(("status", {"code": code}) for code in (429, 500, 503)),
    ("status", {"code": 429, "headers": {"Retry-After": "1"}}),
    *((kind, {}) for kind in ROW_FAULTS),
]
"""Faults of an embedder that pass; wrong vectors come last, since they need separate requests."""


@pytest.fixture
def quick(monkeypatch):
    """Pauses of a tenth of a second, and tries that end before a server of these tests is back."""
    monkeypatch.setattr(recovery, "DELAYS", [0.1])
    monkeypatch.setattr(servers, "PATIENCE", 0.5)


def restart(fake: FakeOllama) -> None:
    fake.stop_listening()
    time.sleep(1.0)
    fake.listen()


@pytest.mark.long
def test_one_text_that_ends_its_only_server_costs_ten_deaths_and_no_other_document(
    tmp_path, fake, quick, caplog
):
    project = Project(tmp_path / "project", extra=fake.settings + "batch_texts = 16\n").fill(60)
    project.execute("UPDATE note SET body = 'KILLS' WHERE id = 7")
    with ended_by(fake, "KILLS") as deaths:
        report = project.run(shard_documents=30)
    [outcome] = report.indexes
    assert (outcome.state, outcome.new, outcome.failed) == ("partial", 59, 1), outcome
    assert 2 < len(deaths) <= 12, deaths
    [failed] = printed(project, "status", "--failed")["failed"]
    assert failed["document_id"] == "7"
    assert "each time this text is sent" in failed["reason"]
    assert "so all others go first" in caplog.text
    assert "is embedded in halves" in caplog.text


@pytest.mark.long
def test_a_document_that_ended_its_server_is_tried_once_a_night_after_all_others_and_costs_one_death(
    tmp_path, fake, quick, monkeypatch
):
    """Also after one that is listed for another reason, which the server still refuses."""
    monkeypatch.setattr(Sharder, "_is_suspect", IS_SUSPECT)
    project = Project(tmp_path / "project", extra=fake.settings + "batch_texts = 16\n").fill(60)
    project.execute("UPDATE note SET body = 'REFUSED' WHERE id = 50")
    fake.fault("status", code=400, marker="REFUSED")
    listed_as_deadly(project, fake, "KILLS", where="id = 7")
    fake.fault("status", code=400, marker="REFUSED")
    with ended_by(fake, "KILLS") as deaths:
        for night in (1, 2):
            project.execute(
                f"UPDATE note SET body = 'changed in night {night}' WHERE id BETWEEN 5 AND 20 AND"
                " id != 7"
            )
            [outcome] = project.run().indexes
            assert (outcome.state, outcome.changed, outcome.failed) == ("partial", 15, 2), outcome
            assert len(deaths) == night
            listed = {
                one["document_id"]: one for one in printed(project, "status", "--failed")["failed"]
            }
            assert listed.keys() == {"7", "50"}
            assert listed["7"]["tries"] == night + 1
            assert "each time this text is sent" in listed["7"]["reason"]
        sent = [one.texts for one in fake.embeds()]
        places = [place for place, texts in enumerate(sent) if "KILLS" in str(texts)]
        others = [
            place
            for place, texts in enumerate(sent)
            if re.search("changed in night|REFUSED", str(texts))
        ]
        assert len(others) > 1
        for place in places:
            assert len(sent[place]) == 1, "alone"
            assert [PLAIN_TEXT] in sent[place - 1 : place], "after a plain text"
        assert places[1] > max(others), "last"
    project.execute("UPDATE note SET body = 'harmless' WHERE id IN (7, 50)")
    [outcome] = project.run().indexes
    assert (outcome.state, outcome.new, outcome.failed) == ("completed", 2, 0), outcome


@pytest.mark.long
def test_of_several_documents_that_end_the_server_each_costs_one_death_and_a_mended_server_gets_all(
    tmp_path, fake, quick
):
    """One of them has several chunks that do."""
    project = Project(tmp_path / "project", extra=fake.settings).fill(40)
    listed_as_deadly(project, fake, "KILLS", where="id IN (3, 17, 33)")
    project.execute("UPDATE note SET body = ? WHERE id = 17", " ".join(["KILLS"] * 200))
    with ended_by(fake, "KILLS") as deaths:
        [outcome] = project.run().indexes
        assert (outcome.state, outcome.failed, outcome.unchanged) == ("partial", 3, 37), outcome
        assert len(deaths) == 3
    fake.clear()
    [outcome] = project.run().indexes
    assert (outcome.state, outcome.new, outcome.failed) == ("completed", 3, 0), outcome


@pytest.mark.long
def test_a_rebuild_tries_what_ended_the_server_last_and_once(tmp_path, fake, quick):
    project = Project(tmp_path / "project", extra=fake.settings).fill(30)
    listed_as_deadly(project, fake, "KILLS", where="id = 7")
    with ended_by(fake, "KILLS") as deaths:
        out, _ = run_here(project.config, "rebuild", "notes", "--serial", code=3)
    assert (len(deaths), len(project.texts())) == (1, 29), out


def test_a_server_that_restarts_once_costs_no_document_and_no_halves(tmp_path, fake, quick, caplog):
    project = Project(tmp_path / "project", extra=fake.settings).fill(30)
    fake.fault("hang", marker="Note", times=1)
    with when(
        lambda: any("Note" in text for one in fake.embeds() for text in one.texts),
        lambda: restart(fake),
    ):
        assert project.run().state == "completed"
    assert "in halves" not in caplog.text
    assert len(project.texts()) == 30


def failing(times: int, error: Exception):
    """Return a step that fails so often, and the list of its tries."""
    tries: list[float] = []

    def step() -> str:
        tries.append(time.time())
        if len(tries) <= times:
            raise error
        return "done"

    return step, tries


def test_a_step_is_tried_again_until_so_long_after_the_first_failure(quick):
    step, tries = failing(3, StoreUnavailable("away"))
    assert (retry_step(step, 60), len(tries)) == ("done", 4)
    late = StoreUnavailable("away")
    late.since = time.time() - 61
    step, tries = failing(3, late)
    with pytest.raises(StoreUnavailable):
        retry_step(step, 60)
    assert len(tries) == 1, "it was away for longer before this try"


@pytest.mark.parametrize(
    ("error", "tries"), [(TerminalError("wrong"), 1), (SourceTimedOut("took all of its time"), 2)]
)
def test_what_another_try_cannot_help_is_not_tried_for_long(quick, error, tries):
    step, made = failing(99, error)
    with pytest.raises(type(error)):
        retry_step(step, 60)
    assert len(made) == tries
    assert not may_try_again(error, tries, time.time()), "nor by a task of Prefect"


def test_a_service_that_does_not_say_since_when_it_fails_is_waited_for_as_long(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(recovery, "jittered", lambda seconds: seconds)
    monkeypatch.setattr(recovery.time, "time", lambda: now[0])
    monkeypatch.setattr(
        recovery.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds)
    )
    made = []

    def step() -> None:
        made.append(now[0])
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        retry_step(step, 20)
    assert made == [1000, 1001, 1003, 1007, 1015, 1030]


def test_steps_that_failed_together_do_not_try_again_together():
    pauses = [recovery.jittered(10.0) for _ in range(100)]
    assert len(set(pauses)) > 90
    assert min(pauses) >= 8.0
    assert max(pauses) <= 12.0


def test_a_step_waits_as_long_as_settings_say_however_often_it_is_tried_until_then():
    """Three hours are hundreds of tries."""
    error = StoreUnavailable("away")
    error.wait = 10_800.0
    began = time.time() - 10_000.0
    assert may_try_again(error, 600, began)
    assert "trying again until" in retry_message(error, 600, began)
    assert "waited for too long" in retry_message(error, 600, began - 1000.0)


def test_the_last_try_of_a_query_that_took_too_long_is_said_to_be_that():
    error = SourceTimedOut("slow")
    error.wait = 600.0
    assert may_try_again(error, 1, time.time())
    assert "tried often enough" in retry_message(error, 2, time.time())


def test_a_pause_longer_than_the_time_left_is_not_waited_for():
    error = StoreUnavailable("asks for a pause", 120)
    with pytest.raises(StoreUnavailable), retryable_for(60):
        raise error
    assert not may_try_again(error, 1, time.time())
    error.retry_after = 30
    assert may_try_again(error, 1, time.time())


def test_a_command_asks_a_server_again_only_if_it_is_told_to_wait(tmp_path, qdrant):
    project = Project(tmp_path / "project", extra=f'[store]\nurl = "{qdrant.url}"\n').fill(3)
    fault = qdrant.break_next(status=503, times=3)
    out, _ = run_here(project.config, "index-all", code=1)
    assert f"Qdrant at {qdrant.url} answered 503" in out
    assert fault.times, "it was asked once or twice"
    run_here(project.config, "index-all", "--wait", "3")
    assert not fault.times


@pytest.mark.long
def test_faults_of_all_kinds_in_one_run_lose_nothing(tmp_path, fake):
    settings = fake.settings + "batch_texts = 8\ntimeout = 2\n[run]\nwait_for_recovery = 30\n"
    project = Project(tmp_path / "project", extra=settings).fill(60)
    for ticket, (kind, options) in zip(
        (1, 5, 9, 13, 17, 21, 25, 29, 49, 33, 37, 41, 47), PASSING, strict=True
    ):
        fake.fault(kind, times=1, marker=f"ticket {ticket} ", **options)
    report = project.run()
    assert report.state == "completed", report.sentence()
    assert [fault.kind for fault in fake._faults if fault.times] == [], (
        "no request met these faults"
    )
    assert len(project.texts()) == 60
    for payload, vector in project.points().values():
        assert vector == pytest.approx(vector_of(payload["_rag"]["text"]), abs=1e-6)
