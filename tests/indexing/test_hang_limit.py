"""The automatic limit of a shard: longer than all that the settings let it wait for, and never endless."""

from __future__ import annotations

import pytest

from rag_index.indexing.embed import hang_limit
from tests.project import Project


def limit(tmp_path, extra="", chars=0, rate=1000.0) -> float:
    settings = Project(tmp_path / "p", extra=extra).settings
    return hang_limit(settings, settings.indexes[0], chars=chars, chars_per_second=rate)


def test_by_default_a_worker_that_hangs_is_ended(tmp_path):
    assert limit(tmp_path) == 600


def test_a_large_shard_of_a_slow_embedder_has_longer(tmp_path):
    assert limit(tmp_path, chars=100_000, rate=100.0) == 600 + 30 * 1000


def test_what_an_ollama_server_may_be_waited_for_does_not_count_as_hanging(tmp_path):
    extra = '[embedder]\nkind = "ollama"\nmodel = "m"\ntimeout = 100\nwait_for_recovery = 1000\n'
    assert limit(tmp_path, extra) == 600 + 4 * 100 + 1000


@pytest.mark.parametrize("seconds", [5, 86_400])
def test_a_limit_of_the_settings_is_taken_as_it_is(tmp_path, seconds):
    assert limit(tmp_path, f"[parallel]\nprocess_timeout = {seconds}\n") == seconds
