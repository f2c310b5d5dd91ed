"""A night as in docs/operations.md: a worker elsewhere runs the deployment, and a person looks at
Prefect's UI.

SCREENSHOTS=docs/images pytest tests/deployments/test_worker.py    # also makes the page's pictures
"""

import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import psutil
import pytest

from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import holder
from rag_index.orchestration.stopping import CANCELLED
from tests.dask_workers import command, workers_among
from tests.deployments.server import PREFECT, SUSPENDED
from tests.live.qdrant import REAL, project_on
from tests.project import Project
from tests.waiting import eventually, tracebacks

pytestmark = pytest.mark.long

ABORTED = "Execution was aborted by a termination signal."
any_store = pytest.mark.parametrize("project", ["embedded", REAL], indirect=True)


@pytest.fixture
def project(request, tmp_path, fake):
    """240 notes; a parameter is one of `STORES`."""
    kind, extra = (
        getattr(request, "param", "embedded"),
        f"{fake.settings}[run]\nwait_for_recovery = 5\n",
    )
    with project_on(kind, lambda store: Project(tmp_path / "project", extra + store)) as project:
        yield project.fill(240)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The folder in which the worker runs. It has its log."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def worker(deployed, elsewhere):
    with deployed.worker(elsewhere) as process:
        yield process


@pytest.fixture
def start(deployed, project):
    """Start a run of a deployment on the project, and return its id."""
    return lambda name, **options: deployed.start(
        f"{name}/{name}", config=str(project.config), **options
    )["id"]


def dask_workers(process) -> list[psutil.Process]:
    """Return the Dask worker processes below this one."""
    return workers_among(
        one for one in psutil.Process(process.pid).children(recursive=True) if one.is_running()
    )


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_night_with_failures_is_visible_in_the_browser(
    deployed, project, fake, worker, elsewhere, start, browser
):
    project.execute("UPDATE note SET body = 'POISON' WHERE id IN (17, 40)")
    fake.fault("status", code=400, marker="POISON", words="cannot embed this")
    fake.seconds_per_text = 0.4
    started = start("index-all", workers=2, shard_documents=20)
    page = f"{deployed.url}/runs/flow-run"
    browser.open(f"{page}/{started}")
    seen = {"page": set(), "test-notes-progress": set(), "test-all-progress": set()}

    def moves():
        """Return whether the page and both artifacts have shown a run under way, with its rate and
        the time left."""
        seen["page"].update(re.findall("index all|Running", browser.words()))
        for key, one in deployed.artifacts().items():
            if (
                key in seen and "of 240, " in one["description"]
            ):  # the run of another test had other numbers
                seen[key].add(one["description"])
        numbers = re.compile(r"\d+ of 240,.* \d+ (?:s|min) left,.* \d+/s")
        rated = [*filter(numbers.match, seen["test-notes-progress"])]
        whole = [one for one in seen["test-all-progress"] if re.match(r"notes: \d+ of 240, ", one)]
        return len(seen["page"]) == 2 and whole and len(rated) > 1

    eventually(moves, lambda: f"the progress moves: {seen}", every=0.25)
    fake.seconds_per_text = 0.02
    ended = deployed.wait_for_end(started)
    assert (ended["state_type"], ended["state_name"], ended["name"]) == (
        "FAILED",
        "Failed",
        "index all",
    )
    summary = "partially indexed: 1 index: 238 documents indexed, 2 failed"
    assert ended["state"]["message"].startswith(f"{summary}; notes: 2 documents failed: "), (
        "the reason is first"
    )
    assert deployed.artifacts()["test-all-progress"]["flow_run_id"] == started
    begun = [run for run in deployed.runs() if (run["start_time"] or "") >= ended["start_time"]]
    (subflow,) = [run for run in begun if run["name"] == "index notes"]  # other tests had runs, too
    assert subflow["state"]["message"] == ended["state"]["message"]
    said = r"2 documents failed: .*cannot embed this"
    logs = eventually(  # Prefect sends them a while after the state
        lambda: re.search(said, found := "\n".join(deployed.logs(subflow["id"]))) and found,
        said,
        every=0.25,
    )
    assert "document 17" not in logs, "logs outlive an erasure"
    assert re.search(
        r"20 documents of pages 1: \d+ texts embedded, 0 reused, 1 document failed", logs
    )
    eventually(
        lambda: any("partially indexed" in line for line in errors_of(deployed, started)),
        "the filter shows it",
        every=0.25,
    )

    browser.open(f"{page}/{started}")
    browser.wait_for("index all", "Failed", "partial", "238 documents indexed, 2 failed")
    browser.picture("run-partial.png")
    browser.click("Artifacts")
    browser.wait_for("test-all-progress", "test-all-outcome", "test-all-failed")
    browser.picture("run-artifacts.png")
    browser.open(f"{page}/{subflow['id']}")
    browser.wait_for(
        "index notes", "Failed", "240 documents read", "1 document failed"
    )  # as far as the list reaches
    browser.picture("run-index.png")
    browser.click("Artifacts")
    browser.wait_for("test-notes-progress", "test-notes-failed", "test-notes-report")
    browser.picture("artifacts.png")
    failed = (
        "2 documents of notes could not be indexed",
        "17",
        "cannot embed this",
        "notes --retry-failed",
    )
    for name, size, *shown in (
        ("failed", {"height": 600}, *failed),
        ("report", {}, "notes: partial", "workers (2) busy", "Where the time went"),
        ("progress", {}, "240 documents: 238 new, 2 failed"),
    ):
        browser.open(
            f"{deployed.url}/artifacts/artifact/{deployed.artifacts()[f'test-notes-{name}']['latest_id']}"
        )
        browser.wait_for(*shown)
        browser.picture(f"{name}.png", **size)

    log = (elsewhere / "worker.log").read_text()
    assert "cannot be resolved" not in log
    own = deployed.logs(started, only=True)
    assert summary in own[-1], "the log ends with our sentence"
    assert not tracebacks(log), log
    assert "Traceback" not in "".join(own)
    browser.open(f"{deployed.url}/deployments/deployment/{ended['deployment_id']}?tab=Runs")
    browser.wait_for("index all", "Failed", "partial")
    browser.picture("deployment-runs.png", height=700)
    browser.open(f"{deployed.url}/deployments")
    browser.wait_for("index-all", "index-collection", "doctor", "At 02:00 AM")
    browser.picture("deployments.png", height=700)


def test_one_index_the_doctor_and_the_benchmark_are_deployments_too(
    deployed, project, fake, worker, elsewhere, start
):
    fake.seconds_per_text = 0.02
    started = start("index-collection", index="notes", workers=2, shard_documents=20)
    eventually(lambda: dask_workers(worker), "a Dask worker, which asks the server", every=0.25)
    ended = deployed.wait_for_end(started)
    assert (ended["name"], ended["state_name"], len(project.texts())) == (
        "index notes",
        "Completed",
        240,
    )
    eventually(lambda: not dask_workers(worker), "no Dask worker is left", every=0.25)
    assert "dashboard" not in (elsewhere / "worker.log").read_text(), "there is none"
    healthy, measured = map(
        deployed.wait_for_end, [start("doctor"), start("benchmark", sample_size=60, workers=[1])]
    )
    assert (healthy["state_name"], healthy["name"]) == ("Completed", "doctor all"), healthy["state"]
    assert "Source, ledger and store agree" in healthy["state"]["message"]
    assert measured["state_name"] == "Completed", measured["state"]

    fake.stop_listening()
    failed = start("index-collection", index="notes", serial=True)
    ended = deployed.wait_for_end(failed)
    address = fake.url.removeprefix("http://")
    assert ended["state_type"] == "FAILED"
    assert address in ended["state"]["message"]
    cause = f"{address} accepts no connection: is Ollama running there?"
    eventually(
        lambda: any(cause in line for line in deployed.logs(failed)),
        "the log has the cause",
        every=0.25,
    )
    assert "# notes: failed" in deployed.artifacts()["test-notes-report"]["data"]


def test_a_mistake_in_the_settings_is_one_line_of_a_failed_run(
    deployed, project, worker, elsewhere
):
    project.config.write_text(project.config.read_text() + "\n[parallel]\nworkers = 0\n")
    log, begins = elsewhere / "worker.log", (elsewhere / "worker.log").stat().st_size
    places = {"workers": project.config, "absent.toml": project.folder / "absent.toml"}
    names = ("index-all", "doctor", "benchmark")
    runs = [
        (deployed.start(f"{one}/{one}", config=str(places[said]))["id"], said)
        for one in names
        for said in places
    ]
    for run, words in runs:
        ended = deployed.wait_for_end(run)
        message = ended["state"]["message"]
        assert (ended["state_name"], words in message, "\n" in message) == (
            "Failed",
            True,
            False,
        ), message
        assert "Traceback" not in "".join(deployed.logs(run))
    assert not tracebacks(said := log.read_bytes()[begins:].decode()), said


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("index-all", {"options": {one: -1}})
        for one in ("workers", "shard_documents", "wait", "no_such_option")
    ]
    + [
        ("doctor", {"wait": -1}),
        ("benchmark", {"sample_size": 0}),
        ("benchmark", {"workers": [0]}),
    ],
)
def test_a_mistake_in_the_parameters_begins_no_run(deployed, name, parameters):
    path = f"/deployments/{deployed.deployment(f'{name}/{name}')['id']}/create_flow_run"
    answer = deployed.client.post(path, json={"parameters": parameters})
    assert (answer.status_code, "alidation failed" in answer.text) == (409, True), answer.text


def test_options_of_the_command_line_reach_the_run(deployed, project, worker):
    given = ("-p", f"config={project.config}", "-p", 'options={"serial": true, "full": true}')
    assert "Completed" in deployed.prefect(
        "deployment", "run", "index-all/index-all", *given, "--watch"
    )
    assert len(project.texts()) == 240


def states(deployed, run_id) -> list[tuple[str, str]]:
    """Return the name and message of each state that a run had."""
    found = deployed.get(f"/flow_run_states/?flow_run_id={run_id}")
    return [
        (one["name"], one["message"] or "")
        for one in sorted(found, key=lambda one: one["timestamp"])
    ]


def cancel(deployed, run_id) -> None:
    deployed.post(
        f"/flow_runs/{run_id}/set_state", state={"type": "CANCELLING", "name": "Cancelling"}
    )


def errors_of(deployed, *runs) -> list[str]:
    """Return the lines at level WARNING and above in the logs of these flow runs and their
    tasks."""
    found = deployed.post(
        "/logs/filter", logs={"flow_run_id": {"any_": [*runs]}, "level": {"ge_": 30}}, limit=200
    )
    return [line["message"] for line in found]


def lease_holders(project, name: str = "%") -> list[str | None]:
    """Return who holds each lease; a process that Prefect has killed holds none."""
    with sqlite3.connect(project.folder / ".rag-index" / "ledger.db") as db:
        names = [
            row[0]
            for row in db.execute("SELECT name FROM rag_index_leases WHERE name LIKE ?", [name])
        ]
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        return [holder(ledger, one) for one in names]


def committed(project) -> int:
    """Return how many documents the ledger says are embedded, none before there is a ledger."""
    try:
        with closing(
            sqlite3.connect(f"file:{project.folder}/.rag-index/ledger.db?mode=ro", uri=True)
        ) as db:
            return db.execute(
                "SELECT count(*) FROM rag_index_documents WHERE pending + by_words = 0"
            ).fetchone()[0]
    except sqlite3.OperationalError:
        return 0


@any_store
def test_a_run_that_is_cancelled_leaves_no_process_and_keeps_finished_work(
    deployed, project, fake, worker, start
):
    fake.seconds_per_text = 0.2
    run = start("index-all", workers=2, shard_documents=10)
    finished = eventually(lambda: committed(project), "some documents are indexed", every=0.25)
    below = psutil.Process(worker.pid).children(recursive=True)
    assert dask_workers(worker)
    cancel(deployed, run)
    eventually(lambda: not any(map(alive, below)), "no process is left", every=0.25)
    ended = deployed.wait_for_end(run)
    assert ended["state_type"] == "CANCELLED"
    assert not any(lease_holders(project)), "nobody holds a lease"
    began = [
        one
        for one in deployed.runs()
        if one["start_time"] and one["start_time"] > ended["start_time"]
    ]
    parts = [one["id"] for one in began if one["name"] == "index notes"]
    assert not errors_of(deployed, run, *parts), "what was closed is no error of the run"
    assert finished <= committed(project) < 240
    fake.seconds_per_text = 0
    assert (
        deployed.wait_for_end(start("index-collection", index="notes", serial=True))["state_name"]
        == "Completed"
    )
    assert len(project.texts()) == 240


def test_a_run_that_its_worker_does_not_cancel_cancels_itself(deployed, fake, worker, start):
    fake.seconds_per_text = 0.2
    run = start("index-all", serial=True)
    eventually(fake.embeds, "documents are being embedded", every=0.25)
    below = psutil.Process(worker.pid).children(recursive=True)
    worker.send_signal(signal.SIGSTOP)
    try:
        cancel(deployed, run)
        ended = deployed.wait_for_end(run)
        eventually(lambda: not any(map(alive, below)), "no process is left", every=0.25)
    finally:
        worker.send_signal(signal.SIGCONT)
    assert (ended["state_type"], ended["state"]["message"]) == ("CANCELLED", CANCELLED)
    assert [name for name, _ in states(deployed, run)][-3:] == [
        "Running",
        "Cancelling",
        "Cancelled",
    ]
    later = [
        one
        for one in deployed.runs()
        if one["start_time"] and one["start_time"] > ended["start_time"]
    ]
    assert [one["state_type"] for one in later if one["name"] == "index notes"] == ["CANCELLED"]
    assert "Traceback" not in "".join(deployed.logs(run))


@any_store
def test_a_restart_of_prefects_server_costs_a_run_nothing(
    deployed, project, fake, worker, elsewhere, start
):
    """The server is away from the middle of the run until all is committed: the run waits to
    report, and no longer."""
    fake.seconds_per_text = 0.05
    run = start("index-all", workers=2, shard_documents=10)
    eventually(lambda: len(fake.embeds()) > 5, "documents are being embedded", every=0.25)
    deployed.stop_server()
    try:
        alias = project.settings.alias("notes")
        eventually(lambda: lease_holders(project, alias) == [None], "the index is done", every=0.25)
        assert len(project.texts()) == 240
        said = "Prefect's server does not answer"  # when the flow next needs it
        eventually(lambda: said in (elsewhere / "worker.log").read_text(), said, every=0.25)
    finally:
        deployed.start_server()
    ended = deployed.wait_for_end(run)
    assert (ended["state_name"], ended["state"]["message"][:30]) == (
        "Completed",
        "1 index: 240 documents indexed",
    )
    assert [name for name, _ in states(deployed, run)][-2:] == ["Running", "Completed"]
    name = project.settings.project
    assert deployed.artifacts()[f"{name}-all-progress"]["flow_run_id"] == run
    assert deployed.artifacts()[f"{name}-notes-report"]["data"].startswith("# notes: completed")
    assert "Traceback" not in "".join(deployed.logs(run))


def engine(worker) -> psutil.Process:
    """Return the process of the run, which is Prefect's engine, once that of an earlier run has
    ended."""

    def only() -> psutil.Process | None:
        found = [
            one
            for one in psutil.Process(worker.pid).children(recursive=True)
            if "prefect.engine" in command(one)
        ]
        return found[0] if len(found) == 1 else None

    return eventually(only, "one run has a process", every=0.25)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_whose_process_alone_was_killed_is_reported(deployed, fake, worker, start, number):
    fake.seconds_per_text = 0.2
    run = start("index-all", serial=True)
    eventually(fake.embeds, "documents are being embedded", every=0.25)
    engine(worker).send_signal(number)
    eventually(
        lambda: deployed.run(run)["state_name"] == "Crashed",
        "the run is marked as crashed",
        every=0.25,
    )


def test_a_run_whose_worker_was_killed_ends_with_one_sentence(deployed, project, fake, start):
    """What it writes goes to the worker, so that a pipe breaks in whichever of its threads logs
    next."""
    fake.seconds_per_text = 0.1
    run = start("index-all", state={"type": "PENDING"}, workers=2, shard_documents=10)
    command = [sys.executable, "-m", "prefect.engine"]
    environment = deployed.environment | {"PREFECT__FLOW_RUN_ID": run}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env=environment, cwd=project.folder, **output) as flow:
        for _ in flow.stdout:
            if committed(project):
                break
        below = psutil.Process(flow.pid).children(recursive=True)
        flow.stdout.close()
        assert flow.wait(120)
    eventually(lambda: not any(map(alive, below)), "no process is left", every=0.25)
    ended = deployed.wait_for_end(run)
    assert (ended["state_name"], ended["state"]["message"]) == ("Crashed", ABORTED)
    assert not [
        line for line in errors_of(deployed, run) if "IOLoop" in line or "BrokenPipe" in line
    ]


def test_a_run_that_is_suspended_ends_its_processes_and_goes_on_when_resumed(
    deployed, project, fake, worker, start
):
    fake.seconds_per_text = 0.2
    run = start("index-all", workers=2, shard_documents=10)
    finished = eventually(lambda: committed(project), "some documents are indexed", every=0.25)
    below = psutil.Process(worker.pid).children(recursive=True)
    fake.seconds_per_text = (
        2.0  # a busy worker learns of it late, and there has to be something left
    )
    deployed.post(f"/flow_runs/{run}/set_state", state=SUSPENDED)
    eventually(lambda: not any(map(alive, below)), "no process is left", every=0.25)
    assert deployed.run(run)["state_name"] == "Suspended"
    (part,) = [
        one
        for one in deployed.runs()
        if one["name"] == "index notes"
        and one["state_name"] == "Cancelled"
        and "suspended with the run" in one["state"]["message"]
    ]
    said = errors_of(deployed, run, part["id"])
    usual = re.compile(
        "Finished in state Pending|.* it is still at work on a request"
    )  # it was about to begin
    assert not [line for line in said if not usual.match(line)]
    for name in ("notes", "all"):
        said = deployed.artifacts()[f"test-{name}-progress"]["description"]
        assert re.search(r"stopped; \d+ of 240 documents are done and kept", said)
    assert finished <= committed(project) < 240
    fake.seconds_per_text = 0
    deployed.post(f"/flow_runs/{run}/resume")
    ended = deployed.wait_for_end(run)
    assert ended["state_name"] == "Completed", ended["state"]["message"]
    assert len(project.texts()) == 240


def test_a_job_of_kubernetes_that_is_told_to_end_schedules_its_run_again_which_goes_on(
    deployed, project, fake, worker, start, tmp_path
):
    """What a job runs is `prefect flow-run execute`, in an environment that prefect.yaml gives to
    all runs."""
    fake.seconds_per_text = 0.4  # on a busy machine it takes its time to end, too
    run = start("index-all", state={"type": "PENDING"}, workers=2, shard_documents=10)
    job = deployed.deployment("index-all/index-all")["job_variables"]["env"]
    environment = deployed.environment | job | {"PREFECT__FLOW_RUN_ID": run}
    with subprocess.Popen([*PREFECT, "flow-run", "execute"], env=environment, cwd=tmp_path) as pod:
        eventually(lambda: committed(project), "some documents are indexed", every=0.25)
        below = psutil.Process(pod.pid).children(recursive=True)
        pod.terminate()
        assert pod.wait(120) == 0
    eventually(lambda: not any(map(alive, below)), "no process is left", every=0.25)
    fake.seconds_per_text = 0
    ended = deployed.wait_for_end(run)  # the worker takes it up, as a new pod would
    assert ended["state_name"] == "Completed", ended["state"]["message"]
    assert " unchanged" in ended["state"]["message"], "it goes on"
    names = [name for name, _ in states(deployed, run)]
    assert "AwaitingRetry" in names
    assert not {"Crashed", "Failed"} & {*names}
    assert len(project.texts()) == 240


@pytest.mark.parametrize(
    ("settings", "said", "parallel"),
    [
        ("a: [1", "malformed", "workers = 2"),
        (
            "logging: {version: 1, root: {handlers: [no]}}",
            "root logger",
            'address = "tcp://127.0.0.1:1"',
        ),
    ],
)
def test_a_run_for_which_dask_cannot_be_imported_goes_on_in_one_process(
    deployed, tmp_path, settings, said, parallel
):
    """Dask reads its files as it is imported, and they are for all its users on the machine."""
    (tmp_path / "dask.yaml").write_text(settings)
    project = Project(
        tmp_path / "project", extra=f"[parallel]\n{parallel}\nshard_documents = 20\n"
    ).fill(60)
    run = deployed.start(
        "index-all/index-all", config=str(project.config), state={"type": "PENDING"}
    )["id"]
    deployed.prefect("flow-run", "execute", run, DASK_CONFIG=str(tmp_path / "dask.yaml"))
    ended = deployed.run(run)
    assert ended["state_name"] == "Completed", ended["state"]["message"]
    assert "it was indexed in one process: Dask cannot be imported (" in ended["state"]["message"]
    assert said in ended["state"]["message"]
    assert len(project.texts()) == 60
