"""The policies of a run's steps: how often each is tried again, and how long it may take at most.

A plain run and the tasks of a flow (`tasks.index`) have the same.
"""

from __future__ import annotations

from rag_index.core.machine.retries import Policy, ProcessLimit
from rag_index.errors import EmbedderUnavailable

VERY_LONG = 24 * 3600.0


CHECK = Policy()
FETCH = Policy()
EMBED = Policy(retries=1, limit=None, process=ProcessLimit(), waits_for=(EmbedderUnavailable,))
"""A request ends after `[embedder] timeout`, and the step waits for servers that are down (`wait_for_recovery`)."""
UPSERT = Policy(limit=None)
"""A request ends after `[store] timeout`; each is repeated for 30 s if the server is down."""
DELETE = Policy(limit=VERY_LONG)
PUBLISH = Policy(limit=VERY_LONG)
ERASE = Policy(limit=VERY_LONG)
SEARCH_INDEX = Policy(retries=0, limit=VERY_LONG)
