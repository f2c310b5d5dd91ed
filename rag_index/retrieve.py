"""Search from Python: the names that an application imports, such as `from rag_index.retrieve
import Retriever`."""

from __future__ import annotations

from rag_index.search import *  # noqa: F403
from rag_index.search import __all__  # noqa: F401
