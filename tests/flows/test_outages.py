"""A service that does not answer: the progress says so within seconds, and the run ends in words
where it ends."""

import logging
import re
import socket
import socketserver
import sqlite3
import threading
from contextlib import closing, contextmanager, suppress
from urllib.parse import urlsplit

import pytest
from prefect import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from rag_index.components.embedders import servers
from rag_index.components.stores.server import link
from rag_index.core.settings import load_settings
from rag_index.etl.opened import RunOptions
from rag_index.orchestration.launch import run_locally
from tests.etl.plain import listed_as_deadly, printed
from tests.fakes.ollama import FakeOllama, ended_by
from tests.fakes.qdrant import FakeQdrant
from tests.flows.conftest import Recorder
from tests.live.qdrant import STORES, project_on
from tests.project import Project, run_here
from tests.waiting import eventually, when


@pytest.fixture
def project(tmp_path, fake) -> Project:
    return Project(tmp_path / "project", extra=fake.settings).fill(80)


def silent(server: FakeOllama | FakeQdrant) -> str:
    name = "Ollama" if isinstance(server, FakeOllama) else "Qdrant"
    return f"{name} at {server.url} does not answer, waiting since "


def assert_no_eta(shown: Recorder) -> None:
    """Check that nothing is said of time left or pace while a service does not answer."""
    said = [sentence for sentence in shown.sentences if "does not answer" in sentence]
    assert said
    assert not [sentence for sentence in said if " left" in sentence or "/s" in sentence], said


@pytest.mark.long
def test_a_server_that_hangs_in_the_middle_is_named_without_an_eta(
    project, prefect_server, fake, shown
):
    fake.seconds_per_text = 0.1
    with (
        when(lambda: shown.says("10 of 80 documents"), lambda: fake.fault("hang", path=None)),
        when(lambda: shown.says(silent(fake)), lambda: (fake.clear(), fake.restart())),
    ):
        report = project.index(shard_documents=10, workers=1)
    assert report.state == "completed", report.sentence()
    assert_no_eta(shown)
    assert len(project.texts()) == 80


@pytest.mark.long
def test_an_outage_is_in_the_log_of_the_run_over_all_indexes_for_as_long_as_it_lasts(
    project, prefect_server, fake, caplog, monkeypatch
):
    limits = {
        "reports.progress.REPEAT": 0.0,
        "reports.progress.INTERVAL": 0.05,
        "recovery.SILENCE": 0.2,
    }
    for name, value in limits.items():
        monkeypatch.setattr(f"rag_index.core.{name}_SECONDS", value)
    monkeypatch.setattr(servers, "PATIENCE", 1.0)
    fake.seconds_per_text = 0.01

    def said() -> list[str]:
        records = [one for one in caplog.records if getattr(one, "flow_name", "") == "index-all"]
        return [
            one.message
            for one in records
            if one.levelno == logging.WARNING and silent(fake) in one.message
        ]

    with (
        when(lambda: fake.embeds()[3:], fake.stop_listening),
        when(lambda: len(said()) > 1, fake.listen),
    ):
        report = project.index(serial=True, shard_documents=10)
    assert report.state == "completed", report.sentence()
    assert said()[0].startswith(f"notes: {silent(fake)}")


def test_the_progress_of_a_run_that_failed_says_what_is_kept(
    tmp_path, prefect_server, fake, monkeypatch
):
    monkeypatch.setattr(servers, "PATIENCE", 0.5)
    project = Project(
        tmp_path / "project", extra=f"{fake.settings}[run]\nwait_for_recovery = 0.2\n"
    ).fill(80)
    fake.seconds_per_text = 0.02
    with when(
        lambda: any("Note 40" in text for one in fake.embeds() for text in one.texts),
        fake.stop_listening,
    ):
        assert project.index(serial=True, shard_documents=10).state == "failed"
    with get_client(sync_client=True) as client:
        artifacts = client._client.post("/artifacts/latest/filter", json={}).json()
    [notes, whole] = [
        next(one for one in artifacts if one["key"] == f"test-{of}-progress")
        for of in ("notes", "all")
    ]
    said = re.fullmatch(r"failed; (\d+) of 80 documents are done and kept", notes["description"])
    assert said, notes["description"]
    assert notes["data"] == 100 * int(said[1]) / 80 < 100
    assert whole["description"].startswith("notes failed: ")


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 1])
def test_a_qdrant_server_that_goes_away_is_named_without_an_eta(
    tmp_path, prefect_server, shown, workers
):
    with FakeQdrant() as qdrant:
        settings = f'[store]\nurl = "{qdrant.url}"\n[parallel]\nshard_documents = 20\n'
        project = Project(tmp_path / "project", extra=settings).fill(200)
        with (
            when(
                lambda: qdrant.requests("PUT /collections/test_notes__1/points") >= 3, qdrant.stop
            ),
            when(lambda: shown.says(silent(qdrant), "refused"), qdrant.start),
        ):
            report = project.index(workers=workers) if workers else project.run()
        assert report.state == "completed", report.sentence()
        assert_no_eta(shown)
        assert len(project.texts()) == 200
    [run] = printed(project, "status", "--report")["runs"]
    assert 5 <= run["metrics"]["outage_seconds"] < run["seconds"], "it is named after five seconds"
    assert (
        "s of that a service did not answer, which counts for no rate"
        in run_here(project.config, "status", "--report")[0]
    )


@pytest.mark.long
def test_a_local_run_names_the_server_that_its_child_processes_wait_for_and_no_other(
    tmp_path, fake, shown, caplog, monkeypatch
):
    """The first write to Qdrant is answered late, while the children start. All others are answered
    at once. The first 10 documents are embedded by the run's own process."""
    monkeypatch.setattr(link, "USUAL_SILENCE", 3.0)
    fake.seconds_per_text = 0.01
    with FakeQdrant() as qdrant:
        extra = (
            f'{fake.settings}[store]\nurl = "{qdrant.url}"\n[parallel]\nworkers ='
            " 2\nshard_documents = 10\n"
        )
        project = Project(tmp_path / "project", extra=extra).fill(400)
        settings = load_settings(project.config)
        qdrant.break_next("PUT /collections/test_notes__1/points", hang=1.0)
        with (
            when(lambda: sum(len(one.texts) for one in fake.embeds()) > 40, fake.stop_listening),
            when(lambda: shown.says(silent(fake)), fake.listen),
        ):
            report = run_locally(settings, settings.indexes, RunOptions())
        assert report.state == "completed", report.sentence()
        assert_no_eta(shown)
        assert silent(fake) in caplog.text, "the log of the run says it, too"
        assert not shown.says(silent(qdrant)), "a server that answers"
        assert len(project.texts()) == 400


@pytest.mark.long
@pytest.mark.parametrize("way", ["as a flow", "as a local run"])
def test_a_run_names_the_server_that_the_child_of_its_suspects_waits_for(
    tmp_path, fake, shown, way, request
):
    project = Project(tmp_path / "project", extra=fake.settings).fill(20)
    project.execute("UPDATE note SET body = 'refused' WHERE id = 7")
    fake.fault("status", code=400, marker="refused")
    assert project.run().state == "partial"
    fake.clear()
    if way == "as a flow":
        request.getfixturevalue("prefect_server")
    fake.fault("hang", marker="refused", times=1)
    with (
        when(lambda: "refused" in str([one.texts for one in fake.embeds()]), fake.stop_listening),
        when(lambda: shown.says(silent(fake)), fake.listen),
    ):
        report = project.index(serial=True) if way == "as a flow" else project.run()
    assert report.state == "completed", report.sentence()
    assert_no_eta(shown)


@pytest.mark.long
def test_a_flow_tries_what_ended_its_server_once_and_after_what_its_workers_embed(
    tmp_path, fake, prefect_server
):
    project = Project(tmp_path / "project", extra=fake.settings).fill(40)
    listed_as_deadly(project, fake, "KILLS", where="id = 7")
    project.execute("UPDATE note SET body = 'changed' WHERE id != 7")
    with ended_by(fake, "KILLS") as deaths:
        [outcome] = project.index(workers=1, shard_documents=10).indexes
        sent = str([one.texts for one in fake.embeds()])
    assert (outcome.state, outcome.changed, outcome.failed) == ("partial", 39, 1), outcome
    assert len(deaths) == 1
    assert sent.rindex("changed") < sent.index("KILLS")


def test_a_server_that_lists_its_models_but_does_not_embed_ends_the_whole_once(
    project, fake, shown, monkeypatch
):
    """With five indexes, and a limit at the start that is short. An eighth of it is unusual
    already."""
    monkeypatch.setattr("rag_index.etl.checks.MIN_PATIENCE", 3.0)
    head, one = project.config.read_text().split("[[indexes]]")
    indexes = [one.replace('"notes"', f'"notes{number}"') for number in range(5)]
    project.write_settings(
        "[[indexes]]".join([head, *indexes]).replace("hosts = ", "timeout = 4\nhosts = ")
    )
    fake.fault("hang")
    report = project.run()
    messages = [outcome.message for outcome in report.indexes]
    assert [outcome.state for outcome in report.indexes] == ["failed"] * 5
    assert f"{fake.url} did not answer within 4 s: restart Ollama there if it hangs" in messages[0]
    assert "[embedder] timeout" in messages[0]
    assert all("does not ask again" in message for message in messages[1:]), messages
    at_work = f"waiting for Ollama at {fake.url} since "
    assert shown.says("not begun", at_work, ": it is still at work on a request"), shown.sentences
    assert len(fake.embeds()) == 1


def test_an_embedder_that_goes_silent_is_waited_for_once_and_others_fail_at_once(
    tmp_path, fake, caplog, monkeypatch
):
    monkeypatch.setattr(servers, "PATIENCE", 1.0)
    project = Project(
        tmp_path / "project", extra=fake.settings + "[run]\nwait_for_recovery = 1\n"
    ).fill(3)
    settings = project.config.read_text()
    project.write_settings(
        settings + settings[settings.index("[[indexes]]") :].replace('"notes"', '"others"')
    )
    fake.fault("hang", marker="Note")  # not at the plain text of the start
    with when(
        lambda: any("Note" in text for one in fake.embeds() for text in one.texts),
        fake.stop_listening,
    ):
        first, second = project.run().indexes
    assert (first.state, second.state) == ("failed", "failed")
    assert "accepts no connection" in first.message
    assert "waited for it since" in first.message
    assert "trying again" not in caplog.text, "the step has waited as long as it may"
    assert second.message.endswith("(the run has waited for it, and does not ask again)")


class Relay(socketserver.BaseRequestHandler):
    """A connection to Prefect's server. One answer to a flow run that is Completed is lost; while
    the server is `away`, there are none."""

    reports = loses = False

    def handle(self):
        if self.server.away.is_set():
            return
        with socket.create_connection(self.server.to) as server:
            threading.Thread(target=self.answer, args=(server,), daemon=True).start()
            while not self.server.away.is_set() and (data := self.request.recv(65536)):
                passes = not (self.server.statuses and data.startswith(self.server.refused))
                if (status := 200 if passes else self.server.statuses.pop()) != 200:
                    answer = (
                        f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    )
                    self.request.sendall(answer.encode())
                    server.shutdown(socket.SHUT_RDWR)  # ends the thread that waits for its answer
                    return
                self.reports = b"/set_state" in data or self.reports
                if self.reports and b'"COMPLETED"' in data:
                    self.loses = self.server.lost == self.server.number
                    self.server.lost += 1
                server.sendall(data)

    def answer(self, server):
        with suppress(OSError):
            while (data := server.recv(65536)) and not self.loses:
                self.request.sendall(data)
            self.request.shutdown(socket.SHUT_RDWR)


class RelayServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    """It may listen again at its port, where connections are still ending."""


@contextmanager
def relayed(url, number=None):
    """Give a relay to Prefect's server, and its URL, at which the answer to the `number`th end of a
    flow run, from 0, is lost."""
    with RelayServer(("127.0.0.1", 0), Relay) as relay:
        relay.to, relay.number, relay.lost = (urlsplit(url).hostname, urlsplit(url).port), number, 0
        relay.daemon_threads, relay.away, relay.refused, relay.statuses = (
            True,
            threading.Event(),
            (),
            [],
        )
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        yield relay, f"http://127.0.0.1:{relay.server_address[1]}/api"
        relay.shutdown()


@pytest.mark.long
def test_an_index_whose_end_is_reported_twice_is_not_failed(tmp_path, prefect_server):
    """Prefect's server gives the state back without the outcome if it has it already."""
    project = Project(tmp_path / "project").fill(20)
    with relayed(prefect_server, 0) as (relay, url), temporary_settings({PREFECT_API_URL: url}):
        report = project.index(serial=True)
    assert relay.lost > 1, "it was reported again"
    assert (report.state, report.sentence()) == ("completed", "1 index: 20 documents indexed")


@pytest.mark.long
@pytest.mark.parametrize("retries", [0, 2])
def test_a_server_of_prefect_that_answers_as_broken_is_away_too(tmp_path, prefect_server, retries):
    """It answers so as the run of an index begins, which is tried again by Prefect's client, and
    then by ours."""
    project = Project(tmp_path / "project").fill(20)
    with relayed(prefect_server) as (relay, url):
        relay.refused, relay.statuses = (
            b"POST /api/flow_runs/ ",
            [500, 503, 200],
        )  # the last is for the whole run
        with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: retries}):
            report = project.index(serial=True)
    assert not relay.statuses
    assert (report.state, report.sentence()) == ("completed", "1 index: 20 documents indexed")


@pytest.mark.long
@pytest.mark.parametrize("store", STORES)
def test_workers_that_begin_while_prefects_server_is_away_do_their_work(
    tmp_path, prefect_server, fake, store
):
    """Each would ask the server's version as its first task begins. The run waits for the server at
    its end."""
    with (
        project_on(
            store, lambda at: Project(tmp_path / "project", fake.settings + at).fill(40)
        ) as project,
        relayed(prefect_server) as (relay, url),
        temporary_settings({PREFECT_API_URL: url}),
        when(fake.embeds, relay.away.set),  # the one text of the start
        when(lambda: relay.away.is_set() and has_ended(project), relay.away.clear),
    ):
        report = project.index(workers=2, shard_documents=10)
        assert (report.state, report.sentence()[:29]) == (
            "completed",
            "1 index: 40 documents indexed",
        )
        assert len(project.texts()) == 40


def has_ended(project: Project) -> bool:
    """Return whether the ledger knows how the run ended, which Prefect is told afterwards."""
    with closing(sqlite3.connect(project.folder / ".rag-index" / "ledger.db")) as db:
        return not db.execute("SELECT 1 FROM rag_index_runs WHERE state = 'running'").fetchall()


def stop_listening(relay):
    """Let connections to the relay be refused."""
    relay.away.set()
    relay.shutdown()
    relay.socket.close()


def listen(relay):
    relay.socket = socket.create_server(relay.server_address)
    relay.away.clear()
    threading.Thread(target=relay.serve_forever, daemon=True).start()


def answer_all(relay, status):
    """Answer all requests with this status."""
    relay.refused, relay.statuses = (b"GET ", b"POST ", b"PUT ", b"PATCH "), [status] * 100_000


def said_of_prefect(caplog) -> list[str]:
    """Return what the log of the whole run says of Prefect's server."""
    records = [one for one in caplog.records if getattr(one, "flow_name", "") == "index-all"]
    return [one.message for one in records if "Prefect's server" in one.message]


def assert_said_once(caplog, reason):
    """Check that the outage and its end have one line each, and that no artifact or event adds one
    of its own."""
    begin, end = said_of_prefect(caplog)
    said = rf"Prefect's server does not answer \({reason}\): the run waits for it where it needs it"
    assert re.fullmatch(said, begin)
    assert re.fullmatch(r"Prefect's server answers again after \d+ s, and the run goes on", end)
    others = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert not [
        other for other in others if "artifact" in other or "failed to process item" in other
    ]
    assert sum("takes no events" in other for other in others) <= 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("status", "reason", "options"),
    [
        (503, "status 503", {"workers": 2}),
        (502, "status 502", {"serial": True}),
        (504, "status 504", {"serial": True}),
        (None, ".*(refused|disconnected).*", {"workers": 2}),
    ],
)
def test_an_outage_of_prefects_server_has_two_lines_in_the_log(
    tmp_path, prefect_server, fake, caplog, status, reason, options
):
    """It lasts from the middle of the run until that has nothing left to do but to report."""
    project = Project(tmp_path / "project", fake.settings).fill(60)
    with relayed(prefect_server) as (relay, url), temporary_settings({PREFECT_API_URL: url}):

        def outage():
            if status is None:
                stop_listening(relay)
            else:
                answer_all(relay, status)
            eventually(lambda: said_of_prefect(caplog) and has_ended(project))
            relay.statuses = []
            if status is None:
                listen(relay)

        with when(lambda: fake.embeds()[2:], outage):
            report = project.index(shard_documents=10, **options)
    assert (report.state, report.sentence()[:29]) == ("completed", "1 index: 60 documents indexed")
    assert_said_once(caplog, reason)


@pytest.mark.long
def test_a_request_that_waits_alone_is_reported_until_it_is_answered(
    tmp_path, prefect_server, caplog
):
    """A server whose database is locked answers 503 to what writes, and other requests
    meanwhile."""
    project = Project(tmp_path / "project").fill(20)
    with relayed(prefect_server) as (relay, url), temporary_settings({PREFECT_API_URL: url}):
        relay.refused, relay.statuses = (
            b"POST /api/flow_runs/ ",
            [503, 503, 503, 200],
        )  # the last is for the whole run
        report = project.index(serial=True)
    assert report.state == "completed"
    assert_said_once(caplog, "status 503")
    [seconds] = re.findall(r"after (\d+) s", said_of_prefect(caplog)[1])
    assert int(seconds) >= 10, (
        "three pauses of Prefect's client, not the first of a request beside it"
    )


@pytest.mark.long
def test_the_report_of_the_last_state_that_waits_is_in_the_log(tmp_path, prefect_server, caplog):
    """Prefect's engine sends it after the flow has returned."""
    project = Project(tmp_path / "project").fill(20)
    with relayed(prefect_server) as (relay, url), temporary_settings({PREFECT_API_URL: url}):

        def refuse_last_state(record: logging.LogRecord) -> bool:
            # The index has ended: what is sent to this path now is the state of the whole run.
            if record.getMessage().startswith("notes: 1 index: 20 documents indexed"):
                relay.refused, relay.statuses = b"POST /api/flow_runs/", [503, 503, 503]
            return True

        log = logging.getLogger("prefect.flow_runs")
        log.addFilter(refuse_last_state)
        try:
            assert project.index(serial=True).state == "completed"
        finally:
            log.removeFilter(refuse_last_state)
    assert not relay.statuses
    assert_said_once(caplog, "status 503")
