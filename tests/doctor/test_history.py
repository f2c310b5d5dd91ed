"""What `doctor` says of the history that every run adds to."""

from __future__ import annotations

from contextlib import closing

from rag_index.doctor.history import LARGE, history_advice
from rag_index.ledger import Ledger
from tests.project import Project

DAY = 86_400.0


def test_doctor_says_what_the_next_run_prunes_and_what_is_large(tmp_path):
    project = Project(tmp_path / "project")
    settings = project.settings
    with closing(Ledger(settings.ledger_url)) as ledger:
        now = ledger.clock()
        assert not list(history_advice(settings, ledger)), "nothing is old, and nothing is large"
        for name, days in (("old", 200), ("newest", 100)):
            ledger.clock = lambda days=days: now - days * DAY
            ledger.start_run(name, "test_notes", host="h", pid=1)
        ledger.clock = lambda: now
        (advice,) = history_advice(settings, ledger)
        assert advice.message.startswith("the ledger has 2 runs; the next run deletes 1 run and 0 failed documents")
        assert "90 days ([run] keep_days)" in advice.message
        ledger.prune(now - 90 * DAY, [])
        with (settings.data / "contexts.db").open("wb") as file:
            file.truncate(LARGE)
        (advice,) = history_advice(settings, ledger)
        assert "the cache of contexts has 100 MB; the next run deletes 0 runs" in advice.message
