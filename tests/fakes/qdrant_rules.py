"""What Qdrant refuses by rule, in its words: limits of a collection's strict mode, and what an API key may not do.

The order and the words are those of Qdrant's `lib/collection/src/operations/verification` and `lib/storage/src/rbac`.
"""

from collections.abc import Iterator
from typing import Any

READS = ("/points", "/points/scroll", "/points/count", "/points/query", "/points/query/batch")


def forbidden(method: str, path: str, *, read_only: bool, readable: set[str] | None) -> str | None:
    """Return why a key is refused that may only read, or only some collections and aliases; or None."""
    name = path.split("/")[2] if path.startswith("/collections/") else None
    if readable is not None and name is not None and name not in {*readable, "aliases"}:
        return f"Forbidden: Access to collection {name} is required"
    reads = method == "GET" or (method == "POST" and name is not None and path.endswith(READS))
    if reads or not (read_only or readable is not None):
        return None
    return "Forbidden: Global manage access is required"


def strict_mode_refusal(strict: dict[str, Any], indexes: dict[str, str], call: str, body: Any) -> str | None:
    """Return why a call on the points of a collection is refused, or None. `call` is the end of its path."""
    if not strict.get("enabled"):
        return None
    one = call.removesuffix("/batch") if call.endswith("/query/batch") else call
    for part in (body or {}).get("searches", [body or {}]):
        for refusal in _refusals(strict, indexes, one, part):
            return refusal if "rate limit" in refusal else f"Bad request: {refusal}"
    return None


def _refusals(strict: dict[str, Any], indexes: dict[str, str], call: str, body: dict[str, Any]) -> Iterator[str]:
    if call == "PUT /points":
        points = body["points"]
        yield from _above(len(points), strict.get("upsert_max_batchsize"), "upsert limit")
        yield from _over_budget(len(points), strict.get("write_rate_limit"), "Write")
        most = strict.get("max_collection_vector_size_bytes")
        if most is not None:  # the fake counts nothing: a limit is a limit that is reached
            yield f"Max vector storage size limit of {most / 1024 / 1024:g}MB reached!"
    if call == "POST /points":
        yield from _over_budget(len(body["ids"]), strict.get("read_rate_limit"), "Read")
    if call == "POST /points/delete":
        yield from _over_budget(len(body.get("points") or ()), strict.get("write_rate_limit"), "Write")
    if call in ("POST /points/scroll", "POST /points/query"):
        yield from _above(body.get("limit") or 10, strict.get("max_query_limit"), "limit")
    allowed = strict.get(
        "unindexed_filtering_update" if call == "POST /points/delete" else "unindexed_filtering_retrieve"
    )
    conditions = list(_conditions(body.get("filter") or {}))
    most = strict.get("condition_max_size")
    for condition in conditions:
        size = len(condition.get("has_id") or (condition.get("match") or {}).get("any") or ())
        if most is not None and size > most:
            yield f"Condition size limit reached ({size} > {most}). Help: Reduce the size of your condition."
    for condition in conditions:
        kinds = _kinds(condition)
        if allowed is False and kinds and indexes.get(condition["key"]) not in kinds:
            yield (
                f'Index required but not found for "{condition["key"]}" of one of the following types: '
                f"[{', '.join(sorted(kinds))}]. Help: Create an index for this key or use a different filter."
            )
    parameters = body.get("params") or {}
    exact = body.get("exact", True) if call == "POST /points/count" else parameters.get("exact")
    if exact and strict.get("search_allow_exact") is False:
        yield "Exact search disabled!. Help: Set exact=false."
    yield from _above(parameters.get("hnsw_ef") or 0, strict.get("search_max_hnsw_ef"), "hnsw_ef")
    factor = (parameters.get("quantization") or {}).get("oversampling") or 0
    yield from _above(factor, strict.get("search_max_oversampling"), "oversampling")


def _over_budget(points: int, most: int | None, kind: str) -> Iterator[str]:
    """Refuse what a minute does not allow. The fake counts no minutes: a smaller request is always in time."""
    if most is not None and points > most:
        yield (
            f"Rate limiting exceeded: {kind} rate limit exceeded, request larger than rate limiter capacity, "
            "please try to split your request"
        )


def _above(value: float, most: float | None, name: str) -> Iterator[str]:
    if most is not None and value > most:
        yield f'Limit exceeded {value} > {most} for "{name}". Help: Reduce the "{name}" parameter to or below {most}.'


def _conditions(given: Any) -> Iterator[dict[str, Any]]:
    if isinstance(given, dict):
        if given.get("key") or given.get("has_id"):
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
        return {"bool"} if isinstance(value, bool) else {"integer"} if isinstance(value, int) else {"keyword"}
    if span:
        bounds = [value for value in span.values() if value is not None]
        return {"datetime"} if any(isinstance(bound, str) for bound in bounds) else {"float", "integer"}
    return set()
