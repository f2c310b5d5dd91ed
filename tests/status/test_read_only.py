"""Commands that only read: they create nothing, and need no ledger that they could write."""

from __future__ import annotations

import pytest

from rag_index.status.plan import plan_runs
from rag_index.status.status import failed, run_reports, status
from tests.indexing.plain import run_plain
from tests.project import SETTINGS, Project
from tests.reliability.test_disk_and_clock import Disk


def looked_at(project):
    """Look at everything, and return the documents of each index, its failures, and the states of its runs."""
    settings = project.settings
    [shown], reports = status(settings).indexes, run_reports(settings, settings.indexes)
    [plan] = plan_runs(settings, settings.indexes)
    return shown.documents, plan.unchanged, failed(settings, settings.indexes), [one["state"] for one in reports]


def test_a_mistyped_ledger_is_not_created(tmp_path):
    project = Project(tmp_path / "project", extra='[ledger]\nurl = "sqlite:///nowhere/deep/ledger.db"').fill(3)
    before = sorted(project.folder.rglob("*"))
    assert looked_at(project) == (0, 0, [], [])
    assert "0 indexed" in project.json("config", "--explain")["machine"][-1]["sentence"]
    assert sorted(project.folder.rglob("*")) == before


@pytest.mark.mount
def test_a_ledger_on_a_read_only_mount_is_read(tmp_path):
    project = Project(tmp_path / "project", extra='[ledger]\nurl = "sqlite:///disk/ledger.db"').fill(3)
    with Disk(project, 8) as disk:
        run_plain(project)
        disk.read_only(True)
        assert looked_at(project) == (3, 3, [], ["completed"])


def test_a_ledger_in_postgresql_is_read_by_an_account_that_may_only_read(tmp_path, postgres):
    with postgres.database() as name:
        project = Project(tmp_path / "project").fill(3)

        def ledger_of(*account: str) -> None:
            url = postgres.url(name, *account).render_as_string(hide_password=False)
            project.write_settings(SETTINGS.format(extra=f'[ledger]\nurl = "{url}"'))

        with postgres.connect(name) as owner:
            owner.execute("CREATE ROLE ledger_reader LOGIN PASSWORD 'x'")
            try:
                ledger_of("ledger_reader", "x")
                assert looked_at(project) == (0, 0, [], [])
                ledger_of()
                run_plain(project)
                owner.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO ledger_reader")
                ledger_of("ledger_reader", "x")
                assert looked_at(project) == (3, 3, [], ["completed"])
            finally:
                owner.execute("DROP OWNED BY ledger_reader")
                owner.execute("DROP ROLE ledger_reader")
