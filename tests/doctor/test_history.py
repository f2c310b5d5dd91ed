"""What `doctor` says of the history that every run adds to."""

from __future__ import annotations

from contextlib import closing

from rag_index.chunking.context.cache import ContextCache, cache_url
from rag_index.doctor.findings import kept_history, trash_bytes
from rag_index.ledger import Ledger
from tests.project import Project

DAY = 86_400.0
MEGABYTE = bytes(1_000_000)


def test_doctor_says_how_much_is_kept_and_what_the_next_run_deletes(tmp_path):
    settings = Project(tmp_path / "project").settings
    with closing(Ledger(settings.ledger_url)) as ledger:
        now = ledger.clock()
        nothing = kept_history(settings, ledger, trash=0).sentence()
        assert nothing == (
            "kept for 90 days ([run] keep_days): 0 runs, 0.0 MB of Prefect's history, 0 contexts, "
            "0.0 MB of dropped collections"
        )
        for name, days in (("old", 200), ("newest", 100)):
            ledger.clock = lambda days=days: now - days * DAY
            ledger.start_run(name, "test_notes", host="h", pid=1)
            ledger.put_changes([("test_gone", name, 1.0)])
        ledger.clock = lambda: now
        for file in ("prefect/prefect.db", "prefect/prefect.db-wal", "qdrant/trash/a/b/segment"):
            (settings.data / file).parent.mkdir(parents=True, exist_ok=True)
            (settings.data / file).write_bytes(MEGABYTE)
        cache = ContextCache(cache_url(settings.ledger_url), "recipe")
        cache.put(b"document", b"chunk", "context")
        cache.close()
        kept = kept_history(settings, ledger, trash=trash_bytes(settings))
        assert kept.sentence() == (
            "kept for 90 days ([run] keep_days): 2 runs, 2.0 MB of Prefect's history, 1 context (0.0 MB), "
            "1.0 MB of dropped collections; "
            "the next run deletes 1 run and 2 waiting changes, 1 watch of indexes that are gone"
        )


def test_doctor_says_it_for_people_and_as_json(tmp_path):
    project = Project(tmp_path / "project").fill(3)
    assert project.cli("index", "notes", "--serial").returncode == 0
    leftover = project.settings.store.path / "trash" / "notes__0"
    leftover.mkdir()
    (leftover / "segment").write_bytes(MEGABYTE)
    said = project.cli("doctor").stdout
    assert "kept for 90 days ([run] keep_days): 1 run, " in said
    assert "1.0 MB of dropped collections" in said, "what there was before doctor opened the store, which deletes it"
    kept = project.json("doctor")["kept"]
    assert (kept["runs"], kept["old_runs"], kept["trash_bytes"]) == (1, 0, 0)
