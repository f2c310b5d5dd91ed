"""The automatic limit of a shard: longer than all that the settings let it wait for, and never endless."""

from __future__ import annotations

import pytest

from rag_index.indexing.embed import hang_limit
from tests.project import Project

OLLAMA = '[embedder]\nkind = "ollama"\nmodel = "m"\ntimeout = 100\nwait_for_recovery = 1000\n'


@pytest.mark.parametrize(
    ("extra", "chars", "seconds"),
    [
        ("", 0, 600),
        ("", 100_000, 600 + 30 * 1000),
        (OLLAMA, 0, 600 + 4 * 100 + 1000),
        ("[parallel]\nprocess_timeout = 5\n", 100_000, 5),
    ],
    ids=["default", "a large shard of a slow embedder", "what a server may be waited for", "as the settings say"],
)
def test_a_limit_is_longer_than_all_that_a_shard_may_wait_for(tmp_path, extra, chars, seconds):
    settings = Project(tmp_path / "p", extra=extra).settings
    assert hang_limit(settings, settings.indexes[0], chars=chars, chars_per_second=100.0) == seconds
