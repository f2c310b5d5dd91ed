"""The benchmark on real worker processes: what it reports, and that it leaves the index alone.

`tests.deployments` has its flow.
"""

import json
from dataclasses import replace

import pytest

from rag_index.care.benchmark import BenchmarkReport, Measured, open_bench
from tests.fakes.ollama import FakeOllama
from tests.forked_program import run_program, without_api
from tests.project import Project

STAGES = ("fetch", "chunk", "embed", "upsert")


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
    assert (answer["index"], answer["documents"]) == ("notes", 100)
    assert parallel["workers"] == 2
    assert (parallel["same_ids"], parallel["largest_difference"]) == (True, 0.0)
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


@pytest.mark.parametrize("fault", [{"same_ids": False}, {"largest_difference": 0.25}])
def test_a_parity_fault_is_reported(fault):
    stages = dict.fromkeys(STAGES, 0.25)
    serial, two = Measured("serial", 1, 120, 2.0, stages, 50.0), Measured("2 workers", 2, 120, 1.0, stages, 100.0, 2.0)
    report = BenchmarkReport("notes", 100, "m", [serial, two])
    assert report.in_parity
    assert "best with 2 workers: 100.0 documents/s, 2.00 times" in report.sentence()
    report.measured[1] = replace(two, **fault)
    assert not report.in_parity
    assert "NOT the same" in report.sentence()


def test_the_ways_are_compared_point_by_point(tmp_path):
    """One whose vectors or ids are others is told from one that made the same."""
    project = Project(tmp_path / "p").fill(30)
    with open_bench(project.settings, None, 30) as bench:
        bench.run_serially("a run")
        point, vector = next(iter(bench._serial.items()))
        bench._serial[point] = vector + 0.25
        bench.run_serially("a run")
        assert bench.report.measured[1].largest_difference == pytest.approx(0.25, abs=1e-6)
        del bench._serial[point]
        bench.run_serially("a run")
    assert [one.same_ids for one in bench.report.measured] == [True, True, False]
    assert [one.in_parity for one in bench.report.measured] == [True, False, False]
