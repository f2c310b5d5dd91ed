"""The benchmark on real worker processes, without Prefect: what it reports, and that it leaves the index alone.

`tests.deployments` has its flow.
"""

import json

import pytest

from rag_index.tuning.benchmark import STAGES, BenchmarkReport, Measured, Parity, open_bench
from tests.fakes.ollama import FakeOllama
from tests.forked_program import run_program, without_api
from tests.project import Project


@pytest.mark.long
def test_the_serial_way_sends_one_text_per_request_to_one_host_and_all_make_the_same_points(tmp_path):
    with FakeOllama(seconds_per_text=0.002) as one, FakeOllama(seconds_per_text=0.002) as other:
        hosts = f'hosts = ["{one.url}", "{other.url}"]\nnum_thread = 1'
        more = "batch_texts = 16\n[parallel]\nshard_documents = 25"
        extra = f'[embedder]\nkind = "ollama"\nmodel = "{one.model}"\n{hosts}\n{more}'
        project = Project(tmp_path / "p", extra=extra).fill(120)
        command = ["--config", str(project.config), "benchmark", "--sample-size", "100", "--workers", "2", "--json"]
        answer = json.loads(run_program(command, without_api()).stdout)
        single = [request for request in one.embeds() if len(request.texts) == 1]
        assert len(single) >= 100
        assert sum("num_thread" not in (request.body.get("options") or {}) for request in single) >= 100
        assert max(len(request.texts) for request in other.embeds()) > 1
    serial, [parallel] = answer["serial"], answer["parallel"]
    assert (answer["index"], answer["documents"], parallel["workers"]) == ("notes", 100, 2)
    assert (parallel["same_ids"], parallel["recall"]) == (True, 1.0)
    assert parallel["speed_up"] == pytest.approx(serial["seconds"] / parallel["seconds"], rel=0.05)
    for way in (serial, parallel):
        assert set(way["stages"]) == set(STAGES)
        assert sum(way["stages"].values()) == pytest.approx(1, abs=0.01)
    assert not [path for path in project.folder.rglob("*") if path.name == ".rag-index"]


@pytest.mark.parametrize(
    ("configured", "given", "tried"),
    [(1, None, [1]), (2, None, [1, 2]), (6, None, [1, 2, 4, 6]), (8, None, [1, 2, 4, 8]), (8, [3, 1, 3], [1, 3])],
)
def test_which_numbers_of_workers_are_tried(tmp_path, configured, given, tried):
    project = Project(tmp_path / "p", extra=f"[parallel]\nworkers = {configured}").fill(1)
    with open_bench(project.settings, None, 10) as bench:
        assert bench.worker_counts(given) == tried


def test_a_parity_fault_is_reported():
    stages = dict.fromkeys(STAGES, 0.5)
    serial = Measured("serial", 1, 100, 120, 2.0, stages)
    two = Measured("2 workers", 2, 100, 120, 1.0, stages, 2.0, Parity(True, 0.0, 1.0))
    report = BenchmarkReport("notes", 100, "m", [serial, two])
    assert report.in_parity
    assert "best with 2 workers: 100.0 documents/s, 2.00 times" in report.sentence()
    two.parity = Parity(False, 0.0, 1.0)
    assert not report.in_parity
    assert "NOT the same" in report.sentence()
