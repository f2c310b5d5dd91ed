"""Commands that only read: they create nothing, and need no ledger that they could write."""

import os
from contextlib import closing

import pytest

from rag_index.care.index_status import failed, run_reports, status
from rag_index.care.plan import plan_runs
from rag_index.components.ledger import Ledger
from rag_index.errors import LedgerError, LedgerUnavailable
from tests.etl.plain import run_plain
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
    assert sorted(project.folder.rglob("*")) == before


def test_a_ledger_in_a_folder_that_one_may_not_enter_is_named(tmp_path, monkeypatch):
    project = Project(tmp_path / "project").fill(3)
    run_plain(project)
    settings, folder, is_root = project.settings, project.folder / ".rag-index", os.geteuid() == 0
    folder.chmod(0)
    if is_root:
        monkeypatch.setattr(os, "access", lambda *_: False)  # it asks for the real user, who stays root
        os.seteuid(65534)
    try:
        with pytest.raises(LedgerError, match=r"ledger\.db cannot be read: Permission denied; correct its permissions"):
            Ledger(settings.ledger_url, read_only=True)
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o700)


def test_a_ledger_that_its_owner_writes_while_somebody_else_reads_it_is_not_called_damaged(tmp_path, monkeypatch):
    project = Project(tmp_path / "project").fill(3)
    run_plain(project)
    with monkeypatch.context() as denied:
        denied.setattr(os, "access", lambda *_: False)
        reader = Ledger(project.settings.ledger_url, read_only=True)
    with closing(reader):
        assert reader.collections("test_notes")
        project.fill(3, first=10)
        run_plain(project)
        with pytest.raises(LedgerUnavailable, match="is being written by its owner: run the command again"):
            reader.collections("test_notes")


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
