"""What Qdrant refuses by rule, in its words: limits of a collection's strict mode, and what an API
key may not do.

The order and the words are those of Qdrant's `lib/collection/src/operations/verification` and
`lib/storage/src/rbac`.
"""

from collections.abc import Iterator
from typing import Any

READS = ("/points", "/points/scroll", "/points/count", "/points/query", "/points/query/batch")


def forbidden(method: str, path: str, *, read_only: bool, readable: set[str] | None) -> str | None:
    """Return why a key is refused that may only read, or only some collections and aliases; or
    None."""
    name = path.split("/")[2] if path.startswith("/collections/") else None
    if readable is not None and name is not None and name not in {*readable, "aliases"}:
        return f"Forbidden: Access to collection {name} is required"
    reads = method == "GET" or (method == "POST" and name is not None and path.endswith(READS))
    if reads or not (read_only or readable is not None):
        return None
    return "Forbidden: Global manage access is required"


def strict_mode_refusal(
    strict: dict[str, Any], indexes: dict[str, str], call: str, body: Any
) -> str | None:
    """Return why a call on the points of a collection is refused, or None. `call` is the end of its
    path."""
    if not strict.get("enabled"):
        return None
    one = call.removesuffix("/batch") if call.endswith("/query/batch") else call
    for part in (body or {}).get("searches", [body or {}]):
        for refusal in _refusals(strict, indexes, one, part):
            return f"Bad request: {refusal}"
    return None


def _refusals(
    strict: dict[str, Any], indexes: dict[str, str], call: str, body: dict[str, Any]
) -> Iterator[str]:
    if call == "PUT /points":
        most = strict.get("max_collection_vector_size_bytes")
        if most is not None:  # the fake counts nothing: a limit is a limit that is reached
            yield f"Max vector storage size limit of {most / 1024 / 1024:g}MB reached!"
    if call in ("POST /points/scroll", "POST /points/query"):
        limit, most = body.get("limit") or 10, strict.get("max_query_limit")
        if most is not None and limit > most:
            yield (
                f'Limit exceeded {limit} > {most} for "limit". Help: Reduce the "limit" parameter'
                f" to or below {most}."
            )
    kind = "update" if call == "POST /points/delete" else "retrieve"
    allowed = strict.get(f"unindexed_filtering_{kind}")
    for condition in _conditions(body.get("filter") or {}):
        kinds = _kinds(condition)
        if allowed is False and kinds and indexes.get(condition["key"]) not in kinds:
            yield (
                f'Index required but not found for "{condition["key"]}" of one of the following'
                " types: "
                f"[{', '.join(sorted(kinds))}]. Help: Create an index for this key or use a"
                " different filter."
            )
    exact = (
        body.get("exact", True)
        if call == "POST /points/count"
        else (body.get("params") or {}).get("exact")
    )
    if exact and strict.get("search_allow_exact") is False:
        yield "Exact search disabled!. Help: Set exact=false."


def _conditions(given: Any) -> Iterator[dict[str, Any]]:
    if isinstance(given, dict):
        if given.get("key"):
            yield given
        for value in given.values():
            yield from _conditions(value)
    elif isinstance(given, list):
        for value in given:
            yield from _conditions(value)


def _kinds(condition: dict[str, Any]) -> set[str]:
    """Return the kinds of payload index that serve a condition; none if any does."""
    match, span = condition.get("match"), condition.get("range")
    if match:
        value = match["value"] if match.get("value") is not None else (match.get("any") or [""])[0]
        return (
            {"bool"}
            if isinstance(value, bool)
            else {"integer"}
            if isinstance(value, int)
            else {"keyword"}
        )
    if span:
        bounds = [value for value in span.values() if value is not None]
        return (
            {"datetime"}
            if any(isinstance(bound, str) for bound in bounds)
            else {"float", "integer"}
        )
    return set()
