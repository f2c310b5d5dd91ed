"""What `status` and the metrics file say: of a watch, of a store whose server is away, and of a
ledger that may only be read. Commands that only read create nothing."""

import os
import re
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from rag_index.care.index_status import failed, run_reports, status, try_to_write_metrics
from rag_index.care.plan import plan_runs
from rag_index.components import stores
from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import IndexLease, lease_name
from rag_index.components.ledger.tables import positions
from rag_index.components.stores import PERSON_SECONDS
from rag_index.core.reports.progress import RunRecord
from rag_index.errors import LedgerError, LedgerUnavailable
from rag_index.etl.opened import RunOptions, open_index
from rag_index.search import Retriever
from tests.etl.plain import printed, run_plain
from tests.project import SETTINGS, Project, run_here
from tests.reliability.test_disk_and_clock import Disk

ALIAS = "test_notes"


@pytest.fixture
def served(tmp_path, qdrant) -> Project:
    return Project(tmp_path / "project", extra=f'[store]\nurl = "{qdrant.url}"')


def test_a_server_that_is_down_is_asked_for_seconds_and_what_the_ledger_knows_is_shown(
    served, qdrant, monkeypatch
):
    assert PERSON_SECONDS <= 2, "connecting, asking and trying again take five seconds together"
    served.fill(3).run()
    [before] = printed(served, "status")["indexes"]
    qdrant.break_next("GET /aliases", times=None, hang=3600.0)
    asked = qdrant.requests("GET /aliases")
    with monkeypatch.context() as patch:
        patch.setattr(stores, "PERSON_SECONDS", 1.0)
        said = run_here(served.config, "status", code=1)[1]
    assert f"{qdrant.url} does not answer as it should" in said
    assert qdrant.requests("GET /aliases") == asked + 1
    qdrant.faults.clear()
    qdrant.break_next("GET /aliases", times=None, status=503, error="starting")
    asked = qdrant.requests("GET /aliases")
    shown = printed(served, "status", code=1)
    assert qdrant.requests("GET /aliases") - asked <= 7, "pauses grow: half a minute are ten tries"
    assert shown["indexes"] == [{**before, "indexed": None}]
    assert "503: starting" in shown["error"]
    out, said = run_here(served.config, "status", code=1)
    assert out.splitlines()[1].split()[:4] == ["notes", "test_notes__1", "3", str(before["points"])]
    assert "503: starting (what is shown is from the ledger alone)" in said


def test_status_says_up_to_when_an_index_is_complete_where_its_last_run_was_not(served, qdrant):
    served.fill(3).run()
    [before] = printed(served, "status")["indexes"]
    assert "complete up to" not in run_here(served.config, "status")[0], "the last run says it"
    served.fill(1, first=4)
    qdrant.break_next(
        "PUT /collections/test_notes__1/points", times=None, status=400, error="the disk is full"
    )
    assert served.run().exit_code == 1
    qdrant.faults.clear()
    said = f"notes: complete up to {before['as_of']['at']}, known by run"
    assert said in run_here(served.config, "status")[0].splitlines()


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path / "project", extra='[run]\nmetrics_file = "metrics.prom"')


def test_the_age_of_an_index_and_the_state_of_its_watch_are_said(project, ledger):
    assert status(project.settings).indexes[0].watch is None
    run_plain(project.fill(3))
    ledger.begin_watch(ALIAS)
    ledger.update_watch(ALIAS, state="backing off", message="it is down", applied_at=1000.0)
    with IndexLease(ledger, lease_name("test"), "watch"):
        found = status(project.settings).indexes[0].watch
        assert (found["state"], found["message"], found["seconds_behind"] < 300) == (
            "backing off",
            "it is down",
            True,
        )
        ledger._write(positions.update().values(at=ledger.clock() - 400))
        assert 400 <= status(project.settings).indexes[0].watch["seconds_behind"] < 600
        assert re.search(
            "watch backing off, 4.. s behind: it is down", run_here(project.config, "status")[0]
        )
        try_to_write_metrics(project.settings)
    text = (project.folder / "metrics.prom").read_text()
    assert 'rag_index_watch_state{index="notes",state="backing off"} 1.0' in text
    assert 'rag_index_watch_last_applied_timestamp_seconds{index="notes"} 1000.0' in text
    assert re.search(r'rag_index_watch_seconds_behind{index="notes"} [45]\d\d', text)
    assert status(project.settings).indexes[0].watch["state"] == "killed"


def test_an_index_grows_old_while_deletions_are_held_back(project, ledger):
    run_plain(project.fill(300))
    ledger.begin_watch(ALIAS)
    before = ledger.reached()[ALIAS].at
    project.execute("DELETE FROM note")
    run_plain(project)
    assert ledger.reached()[ALIAS].at == before
    assert ledger.record_look(ALIAS, ledger.clock(), after=before), "it is not forgotten"
    assert ledger.reached()[ALIAS].at == before
    run_plain(project, allow_deletes=True)
    assert ledger.reached()[ALIAS].at > before


def test_the_dashboard_shows_metrics_that_are_served(project, ledger):
    run_plain(project.fill(3))
    ledger.begin_watch(ALIAS)
    try_to_write_metrics(project.settings)
    with Retriever.from_settings(project.settings) as retriever:
        retriever.search_sync("pump")
        served = (project.folder / "metrics.prom").read_text() + generate_latest(
            retriever.metrics()
        ).decode()
    dashboard = Path(__file__).parents[2] / "deployments" / "grafana.json"
    shown = set(re.findall(r"rag_index_\w+", dashboard.read_text(encoding="utf-8")))
    assert len(shown) > 8
    declared = dict(re.findall(r"^# TYPE (\w+) (\w+)$", served, re.MULTILINE))
    assert {name.removesuffix("_bucket") for name in shown} <= declared.keys()


def test_prometheus_reads_the_file(tmp_path):
    project = Project(tmp_path / "project", extra='[run]\nmetrics_file = "out/m.prom"')
    record = RunRecord("notes")
    record.outcome.new = 7
    with open_index(project.settings, "notes", RunOptions(), run_id="1") as opened:
        report = record.end(project.settings.embedder, on_server=False)
        opened.ledger.finish_run("1", state="completed", message="", report=report)
    try_to_write_metrics(project.settings)
    file = project.folder / "out" / "m.prom"
    families = list(text_string_to_metric_families(file.read_text()))
    assert {family.type for family in families} <= {"gauge"}
    assert len({family.name for family in families}) == len(families), (
        "the samples of a metric stand together"
    )
    samples = [sample for family in families for sample in family.samples]
    found = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples
    }
    index = ("index", "notes")
    assert found["rag_index_run_new", (index,)] == 7
    assert found["rag_index_run_state", (index, ("state", "completed"))] == 1
    assert found["rag_index_run_state", (index, ("state", "failed"))] == 0
    assert found["rag_index_run_stages", (index, ("stage", "other"))] >= 0
    assert found["rag_index_run_ended_timestamp_seconds", (index,)] > 1.7e9
    assert list(file.parent.iterdir()) == [file], "nothing is left beside it"


def looked_at(project):
    """Look at everything, and return the documents of each index, its failures, and the states of
    its runs."""
    settings = project.settings
    [shown], reports = status(settings).indexes, run_reports(settings, settings.indexes)
    [plan] = plan_runs(settings, settings.indexes)
    return (
        shown.documents,
        plan.unchanged,
        failed(settings, settings.indexes),
        [one["state"] for one in reports],
    )


def test_a_mistyped_ledger_is_not_created(tmp_path):
    project = Project(
        tmp_path / "project", extra='[ledger]\nurl = "sqlite:///nowhere/deep/ledger.db"'
    ).fill(3)
    before = sorted(project.folder.rglob("*"))
    assert (looked_at(project), sorted(project.folder.rglob("*"))) == ((0, 0, [], []), before)


def test_a_ledger_in_a_folder_that_one_may_not_enter_is_named(tmp_path, monkeypatch):
    project = Project(tmp_path / "project").fill(3)
    run_plain(project)
    settings, folder, is_root = project.settings, project.folder / ".rag-index", os.geteuid() == 0
    folder.chmod(0)
    if is_root:
        monkeypatch.setattr(
            os, "access", lambda *_: False
        )  # it asks for the real user, who stays root
        os.seteuid(65534)
    try:
        with pytest.raises(
            LedgerError,
            match=r"ledger\.db cannot be read: Permission denied; correct its permissions",
        ):
            Ledger(settings.ledger_url, read_only=True)
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o700)


def test_a_ledger_that_its_owner_writes_while_somebody_else_reads_it_is_not_called_damaged(
    tmp_path,
):
    project = Project(tmp_path / "project").fill(3)
    run_plain(project)
    with mock.patch.object(os, "access", return_value=False):
        reader = Ledger(project.settings.ledger_url, read_only=True)
    with closing(reader):
        assert reader.collections("test_notes")
        project.fill(3, first=10)
        run_plain(project)
        with pytest.raises(
            LedgerUnavailable, match="is being written by its owner: run the command again"
        ):
            reader.collections("test_notes")


@pytest.mark.mount
def test_a_ledger_on_a_read_only_mount_is_read(tmp_path):
    project = Project(
        tmp_path / "project", extra='[ledger]\nurl = "sqlite:///disk/ledger.db"'
    ).fill(3)
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
