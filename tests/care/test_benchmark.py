"""The benchmark: its report of real worker processes, and that it leaves the index alone."""

import json

import pytest

from tests.fakes.ollama import FakeOllama
from tests.forked_program import run_program, without_api
from tests.project import Project


@pytest.mark.long
def test_the_serial_way_sends_one_text_per_request_to_one_host_and_all_make_the_same_points(
    tmp_path,
):
    with FakeOllama(seconds_per_text=0.002) as one, FakeOllama(seconds_per_text=0.002) as other:
        hosts = f'hosts = ["{one.url}", "{other.url}"]\nnum_thread = 1'
        more = "batch_texts = 16\n[parallel]\nshard_documents = 25"
        extra = f'[embedder]\nkind = "ollama"\nmodel = "{one.model}"\n{hosts}\n{more}'
        project = Project(tmp_path / "p", extra=extra).fill(120)
        command = [
            "--config",
            str(project.config),
            "benchmark",
            "--sample-size",
            "100",
            "--workers",
            "2",
            "--json",
        ]
        answer = json.loads(run_program(command, without_api()).stdout)
        single = [request for request in one.embeds() if len(request.texts) == 1]
        assert len(single) >= 100
        assert (
            sum("num_thread" not in (request.body.get("options") or {}) for request in single)
            >= 100
        )
        assert max(len(request.texts) for request in other.embeds()) > 1
    serial, [parallel] = answer["serial"], answer["parallel"]
    assert (answer["index"], answer["documents"], parallel["workers"]) == ("notes", 100, 2)
    assert (parallel["same_ids"], parallel["largest_difference"]) == (True, 0.0)
    assert parallel["speed_up"] == pytest.approx(serial["seconds"] / parallel["seconds"], rel=0.05)
    for way in (serial, parallel):
        assert way["stages"].keys() == {"fetch", "chunk", "embed", "upsert"}
        assert sum(way["stages"].values()) == pytest.approx(1, abs=0.01)
    assert not [path for path in project.folder.rglob("*") if path.name == ".rag-index"]
