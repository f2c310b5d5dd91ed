"""Processors and workers, as containers and services limit them."""

from __future__ import annotations

import os

import pytest

from rag_index.machine.resources import (
    Machine,
    cpu_count,
    memory_limit,
    survey,
    worker_count,
    worker_memory,
    workers_for,
)
from rag_index.settings import EmbedderSettings, ParallelSettings

HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.fixture
def machine(tmp_path):
    """Writes a machine's cgroup files; returns what `cpu_count` is given to look at them."""

    def machine(membership="0::/\n", **files):
        for name, content in files.items():
            path = tmp_path / "fs" / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        (tmp_path / "membership").write_text(membership)
        return tmp_path / "fs", tmp_path / "membership"

    return machine


def test_without_a_limit_all_processors_of_this_process_count(machine, tmp_path):
    assert cpu_count(*machine()) == HERE
    assert cpu_count(*machine(cpu_dot_max="max 100000\n")) == HERE
    assert cpu_count(tmp_path / "nothing", tmp_path / "nothing") == HERE
    assert cpu_count() <= HERE


@pytest.mark.parametrize(
    ("limit", "processors"),
    [("100000 100000", 1), ("50000 100000", 1), ("150000 100000", 2), ("6400000 100000", 64), ("1000 100000", 1)],
)
def test_a_containers_quota_is_rounded_up_and_never_more_than_there_are(machine, limit, processors):
    assert cpu_count(*machine(cpu_dot_max=limit)) == min(processors, HERE)


def test_the_quota_of_a_service_below_the_root_and_of_a_slice_above_it(machine):
    own = machine("0::/system.slice/index.service\n", **{"system.slice__index.service__cpu.max": "100000 100000"})
    assert cpu_count(*own) == 1
    above = machine(
        "0::/user.slice/a/b\n", **{"user.slice__cpu.max": "100000 100000", "user.slice__a__b__cpu.max": "max 1"}
    )
    assert cpu_count(*above) == 1
    elsewhere = machine("0::/free.slice\n", **{"system.slice__index.service__cpu.max": "100000 100000"})
    assert cpu_count(*elsewhere) == HERE


def test_quotas_of_version_1(machine):
    files = {"cpu__docker__x__cpu.cfs_quota_us": "100000\n", "cpu__docker__x__cpu.cfs_period_us": "100000\n"}
    assert cpu_count(*machine("4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n", **files)) == 1
    assert cpu_count(*machine("3:memory:/docker/x\n")) == HERE
    at_root = {"cpu__cpu.cfs_quota_us": "100000", "cpu__cpu.cfs_period_us": "100000"}
    assert cpu_count(*machine("", **at_root)) == 1
    unlimited = {"cpu__cpu.cfs_quota_us": "-1", "cpu__cpu.cfs_period_us": "100000"}
    assert cpu_count(*machine("", **unlimited)) == HERE


def test_what_cannot_be_read_is_no_limit(machine):
    assert cpu_count(*machine(cpu_dot_max="a lot")) == HERE


def test_one_processor_is_left_and_one_worker_is_the_least(machine):
    assert worker_count("auto", *machine()) == max(1, HERE - 1)
    assert worker_count("auto", *machine(cpu_dot_max="100000 100000")) == 1
    assert worker_count(7, *machine(cpu_dot_max="100000 100000")) == 7


GB = 1_000_000_000


def meminfo(tmp_path, kilobytes=8_000_000):
    path = tmp_path / "meminfo"
    path.write_text(f"MemTotal:       {kilobytes} kB\nMemFree: 1 kB\n")
    return path


def test_memory_is_the_machines_where_no_group_has_less(machine, tmp_path):
    installed = meminfo(tmp_path)
    assert memory_limit(*machine(), installed) == 8_000_000 * 1024
    assert memory_limit(*machine(memory_dot_max="max\n"), installed) == 8_000_000 * 1024
    assert memory_limit(*machine(memory__memory_dot_limit_in_bytes="9223372036854771712\n"), installed) == 8_192_000_000
    assert not survey(*machine(), installed).memory_is_limited
    assert memory_limit() > 0


def test_memory_by_the_tightest_of_nested_groups_and_by_version_1(machine, tmp_path):
    installed = meminfo(tmp_path)
    nested = machine(
        "0::/a/b\n", **{"memory.max": f"{5 * GB}", "a__memory.max": f"{3 * GB}", "a__b__memory.max": "max"}
    )
    assert memory_limit(*nested, installed) == 3 * GB
    assert survey(*nested, installed).memory_is_limited
    old = machine("4:memory:/x\n3:cpu:/y\n", **{"memory__x__memory.limit_in_bytes": f"{2 * GB}\n"})
    assert memory_limit(*old, installed) == 2 * GB


def test_workers_are_bounded_by_memory(machine, tmp_path):
    def workers(processors, memory):
        return Machine(processors, None, memory, True, 0.0).workers(300_000_000)

    assert workers(64, None) == 63
    assert workers(64, 1000 * GB) == 63
    assert workers(64, 2 * GB) == 4
    assert workers(64, GB // 2) == 1
    assert workers(2, 100 * GB) == 1
    assert worker_count("auto", *machine(memory_dot_max=f"{GB}")) == 1
    assert worker_count(7, *machine(memory_dot_max=f"{GB}")) == 7


def test_a_machine_without_proc_still_answers(machine, tmp_path):
    found = survey(*machine(), tmp_path / "nowhere")
    assert found.processors >= 1
    assert found.workers(1) >= 1


def test_a_worker_needs_what_its_embedder_does(tmp_path):
    def needed(kind, model="m"):
        return worker_memory(EmbedderSettings(kind=kind, model=model))

    assert needed("ollama") < needed("local", "wordllama") < needed("sentence-transformers")
    (tmp_path / "model.safetensors").write_bytes(bytes(3_000_000))
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(3_000_000))  # the same weights once more
    small = needed("sentence-transformers", str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(bytes(5_000_000))
    assert needed("sentence-transformers", str(tmp_path)) - small == 2_000_000
    four = Machine(64, None, 4 * GB, True, 0.0)
    assert [four.workers(each) for each in (300_000_000, GB, 5 * GB)] == [11, 3, 1]


@pytest.mark.parametrize(
    ("settings", "load", "count"),
    [
        ({}, 3.0, 7),
        ({"workers": 5}, 3.0, 5),
        ({"memory": 2000}, None, 4),
        ({"workers": 5, "memory": 2000, "worker_memory": 600}, None, 2),
        ({"worker_memory": 3000}, None, 3),
        ({"workers": 6, "max_load": 8}, 3.4, 4),
        ({"max_load": 2}, 5.0, 1),
        ({"max_load": 2}, None, 7),
        ({"memory": 10}, None, 1),
    ],
)
def test_settings_bound_the_workers(settings, load, count):
    machine = Machine(8, None, 10 * GB, False, load)
    assert workers_for(ParallelSettings(**settings), 300_000_000, machine) == count
