"""An embedder that misbehaves for a while: nothing is lost, and nothing wrong is written."""

import pytest

from tests.fakes.ollama import ROW_FAULTS, vector_of
from tests.project import Project

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


@pytest.mark.long
def test_faults_of_all_kinds_in_one_run_lose_nothing(tmp_path, fake):
    settings = fake.settings + "batch_texts = 8\ntimeout = 2\n[run]\nwait_for_recovery = 30\n"
    project = Project(tmp_path / "project", extra=settings).fill(60)
    tickets = (1, 5, 9, 13, 17, 21, 25, 29, 49, 33, 37, 41, 47)  # wrong vectors come in separate requests
    faults = sorted(PASSING.values(), key=lambda fault: fault[0] in ROW_FAULTS)
    for ticket, (kind, options) in zip(tickets, faults, strict=True):
        fake.fault(kind, times=1, marker=f"ticket {ticket} ", **options)
    report = project.run()
    assert report.state == "completed", report.sentence()
    assert [fault.kind for fault in fake._faults if fault.times] == [], "no request met these faults"
    assert len(project.texts()) == 60
    for payload, vector in project.points().values():
        assert vector == pytest.approx(vector_of(payload["_rag"]["text"]), abs=1e-6)
