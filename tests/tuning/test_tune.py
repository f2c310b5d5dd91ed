"""`rag-index tune` with servers whose rates are known."""

import json
import math
import multiprocessing
import re
import subprocess
from contextlib import ExitStack

import psutil
import pytest

from rag_index.embedders import identify
from rag_index.errors import EmbedderUnavailable, SourceError
from rag_index.tuning.probe import Candidate, Probes
from rag_index.tuning.settings_search import sample_texts, tune
from tests.dask_workers import workers_among
from tests.fakes.ollama import FakeOllama
from tests.project import PROGRAM, Project
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


def test_the_knee_of_concurrent_servers_is_printed_as_lines_of_settings(tmp_path, fakes):
    more = "batch_texts = 4\nrequests_in_flight = 1\n[parallel]\nworkers = 1"
    project = project_with(tmp_path / "p", fakes(2, seconds_per_text=0.02, concurrent=True), more=more)
    ended = project.cli("tune", "--budget", "6")
    assert ended.returncode == 0, ended.stderr
    assert "times serial" in ended.stdout
    printed = ended.stdout.partition("For the settings file:\n")[2]
    numbers = dict(re.findall(r"\] (requests_in_flight|workers) = (\d+)$", printed, re.MULTILINE))
    hosts = re.search(r"\[embedder\] hosts = (\[.*\])$", printed, re.MULTILINE)
    assert math.prod(map(int, numbers.values())) * (len(json.loads(hosts[1])) if hosts else 2) >= 2, printed


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


def test_servers_that_are_not_worth_it_are_left_out(tmp_path, fakes):
    """The other levers were measured without them."""
    servers = fakes(seconds_per_text=0.004) + fakes(seconds_per_text=0.4)
    project = project_with(tmp_path / "p", servers)
    answer = project.json("tune", "--budget", "8")
    assert answer["knee"]["hosts"] == 1
    assert answer["changes"]["embedder.hosts"] == [servers[0].url]


def test_an_unreachable_embedder_and_a_source_without_texts_are_errors(tmp_path, fakes):
    servers = fakes()
    project = project_with(tmp_path / "p", servers)
    servers[0].stop_listening()
    with pytest.raises(EmbedderUnavailable, match=servers[0].url):
        tune(project.settings, budget=5)
    with pytest.raises(SourceError, match="no documents with text"):
        tune(Project(tmp_path / "empty").settings, budget=5)
