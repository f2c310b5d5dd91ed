"""An embedder that misbehaves for a while: nothing is lost, and nothing is written that is not right."""

from __future__ import annotations

import threading
import time

import pytest

from rag_index.reports.progress import Lines
from tests.fakes.ollama import ROW_FAULTS, FakeOllama, vector_of
from tests.project import Project

PASSING = {
    "hangs": ("hang", {"seconds": 30}),
    "resets amid the answer": ("reset", {}),
    "429": ("status", {"code": 429}),
    "429 with Retry-After": ("status", {"code": 429, "headers": {"Retry-After": "1"}}),
    "500": ("status", {"code": 500}),
    "503": ("status", {"code": 503}),
    "half an answer": ("half", {}),
    "fewer vectors than texts": ("few", {}),
    "NaN": ("nan", {}),
    "null": ("null", {}),
    "a wrong dimension": ("dimension", {}),
    "zero vectors": ("zero", {}),
    "HTML in place of JSON": ("html", {}),
}


@pytest.fixture
def fake():
    with FakeOllama() as server:
        yield server


@pytest.fixture
def project(tmp_path, prefect_server, fake) -> Project:
    extra = (
        f'[embedder]\nkind = "ollama"\nmodel = "{fake.model}"\nhosts = ["{fake.url}"]\n'
        "batch_texts = 8\nwait_for_recovery = 30\ntimeout = 2\n"
    )
    return Project(tmp_path / "project", extra=extra).fill(60)


def right(project: Project) -> None:
    """Each document is there, and each vector is the one of its text."""
    assert len(project.texts()) == 60
    for payload, vector in project.points().values():
        assert vector == pytest.approx(vector_of(payload["_rag"]["text"]), abs=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes_loses_nothing(project, fake, name):
    kind, options = PASSING[name]
    fake.fault(kind, times=2, marker="ticket 3", **options)
    started = time.monotonic()
    report = project.index(serial=True)
    assert time.monotonic() - started < 60
    assert report.state == "completed", report.sentence()
    assert not fake._faults[0].times, "the fault was met"
    right(project)


def test_faults_of_all_kinds_in_one_run_lose_nothing(project, fake):
    tickets = (1, 5, 9, 13, 17, 21, 25, 29, 49, 33, 37, 41, 47)  # vectors that are wrong: each in another request
    faults = sorted(PASSING.values(), key=lambda fault: fault[0] in ROW_FAULTS)
    for ticket, (kind, options) in zip(tickets, faults, strict=True):
        fake.fault(kind, times=1, marker=f"ticket {ticket} ", **options)
    report = project.index(serial=True)
    assert report.state == "completed", report.sentence()
    assert [fault.kind for fault in fake._faults if fault.times] == [], "all faults were met"
    right(project)


def test_a_server_that_is_away_for_a_while_is_waited_for(project, fake):
    def away() -> None:
        while len(fake.embeds()) < 4:
            time.sleep(0.005)
        fake.stop_listening()
        time.sleep(4)
        fake.listen()

    fake.seconds_per_text = 0.01
    going = threading.Thread(target=away)
    going.start()
    report = project.index(workers=1, shard_documents=15)
    going.join()
    assert report.state == "completed", report.sentence()
    right(project)


@pytest.mark.long
def test_what_is_under_way_is_shown_while_it_is(project, fake, capfd, monkeypatch):
    # By default it is chance at which moments it is looked at.
    monkeypatch.setitem(Lines.__init__.__kwdefaults__, "interval", 0.5)
    fake.seconds_per_text = 0.2
    report = project.index(workers=1, shard_documents=10)
    assert report.state == "completed", report.sentence()
    shown = [line for line in capfd.readouterr().err.splitlines() if line.startswith("notes: ")]
    assert any("1 of 1 worker busy, 1 shard queued" in line for line in shown), shown
    assert any("requests in flight" in line for line in shown), shown


@pytest.mark.long
def test_another_model_after_a_restart_stops_the_run_and_is_never_mixed_in(project, fake):
    def swap() -> None:
        while len(fake.embeds()) < 4:
            time.sleep(0.005)
        fake.restart(digest="ee" * 32)

    fake.seconds_per_text = 0.01
    swapping = threading.Thread(target=swap)
    swapping.start()
    report = project.index(workers=1, shard_documents=15)
    swapping.join()
    assert report.state == "failed"
    assert "has another fake-embed (weights eeeeeeeeeeee)" in report.indexes[0].message
    refused = project.index(serial=True)
    assert refused.state == "failed", "the collection is of the first model"
    assert "rebuild notes" in refused.indexes[0].message
    assert project.index(serial=True, full=True).state == "completed"
    right(project)


def test_a_text_over_the_limit_is_split_where_the_server_says_so(project, fake):
    fake.max_chars = 60
    report = project.index(serial=True)
    assert report.state == "completed", report.sentence()
    assert all(len(text) <= 60 for chunks in project.texts().values() for text in chunks)
    right(project)


@pytest.mark.long
def test_what_is_waited_for_is_said(project, fake):
    def away() -> None:
        while len(fake.embeds()) < 4:
            time.sleep(0.005)
        fake.stop_listening()
        time.sleep(8)
        fake.listen()

    fake.seconds_per_text = 0.01
    going = threading.Thread(target=away)
    going.start()
    ended = project.cli("index-all", "--workers", "1", "--shard-documents", "15")
    going.join()
    assert ended.returncode == 0, ended.stderr
    assert "no Ollama host takes texts, waiting at most 30 s" in ended.stderr
