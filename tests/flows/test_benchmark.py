"""The benchmark on real worker processes: what it reports, and that it leaves the index alone."""

from __future__ import annotations

import pytest

from rag_index.tuning.benchmark import STAGES, BenchmarkReport, Measured, Parity, open_bench
from tests.fakes.ollama import FakeOllama
from tests.project import Project

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("prefect_server")]


def test_serial_and_parallel_make_the_same_points_and_leave_the_index_alone(tmp_path):
    project = Project(tmp_path / "p").fill(300)
    drawn = tmp_path / "rates.png"
    answer = project.json("benchmark", "--sample-size", "200", "--workers", "2", "--plot", str(drawn))
    assert (answer["index"], answer["documents"], answer["plot"]) == ("notes", 200, str(drawn))
    assert answer["chunks"] > 200
    assert [one["workers"] for one in answer["parallel"]] == [2]
    for one in answer["parallel"]:
        assert (one["same_ids"], one["largest_difference"], one["recall"]) == (True, 0.0, 1.0)
        assert one["speed_up"] == pytest.approx(answer["serial"]["seconds"] / one["seconds"], rel=0.05)
        assert {f"worker {number}" for number in range(1, one["workers"] + 1)} <= one["memory_mb"].keys()
    for one in (answer["serial"], *answer["parallel"]):
        assert set(one["stages"]) == set(STAGES)
        assert sum(one["stages"].values()) == pytest.approx(1, abs=0.01)
        assert one["memory_mb"]["flow"] > 10
    assert drawn.read_bytes().startswith(b"\x89PNG")
    assert not [path for path in project.folder.rglob("*") if path.name in ("ledger.db", "qdrant")]


def test_the_serial_baseline_sends_one_text_per_request_to_one_host(tmp_path):
    with FakeOllama(seconds_per_text=0.002) as one, FakeOllama(seconds_per_text=0.002) as other:
        hosts = f'hosts = ["{one.url}", "{other.url}"]\nnum_thread = 1'
        more = "batch_texts = 16\n[parallel]\nshard_documents = 25"
        extra = f'[embedder]\nkind = "ollama"\nmodel = "{one.model}"\n{hosts}\n{more}'
        project = Project(tmp_path / "p", extra=extra).fill(120)
        ended = project.cli("benchmark", "--sample-size", "100", "--workers", "2")
        assert ended.returncode == 0, ended.stderr
        single = [request for request in one.embeds() if len(request.texts) == 1]
        assert len(single) >= 100
        assert sum("num_thread" not in (request.body.get("options") or {}) for request in single) >= 100
        assert max(len(request.texts) for request in other.embeds()) > 1
        assert "same ids" in ended.stdout
        assert "recall of 10 neighbours 1.0000" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--index", "note"], "did you mean 'notes'?"),
        (["--workers", "0"], "whole numbers above 0"),
        (["--workers", "1,x"], "whole numbers above 0"),
    ],
)
def test_wrong_usage_ends_with_2(tmp_path, arguments, message):
    ended = Project(tmp_path / "p").cli("benchmark", *arguments)
    assert ended.returncode == 2
    assert message in ended.stderr


@pytest.mark.parametrize(
    ("configured", "given", "tried"),
    [(1, None, [1]), (2, None, [1, 2]), (6, None, [1, 2, 4, 6]), (8, None, [1, 2, 4, 8]), (8, [3, 1, 3], [1, 3])],
)
def test_which_numbers_of_workers_are_tried(tmp_path, configured, given, tried):
    project = Project(tmp_path / "p", extra=f"[parallel]\nworkers = {configured}")
    with open_bench(project.settings, None, 10) as bench:
        assert bench.worker_counts(given) == tried


def report(**changed) -> BenchmarkReport:
    stages = dict.fromkeys(STAGES, 0.5)
    two = Measured("2 workers", 2, 100, 120, 1.0, stages, {"flow": 10}, 2.0, Parity(True, 0.0, 1.0))
    for name, value in changed.items():
        setattr(two, name, value)
    return BenchmarkReport("notes", 100, "m", [Measured("serial", 1, 100, 120, 2.0, stages, {"flow": 10}), two])


def test_a_parity_fault_is_reported():
    assert report().in_parity
    assert "best with 2 workers: 100.0 documents/s, 2.00 times" in report().sentence()
    other = report(parity=Parity(False, 0.0, 1.0))
    assert not other.in_parity
    assert "NOT the same" in other.sentence()
