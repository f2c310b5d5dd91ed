"""Processors, memory and workers, as containers and services limit them, and the process that
embeds."""

import os
import signal
import time
from concurrent.futures import BrokenExecutor
from multiprocessing.connection import Connection

import pytest

from rag_index.core import recovery
from rag_index.core.machine.child import Process
from rag_index.core.machine.resources import (
    Machine,
    choose_worker_count,
    detect_machine,
    estimate_worker_memory,
)
from rag_index.core.recovery import asking, outages
from rag_index.core.settings import EmbedderSettings, ParallelSettings
from tests.waiting import eventually

HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
GB = 1_000_000_000


@pytest.fixture
def machine(tmp_path):
    """Return a function that writes cgroup files and returns the two paths that `detect_machine`
    reads."""

    def machine(membership="0::/\n", **files):
        for name, content in files.items():
            path = tmp_path / "fs" / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        (tmp_path / "membership").write_text(membership)
        return tmp_path / "fs", tmp_path / "membership"

    return machine


def test_without_a_limit_all_processors_count(machine, tmp_path):
    assert detect_machine(*machine()).processors == HERE
    assert detect_machine(*machine(cpu_dot_max="max 100000\n")).processors == HERE
    assert detect_machine(*machine(cpu_dot_max="a lot")).processors == HERE
    assert detect_machine(tmp_path / "nothing", tmp_path / "nothing").processors == HERE
    assert detect_machine().processors <= HERE


@pytest.mark.parametrize(
    ("limit", "processors"),
    [
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("150000 100000", 2),
        ("6400000 100000", 64),
        ("1000 100000", 1),
    ],
)
def test_the_quota_of_a_container_is_rounded_up_and_bounded_by_the_processors(
    machine, limit, processors
):
    assert detect_machine(*machine(cpu_dot_max=limit)).processors == min(processors, HERE)


@pytest.mark.parametrize(
    ("membership", "files", "limited"),
    [
        (
            "0::/system.slice/index.service\n",
            {"system.slice__index.service__cpu.max": "100000 100000"},
            True,
        ),
        ("0::/s/a/b\n", {"s__cpu.max": "100000 100000", "s__a__b__cpu.max": "max 1"}, True),
        ("0::/free.slice\n", {"system.slice__index.service__cpu.max": "100000 100000"}, False),
        (
            "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n",
            {
                "cpu__docker__x__cpu.cfs_quota_us": "100000\n",
                "cpu__docker__x__cpu.cfs_period_us": "100000\n",
            },
            True,
        ),
        (
            "3:memory:/docker/x\n",
            {
                "cpu__docker__x__cpu.cfs_quota_us": "100000\n",
                "cpu__docker__x__cpu.cfs_period_us": "100000\n",
            },
            False,
        ),
        ("", {"cpu__cpu.cfs_quota_us": "-1", "cpu__cpu.cfs_period_us": "100000"}, False),
    ],
    ids=[
        "service",
        "slice above",
        "elsewhere",
        "version 1",
        "version 1, other controller",
        "version 1, unlimited",
    ],
)
def test_the_quotas_of_all_groups_above_a_process_count(machine, membership, files, limited):
    assert detect_machine(*machine(membership, **files)).processors == (1 if limited else HERE)


def test_memory_is_the_machines_if_no_group_limits_it_further(machine):
    def limits(membership="0::/\n", **files):
        return detect_machine(*machine(membership, **files), installed=8 * GB).memory

    assert limits() == 8 * GB
    assert limits(memory_dot_max="max\n") == 8 * GB
    assert limits(memory__memory_dot_limit_in_bytes="9223372036854771712\n") == 8 * GB
    tightest = {"memory.max": f"{5 * GB}", "a__memory.max": f"{3 * GB}", "a__b__memory.max": "max"}
    assert limits("0::/a/b\n", **tightest) == 3 * GB
    assert (
        limits("4:memory:/x\n3:cpu:/y\n", **{"memory__x__memory.limit_in_bytes": f"{2 * GB}\n"})
        == 2 * GB
    )
    assert detect_machine().memory > 0


def test_settings_bound_the_workers():
    much = {"worker_memory": 9900}
    both, some = {"workers": 2, **much}, {"worker_memory": 3000}
    for given, count in (({}, 7), ({"workers": 5}, 5), (some, 3), (much, 0), (both, 2)):
        assert (
            choose_worker_count(ParallelSettings(**given), 300_000_000, Machine(8, None, 10 * GB))
            == count
        )


def die_in_the_middle_of_the_answer() -> bytes:
    def send(self, data):
        os.write(self.fileno(), bytes(data)[:100])
        os._exit(9)

    Connection._send = send
    return bytes(100_000)


@pytest.mark.long
def test_a_process_that_dies_while_it_answers_is_not_waited_for():
    with Process() as process:
        with pytest.raises(BrokenExecutor):
            process.submit(die_in_the_middle_of_the_answer).result(timeout=60)
        assert process.submit(os.getpid).result(timeout=60) != os.getpid(), (
            "the next call has a new one"
        )


def wait_for_the_embedder() -> None:
    """Ask a server that never answers."""
    with asking("Ollama", patience=0.0):
        time.sleep(3600)


@pytest.mark.long
def test_a_process_tells_whom_it_waits_for_itself_and_not_whom_its_parent_asked_as_it_began(
    monkeypatch,
):
    monkeypatch.setattr(
        recovery, "SERVICES", recovery.Services()
    )  # without what earlier tests gave up
    with Process(0, outages) as process:
        with asking("Qdrant", patience=0.0):
            number = process.submit(os.getpid).result(timeout=60)
            eventually(lambda: process.last_state is not None)
            assert [one.service for one in outages()] == ["Qdrant"]
            assert list(process.last_state) == [], "the child asks nobody"
        process.submit(wait_for_the_embedder)
        eventually(lambda: [one.service for one in process.last_state] == ["Ollama"])
        assert list(outages()) == []
        os.kill(number, signal.SIGKILL)
        eventually(lambda: process.last_state is None, "a process that died waits for nobody")


def test_a_worker_with_a_model_in_the_process_has_memory_for_its_weights(tmp_path):
    def needed(model) -> float:
        return estimate_worker_memory(EmbedderSettings(kind="fastembed", model=str(model))) / GB

    assert 0.3 < needed("all-MiniLM-L6-v2") < 0.5
    assert needed("intfloat/multilingual-e5-large") == needed("MULTILINGUAL-e5-large") > 3
    (tmp_path / "onnx").mkdir()
    for name, size in {
        "model.onnx": GB // 1000,
        "model.onnx_data": 2 * GB,
        "model_int8.onnx": GB // 2,
    }.items():
        with (tmp_path / "onnx" / name).open("wb") as file:
            file.truncate(size)
    assert 3 < needed(tmp_path) < 3.5, "the largest of its forms, with its data"
    assert needed(tmp_path / "nothing") > needed("all-MiniLM-L6-v2")
    machine = Machine(8, None, 8 * GB)
    assert choose_worker_count(ParallelSettings(), round(needed(tmp_path) * GB), machine) == 2
