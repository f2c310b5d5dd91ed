"""Rerankers read a query and a text together, and say how well they fit. `open_reranker` opens that of the settings."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from rag_index.errors import SettingsError
from rag_index.settings.plugins import RERANKERS, installed, load_plugin

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rag_index.settings import Settings

__all__ = ["Reranker", "reranker_opener"]


class Reranker(Protocol):
    """The interface of a reranker. One thread at a time uses it."""

    def score(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """Return a number for each text, in order: the higher, the better it fits the query.

        Numbers of one query are compared with each other and with nothing else. Whatever is raised leaves the hits in
        the order that they had.
        """

    def close(self) -> None:
        """Release the model."""


def reranker_opener(settings: Settings) -> Callable[[], Reranker] | None:
    """Return a function that opens the reranker which the settings name; None if they name none.

    That is a server if it is an address, a plug-in of this name, or a model of sentence-transformers. Raises
    SettingsError if the library that it needs is not installed, or the plug-in cannot be loaded.
    """
    model, device = settings.retrieve.reranker, settings.embedder.device
    if model is None:
        return None
    if model in installed(RERANKERS):
        plugin: Callable[[Settings], Reranker] = load_plugin(RERANKERS, model, "[retrieve] reranker")
        return lambda: plugin(settings)
    if model.startswith(("http://", "https://")):
        return partial(_open_server, model, settings.retrieve.timeout)
    if find_spec("sentence_transformers") is None:
        raise SettingsError(
            f"reranker {model!r} needs a library that is not installed: pip install 'rag-index[sentence-transformers]'"
        )

    def open_reranker() -> Reranker:
        from rag_index.rerankers.models import load_reranker

        return load_reranker(model, device)

    return open_reranker


def _open_server(address: str, timeout: float) -> Reranker:
    from rag_index.rerankers.models import RerankServer

    return RerankServer(address, timeout)
