"""The policies of a run's steps: how often each is tried again, and how long it may take at most.

A plain run and the tasks of a flow (`tasks.index`) have the same.
"""

from __future__ import annotations

from rag_index.core.machine.retries import Policy, ProcessLimit
from rag_index.errors import EmbedderUnavailable, StoreUnavailable

WAITED_FOR = (EmbedderUnavailable, StoreUnavailable)
"""Embedder and store wait for their servers in each call: they know which request failed, and what pause it needs."""

CHECK = Policy()
FETCH = Policy()
EMBED = Policy(retries=1, limit=None, process=ProcessLimit(), waits_for=WAITED_FOR)
"""A request ends after `[embedder] timeout`, and the step waits for servers that are down (`wait_for_recovery`)."""
UPSERT = Policy(retries=0, limit=None)
"""A request ends after `[store] timeout`, and each is tried again for two minutes if the server does not answer."""
DELETE = Policy(waits_for=WAITED_FOR)
PUBLISH = Policy(waits_for=WAITED_FOR)
ERASE = Policy(waits_for=WAITED_FOR)
SEARCH_INDEX = Policy(retries=0, limit=None)
"""Qdrant builds it in one call, which nothing interrupts. The run is complete already."""
ENDINGS = {
    "delete gone": DELETE, "verify and publish": PUBLISH, "erase": ERASE, "build search index": SEARCH_INDEX,
}  # fmt: skip
"""The policies of the steps that follow the last page."""
