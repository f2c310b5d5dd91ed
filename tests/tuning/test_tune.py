"""`rag-index tune` with servers whose rates are known."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from contextlib import ExitStack

import psutil
import pytest

from rag_index.embedders import identify
from rag_index.errors import EmbedderUnavailable, SettingsError, SourceError
from rag_index.settings import load_settings
from rag_index.tuning.probe import Candidate, Probes
from rag_index.tuning.tune import local_servers, model_folder, sample_texts, tune
from tests.dask_workers import workers_among
from tests.fakes.ollama import FakeOllama
from tests.project import PROGRAM, Project, run_here
from tests.waiting import eventually

pytestmark = pytest.mark.long


@pytest.fixture
def fakes():
    """Return a function that starts servers."""
    with ExitStack() as stack:
        yield lambda count=1, **given: [stack.enter_context(FakeOllama(**given)) for _ in range(count)]


def project_with(folder, servers, *, more="") -> Project:
    hosts = ", ".join(f'"{server.url}"' for server in servers)
    extra = f'[embedder]\nkind = "ollama"\nmodel = "{servers[0].model}"\nhosts = [{hosts}]\n{more}'
    return Project(folder, extra=extra).fill(200)


def measure(settings, *candidates, seconds=0.4) -> list[float]:
    with Probes(settings.embedder, sample_texts(settings), identify(settings.embedder)) as probes:
        return [probes.measure(candidate, seconds) for candidate in candidates]


def test_probes_measure_the_rates_of_servers(tmp_path, fakes):
    """No rate is higher than what the servers can do; how far it is below depends on the machine."""
    servers = fakes(2, seconds_per_text=0.02)
    settings = project_with(tmp_path / "p", servers).settings
    size = {"batch_texts": 8, "batch_chars": 4000}
    alone, shared, one_worker, more_requests = measure(
        settings, Candidate(**size), Candidate(hosts=2, workers=2, **size), Candidate(hosts=2, **size),
        Candidate(requests_in_flight=4, **size),
    )  # fmt: skip
    assert all(0 < rate < 1.25 / 0.02 for rate in (alone, more_requests))
    assert all(0 < rate < 2.5 / 0.02 for rate in (shared, one_worker))
    assert all(len(request.texts) <= 8 for server in servers for request in server.embeds())
    assert all(len(server.embeds()) > 10 for server in servers)
    assert not workers_among(psutil.Process().children(recursive=True))


def test_a_candidate_that_the_server_refuses_has_rate_0_and_a_reason(tmp_path, fakes):
    (server,) = fakes()
    settings = project_with(tmp_path / "p", [server], more="timeout = 2").settings
    with Probes(settings.embedder, ["a text"], identify(settings.embedder)) as probes:
        assert probes.measure(Candidate(), 0.1) > 0
        server.fault("status", code=500)
        assert probes.measure(Candidate(num_thread=2), 0.1) == 0
        assert server.url in str(probes.error)
        server.clear()
        assert probes.measure(Candidate(num_thread=2), 0.1) > 0
        [probing] = multiprocessing.active_children()
        probing.kill()
        probing.join()
        assert probes.measure(Candidate(), 0.1) == 0
        assert "a probing process died" in str(probes.error)
        assert probes.measure(Candidate(), 0.1) > 0


def test_the_knee_of_concurrent_servers_is_written_and_overriding_variables_are_named(tmp_path, fakes):
    more = "batch_texts = 4  # a guess\nrequests_in_flight = 1\n[parallel]\nworkers = 1"
    project = project_with(tmp_path / "p", fakes(2, seconds_per_text=0.02, concurrent=True), more=more)
    environment = {"RAG_INDEX_EMBEDDER__REQUESTS_IN_FLIGHT": "1", "RAG_INDEX_PARALLEL__WORKERS": "1"}
    ended = project.cli("tune", "--budget", "6", "--write", **environment)
    assert ended.returncode == 0, ended.stderr
    assert "times serial" in ended.stdout
    written = load_settings(project.config)
    values = (written.embedder.requests_in_flight, written.parallel.workers)
    named = {name for name in environment if f"{name} overrides it" in ended.stdout}
    assert named == {name for name, value in zip(environment, values, strict=True) if value != 1}, ended.stdout
    assert values[0] * values[1] * len(written.embedder.hosts) >= 2
    assert "# a guess" in project.config.read_text()


def test_a_search_that_is_killed_leaves_no_process(tmp_path, fakes):
    (server,) = fakes(seconds_per_text=0.02)
    config = project_with(tmp_path / "p", [server]).config
    with subprocess.Popen([*PROGRAM, "--config", config, "tune"], stdout=subprocess.DEVNULL) as search:
        try:
            eventually(lambda: len(server.embeds()) > 20, "texts are embedded")
            probing = psutil.Process(search.pid).children(recursive=True)
        finally:
            search.kill()
    _, alive = psutil.wait_procs(probing, timeout=60)
    assert (len(probing) > 1, alive) == (True, [])


def test_servers_that_are_not_worth_it_are_not_written(tmp_path, fakes):
    """The other levers were measured without them."""
    servers = fakes(seconds_per_text=0.004) + fakes(seconds_per_text=0.4)
    project = project_with(tmp_path / "p", servers)
    answer = project.json("tune", "--budget", "8", "--write")
    assert answer["knee"]["hosts"] == 1
    assert answer["changes"]["embedder.hosts"] == [servers[0].url]
    assert load_settings(project.config).embedder.hosts == [servers[0].url]


def test_workers_of_the_local_embedder(tmp_path):
    settings = Project(tmp_path / "p").fill(100).settings
    probes = []
    outcome = tune(settings, budget=4, on_probe=lambda *probe: probes.append(probe))
    assert outcome.knee.rate > 0
    assert {key for _, key in outcome.changes} <= {"workers"}
    assert outcome.serial.candidate.workers == 1
    assert {candidate for candidate, *_ in probes} == {one.candidate for one in outcome.trials}


def test_an_unreachable_embedder_and_a_source_without_texts_are_errors(tmp_path, fakes):
    servers = fakes()
    project = project_with(tmp_path / "p", servers)
    servers[0].stop_listening()
    with pytest.raises(EmbedderUnavailable, match=servers[0].url):
        tune(project.settings, budget=5)
    with pytest.raises(SourceError, match="no documents with text"):
        tune(Project(tmp_path / "empty").settings, budget=5)


FAKE_PROGRAM = """\
#!{python}
import os, sys
sys.path.insert(0, {root!r})
from tests.fakes.ollama import FakeOllama
port = int(os.environ["OLLAMA_HOST"].rpartition(":")[2])
assert sys.argv[1:] == ["serve"] and os.environ["OLLAMA_MODELS"] == {models!r}
with FakeOllama(port=port, seconds_per_text=0.02):
    import threading
    threading.Event().wait()
"""


@pytest.fixture
def program(tmp_path):
    """A program `ollama` in a folder of its own, and its model folder."""
    models = tmp_path / "models"
    (models / "manifests").mkdir(parents=True)
    path = tmp_path / "bin" / "ollama"
    path.parent.mkdir()
    root = __file__.rpartition("/tests/")[0]
    path.write_text(FAKE_PROGRAM.format(python=sys.executable, root=root, models=str(models)))
    path.chmod(0o755)
    return path, models


def test_local_servers_are_worth_running_if_they_work_independently(tmp_path, fakes, program):
    path, models = program
    project = project_with(tmp_path / "p", fakes())
    ended = project.cli(
        "tune", "--budget", "8", "--local-servers", "--write",
        PATH=f"{path.parent}:/usr/bin:/bin", OLLAMA_MODELS=str(models),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "servers are worth running: systemctl enable --now ollama@11434 ollama@11435" in ended.stdout, ended.stdout
    assert 'hosts = ["http://127.0.0.1:11434", "http://127.0.0.1:11435"' in ended.stdout
    hosts = load_settings(project.config).embedder.hosts
    assert hosts == [f"http://127.0.0.1:{11434 + number}" for number in range(len(hosts))]
    assert "Start these servers before the next run" in ended.stdout
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(path) in (p.info["cmdline"] or [])]


def test_local_servers_need_a_program_models_and_servers_that_start(tmp_path, fakes):
    config = project_with(tmp_path / "p", fakes()).config
    assert "kind 'ollama'" in run_here(Project(tmp_path / "local").config, "tune", "--local-servers", code=2)[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        assert "not on the PATH" in run_here(config, "tune", "--local-servers", code=2)[1]
    with pytest.raises(SettingsError, match="OLLAMA_MODELS"):
        model_folder({"OLLAMA_MODELS": str(tmp_path)})
    (tmp_path / "manifests").mkdir()
    with (
        pytest.raises(EmbedderUnavailable, match="ended with 1"),
        local_servers("/bin/false", 2, {"OLLAMA_MODELS": str(tmp_path)}),
    ):
        pass
