"""When a run starts workers, and who sees it: a command without a Prefect server has them too."""

import os
from types import SimpleNamespace

import pytest

from rag_index.orchestration import cluster
from rag_index.orchestration.cluster import Workers
from rag_index.orchestration.launch import names_api
from tests.forked_program import without_api


@pytest.mark.parametrize(
    ("processors", "asked", "servers", "seconds_left", "started"),
    [
        (2, "auto", False, 1e6, None),  # a child embeds already
        (2, 2, False, 1e6, None),  # the processors are what there is
        (4, "auto", False, 1e6, 2),
        (4, "auto", False, 12.0, None),
        (8, 3, False, 1e6, 2),
        (2, 4, True, 1e6, 4),  # servers do the work
        (2, 4, True, 12.0, None),
    ],
)
def test_workers_are_started_if_those_beyond_the_child_are_worth_it(
    monkeypatch, processors, asked, servers, seconds_left, started
):
    monkeypatch.setattr(cluster, "cpu_count", lambda: processors)
    begun = []

    class Slow(Workers):
        most = processors - 1 if asked == "auto" else asked

        def start(self, count):
            begun.append(count)
            return SimpleNamespace(done=lambda: False)

    settings = SimpleNamespace(
        parallel=SimpleNamespace(address=None, shard_documents="auto"), embedder=SimpleNamespace(on_servers=servers)
    )
    run = SimpleNamespace(settings=settings, progress=SimpleNamespace(note_later=lambda note: None))
    scan = SimpleNamespace(run=run, seconds_left=seconds_left)
    assert Slow(settings.parallel).grow(scan) is None
    assert begun == ([] if started is None else [started])


@pytest.mark.parametrize(("active", "named"), [('"a"', True), ('"b"', False), ("not toml", False)])
def test_whoever_names_a_prefect_server_in_a_profile_sees_the_runs_there(tmp_path, monkeypatch, active, named):
    for name in os.environ.keys() - without_api().keys():
        monkeypatch.delenv(name)
    assert not names_api(tmp_path)
    profile = f'active = {active}\n[profiles.a]\nPREFECT_API_URL = "http://127.0.0.1:1/api"\n'
    (tmp_path / "profiles.toml").write_text(profile)
    assert names_api(tmp_path) is named
