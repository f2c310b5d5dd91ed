"""The retriever for Haystack (the extra `haystack` brings what it needs)."""

from __future__ import annotations

from typing import Any, Unpack

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.utils import Secret, deserialize_secrets_inplace

from rag_index.errors import SettingsError
from rag_index.search import ALL_GROUPS, Retriever, SearchResult
from rag_index.search.frameworks import SearchOptions, Service, found_in

EVERYBODY = {"all": True}
"""How a saved pipeline has ALL_GROUPS."""
OPERATORS = {"==": "any", "in": "any", "!=": "not", "not in": "not", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


@component
class RagIndexRetriever:
    """Finds the documents of a project, as a component of a pipeline.

    RagIndexRetriever("rag-index.toml", indexes=["comments"], limit=5)

    With `url` (and `token`, a Secret) it asks a `rag-index serve`. Else the settings file (by default RAG_INDEX_CONFIG,
    or rag-index.toml here or above) is read by the first run, so that a pipeline can be saved. Raises as
    `Retriever.search`.
    """

    def __init__(
        self,
        config: str | None = None,
        url: str | None = None,
        token: Secret | None = None,
        **options: Unpack[SearchOptions],
    ) -> None:
        self._config, self._url, self._token = config, url, token
        self._options: dict[str, Any] = dict(options)
        if self._options.get("groups") == EVERYBODY:
            self._options["groups"] = ALL_GROUPS
        self._retriever: Retriever | Service | None = None

    def warm_up(self) -> None:
        """Read the settings. A pipeline calls it before its first run."""
        self._open()

    def close(self) -> None:
        """Close store and models. The next run opens them again."""
        retriever, self._retriever = self._retriever, None
        if retriever is not None:
            retriever.close()

    @component.output_types(documents=list[Document], errors=dict[str, str], nothing_fits=bool)
    def run(
        self,
        query: str,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        groups: list[str] | None = None,
    ) -> dict[str, Any]:
        """Return `documents`, the `errors` of indexes that did not answer, and whether `nothing_fits`.

        What is given here comes before the options. `filters` are those of rag-index, or comparisons of Haystack's
        that all have to be true.
        """
        return _found(self._open().search_sync(query, **self._arguments(filters, top_k, groups)))

    @component.output_types(documents=list[Document], errors=dict[str, str], nothing_fits=bool)
    async def run_async(
        self,
        query: str,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        groups: list[str] | None = None,
    ) -> dict[str, Any]:
        """Return what `run` returns."""
        return _found(await self._open().search(query, **self._arguments(filters, top_k, groups)))

    def to_dict(self) -> dict[str, Any]:
        """Return the component as a pipeline saves it."""
        options = {**self._options}
        if options.get("groups") is ALL_GROUPS:
            options["groups"] = EVERYBODY
        token = self._token and self._token.to_dict()
        saved: dict[str, Any] = default_to_dict(self, config=self._config, url=self._url, token=token, **options)
        return saved

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RagIndexRetriever:
        """Return a component that was saved."""
        deserialize_secrets_inplace(data["init_parameters"], keys=["token"])
        made: RagIndexRetriever = default_from_dict(cls, data)
        return made

    def _open(self) -> Retriever | Service:
        if self._retriever is None and self._url:
            self._retriever = Service(self._url, self._token.resolve_value() if self._token else None)
        self._retriever = self._retriever or Retriever.from_settings(self._config)
        return self._retriever

    def _arguments(self, filters: dict[str, Any] | None, top_k: int | None, groups: list[str] | None) -> dict[str, Any]:
        given = {"filter": _filter(filters), "limit": top_k, "groups": groups}
        return {**self._options, **{name: value for name, value in given.items() if value is not None}}


def _filter(given: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a filter of Haystack as one of ours; others stay. Raises SettingsError for what ours cannot say."""
    if not given or "operator" not in given:
        return given
    found: dict[str, dict[str, Any]] = {}
    for one in given["conditions"] if given["operator"] == "AND" else [given]:
        compared, field = OPERATORS.get(one.get("operator", "")), str(one.get("field", "")).removeprefix("meta.")
        of_field = found.setdefault(field, {})
        if compared is None or not field or compared in of_field:
            known = ", ".join(OPERATORS)
            raise SettingsError(f"filters {one!r}: a condition is field, operator ({known}) and value; AND joins them")
        value = one.get("value")
        of_field[compared] = value if compared not in ("any", "not") or isinstance(value, list) else [value]
    return found


def _found(result: SearchResult | dict[str, Any]) -> dict[str, Any]:
    hits, said = found_in(result)
    documents = [
        Document(id=name, content=text, meta=metadata, score=metadata.get("rag_index_score", metadata["score"]))
        for name, text, metadata in hits
    ]
    return {"documents": documents, "errors": said.get("errors", {}), "nothing_fits": "nothing_fits" in said}
