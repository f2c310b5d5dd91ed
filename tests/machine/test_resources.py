"""Processors, memory and workers, as containers and services limit them."""

from __future__ import annotations

import os

import psutil
import pytest

from rag_index.machine.resources import (
    Machine,
    choose_worker_count,
    cpu_count,
    detect_machine,
    estimate_worker_memory,
)
from rag_index.settings import EmbedderSettings, ParallelSettings

HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.fixture
def machine(tmp_path):
    """Return a function that writes cgroup files and returns the two paths that `cpu_count` reads."""

    def machine(membership="0::/\n", **files):
        for name, content in files.items():
            path = tmp_path / "fs" / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        (tmp_path / "membership").write_text(membership)
        return tmp_path / "fs", tmp_path / "membership"

    return machine


def test_without_a_limit_all_processors_count(machine, tmp_path):
    assert cpu_count(*machine()) == HERE
    assert cpu_count(*machine(cpu_dot_max="max 100000\n")) == HERE
    assert cpu_count(tmp_path / "nothing", tmp_path / "nothing") == HERE
    assert cpu_count() <= HERE


@pytest.mark.parametrize(
    ("limit", "processors"),
    [("100000 100000", 1), ("50000 100000", 1), ("150000 100000", 2), ("6400000 100000", 64), ("1000 100000", 1)],
)
def test_the_quota_of_a_container_is_rounded_up_and_bounded_by_the_processors(machine, limit, processors):
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


def test_an_unreadable_quota_is_no_limit(machine):
    assert cpu_count(*machine(cpu_dot_max="a lot")) == HERE


def test_one_processor_is_left_for_the_flow_and_there_is_at_least_one_worker(machine):
    assert detect_machine(*machine()).max_workers(1) == max(1, HERE - 1)
    assert detect_machine(*machine(cpu_dot_max="100000 100000")).max_workers(1) == 1


GB = 1_000_000_000


def test_memory_is_the_machines_if_no_group_limits_it_further(machine):
    def limits(**files):
        found = detect_machine(*machine(**files), installed=8 * GB)
        return found.memory, found.memory_is_limited

    assert limits() == (8 * GB, False)
    assert limits(memory_dot_max="max\n") == (8 * GB, False)
    assert limits(memory__memory_dot_limit_in_bytes="9223372036854771712\n") == (8 * GB, False)
    assert detect_machine().memory > 0


def test_memory_is_limited_by_the_tightest_of_nested_groups_and_by_version_1(machine):
    nested = machine(
        "0::/a/b\n", **{"memory.max": f"{5 * GB}", "a__memory.max": f"{3 * GB}", "a__b__memory.max": "max"}
    )
    found = detect_machine(*nested, installed=8 * GB)
    assert (found.memory, found.memory_is_limited) == (3 * GB, True)
    version_1 = machine("4:memory:/x\n3:cpu:/y\n", **{"memory__x__memory.limit_in_bytes": f"{2 * GB}\n"})
    assert detect_machine(*version_1, installed=8 * GB).memory == 2 * GB


def test_workers_are_bounded_by_memory(machine):
    def workers(processors, memory):
        return Machine(processors, None, memory, True, 0.0).max_workers(300_000_000)

    assert workers(64, None) == 63
    assert workers(64, 1000 * GB) == 63
    assert workers(64, 2 * GB) == 4
    assert workers(64, GB // 2) == 1
    assert workers(2, 100 * GB) == 1
    assert detect_machine(*machine(memory_dot_max=f"{GB}")).max_workers(300_000_000) == 1


def test_a_machine_without_proc_still_answers(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "nowhere"), raising=False)
    found = detect_machine(*machine())
    assert found.processors >= 1
    assert found.max_workers(1) >= 1


def test_the_memory_of_a_worker_depends_on_its_embedder(tmp_path):
    def needed(kind, model="m"):
        return estimate_worker_memory(EmbedderSettings(kind=kind, model=model))

    assert needed("ollama") < needed("local", "wordllama") < needed("sentence-transformers")
    (tmp_path / "model.safetensors").write_bytes(bytes(3_000_000))
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(3_000_000))  # the same weights in another format
    small = needed("sentence-transformers", str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(bytes(5_000_000))
    assert needed("sentence-transformers", str(tmp_path)) - small == 2_000_000
    four = Machine(64, None, 4 * GB, True, 0.0)
    assert [four.max_workers(each) for each in (300_000_000, GB, 5 * GB)] == [11, 3, 1]


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
        ({"memory": 10}, None, 0),
        ({"workers": 2, "memory": 10}, None, 0),
        ({"worker_memory": 9900}, None, 0),
        ({"workers": 2, "worker_memory": 9900}, None, 2),
    ],
)
def test_settings_bound_the_workers(settings, load, count):
    machine = Machine(8, None, 10 * GB, False, load)
    assert choose_worker_count(ParallelSettings(**settings), 300_000_000, machine) == count
