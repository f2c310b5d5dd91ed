"""The benchmark on real worker processes: what it reports, and that it leaves the index alone.

`tests.deployments` has its flow.
"""

import json

import pytest

from rag_index.care.benchmark import BenchmarkReport, Measured, Parity, open_bench
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
    assert (parallel["same_ids"], parallel["recall"]) == (True, 1.0)
    assert parallel["speed_up"] == pytest.approx(serial["seconds"] / parallel["seconds"], rel=0.05)
    for way in (serial, parallel):
        assert set(way["stages"]) == set(STAGES)
        assert sum(way["stages"].values()) == pytest.approx(1, abs=0.01)
    assert not [path for path in project.folder.rglob("*") if path.name == ".rag-index"]


def requests_by_threads(fake) -> dict[int | None, list[int]]:
    """Return the numbers of texts of all requests to embed, by the threads that they ask for."""
    found: dict[int | None, list[int]] = {}
    for request in fake.embeds():
        found.setdefault((request.body.get("options") or {}).get("num_thread"), []).append(len(request.texts))
    return found


@pytest.mark.long
def test_values_of_a_setting_are_compared_with_the_serial_script(tmp_path, fake):
    project = Project(tmp_path / "p", extra=f"{fake.settings}batch_texts = 16\n").fill(40)
    asked = ["benchmark", "--sample-size", "40", "--set", "embedder.num_thread=null,1,2", "--json"]
    answer = json.loads(run_program(["--config", str(project.config), *asked], without_api()).stdout)
    assert [way["name"] for way in answer["parallel"]] == ["num_thread = null", "num_thread = 1", "num_thread = 2"]
    assert all((way["workers"], way["same_ids"], way["recall"]) == (1, True, 1.0) for way in answer["parallel"])
    found = requests_by_threads(fake)
    assert set(found) == {None, 1, 2}
    assert found[None].count(1) >= 40, "the serial script has no num_thread"
    assert max(found[1]) == max(found[2]) == 16
    assert sum(found[1]) >= 40
    assert not list(project.folder.rglob(".rag-index/ledger.db"))


def test_vectors_of_another_model_are_not_compared(tmp_path, fake):
    """What is read before a document belongs to the model."""
    project = Project(tmp_path / "p", extra=fake.settings).fill(30)
    answer = project.json("benchmark", "--sample-size", "30", "--set", 'embedder.document_prefix="one: ","two: "')
    assert all("same_ids" not in way for way in answer["parallel"])
    assert {text[:5] for request in fake.embeds() for text in request.texts} >= {"one: ", "two: "}


def test_each_value_is_tried_with_each_number_of_workers(tmp_path, fake):
    project = Project(tmp_path / "p", extra=fake.settings).fill(30)
    with open_bench(project.settings, None, 30) as bench:
        ways = bench.ways([1, 2], 'parallel.shard_documents=10,"auto"')
        assert [(way.name, way.workers, way.settings.parallel.shard_documents) for way in ways] == [
            ("shard_documents = 10, 1 worker", 1, 10), ("shard_documents = 10, 2 workers", 2, 10),
            ('shard_documents = "auto", 1 worker', 1, "auto"), ('shard_documents = "auto", 2 workers', 2, "auto"),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("num_thread=1", "[embedder], [parallel], [store]"),
        ("embedder.num_thread", "embedder.num_thread=1,2"),
        ("embedder.num_thread=", "embedder.num_thread=1,2"),
        ("indexes.chunk_chars=100", "indexes.chunk_chars=100"),
        ("embedder.num_thred=1", "num_thred"),
        ("embedder.num_thread=1,many", "many"),
        ("embedder.num_thread=0", "num_thread"),
    ],
)
def test_a_mistake_in_a_setting_to_compare_is_one_sentence_before_anything_is_embedded(tmp_path, fake, change, words):
    project = Project(tmp_path / "p", extra=fake.settings).fill(3)
    ended = project.cli("benchmark", "--set", change)
    assert (ended.returncode, words in ended.stderr, ended.stderr.count("\n")) == (2, True, 1), ended.stderr
    assert not fake.embeds()


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
