"""An embedder that misbehaves for a while: nothing is lost, and nothing wrong is written."""

from __future__ import annotations

import time

import pytest

from tests.fakes.ollama import ROW_FAULTS, vector_of
from tests.project import Project
from tests.waiting import when

PASSING = {
    "hangs": ("hang", {"seconds": 30}),
    "resets during the answer": ("reset", {}),
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
def project(tmp_path, prefect_server, fake) -> Project:
    extra = "batch_texts = 8\nwait_for_recovery = 30\ntimeout = 2\n"
    return Project(tmp_path / "project", extra=fake.settings + extra).fill(60)


def assert_own_vectors(project: Project) -> None:
    """Check that every document is indexed, with the vectors of its texts."""
    assert len(project.texts()) == 60
    for payload, vector in project.points().values():
        assert vector == pytest.approx(vector_of(payload["_rag"]["text"]), abs=1e-6)


@pytest.mark.long
def test_faults_of_all_kinds_in_one_run_lose_nothing(project, fake):
    tickets = (1, 5, 9, 13, 17, 21, 25, 29, 49, 33, 37, 41, 47)  # wrong vectors come in separate requests
    faults = sorted(PASSING.values(), key=lambda fault: fault[0] in ROW_FAULTS)
    for ticket, (kind, options) in zip(tickets, faults, strict=True):
        fake.fault(kind, times=1, marker=f"ticket {ticket} ", **options)
    report = project.index(serial=True)
    assert report.state == "completed", report.sentence()
    assert [fault.kind for fault in fake._faults if fault.times] == [], "no request met these faults"
    assert_own_vectors(project)


@pytest.mark.long
def test_the_progress_names_busy_workers_and_requests_in_flight(project, fake, capfd, monkeypatch):
    # By default a line appears too rarely for this short run.
    monkeypatch.setattr("rag_index.reports.displays.LINE_SECONDS", 0.5)
    fake.seconds_per_text = 0.2
    report = project.index(workers=1, shard_documents=10)
    assert report.state == "completed", report.sentence()
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("notes: ")]
    assert any("1 of 1 worker busy, 1 shard queued" in line for line in lines), lines
    assert any("requests in flight" in line for line in lines), lines


@pytest.mark.long
def test_a_run_says_what_it_waits_for(project, fake):
    def be_away() -> None:
        fake.stop_listening()
        time.sleep(8)
        fake.listen()

    fake.seconds_per_text = 0.01
    with when(lambda: len(fake.embeds()) >= 4, be_away):
        ended = project.cli("index-all", "--workers", "1", "--shard-documents", "15")
    assert ended.returncode == 0, ended.stderr
    assert "no host accepts texts, waiting at most 30 s" in ended.stderr
