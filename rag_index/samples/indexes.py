"""The settings file that goes with a sample."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SampleIndex", "scaffold"]

_TEMPLATE = """\
# {title}
# Only [source] and [[indexes]] must be given. A value can also come from the environment, which wins:
# RAG_INDEX_PARALLEL__WORKERS=4.

[source]
url = {url}  # read, never written; relative to this file

# Vectors are made inside the process unless an Ollama server is named:
# [embedder]
# kind = "ollama"
# model = "nomic-embed-text"
# hosts = ["http://127.0.0.1:11434"]

# Points are kept in .rag-index/qdrant unless a Qdrant server is named:
# [store]
# url = "http://127.0.0.1:6333"
"""

_INDEX = """
[[indexes]]
name = {name}
table = {table}
key = {key}
text = {text}
payload = {payload}
"""


@dataclass(frozen=True, slots=True)
class SampleIndex:
    """One `[[indexes]]` of a settings file."""

    name: str
    table: str
    key: str
    text: Sequence[str]
    payload: Sequence[str]


def scaffold(title: str, database: str, indexes: Sequence[SampleIndex]) -> str:
    """Return a commented rag-index.toml for the SQLite file `database`, whose path may be relative to it."""
    head = _TEMPLATE.format(title=title, url=_toml(f"sqlite:///{database}"))
    return head + "".join(
        _INDEX.format(
            name=_toml(index.name),
            table=_toml(index.table),
            key=_toml(index.key),
            text=_toml(list(index.text)),
            payload=_toml(list(index.payload)),
        )
        for index in indexes
    )


def _toml(value: str | list[str]) -> str:
    """Return a string or an array of strings as TOML, whose basic strings are written as in JSON."""
    return json.dumps(value, ensure_ascii=False)
