"""The errors of Qdrant's client (REST, gRPC and in memory), translated into errors of ours."""

from __future__ import annotations

import copyreg
import json
import re
from typing import Any

import grpc  # type: ignore[import-untyped]
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from rag_index.errors import PointsRefused, RagIndexError, StoreError, StoreMismatch, StoreRefused, StoreUnavailable
from rag_index.stores.edge.folder import disk_full

FOREIGN = (ApiException, QdrantException, grpc.RpcError, AssertionError, ValueError, KeyError, RuntimeError)
"""All that a call of the client raises: AssertionError for an empty answer, the last three for wrong arguments and
from the client in memory."""

SILENT_CODES = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED,
}
HTTP = {
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.ABORTED: 500,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
"""What a code of gRPC is in HTTP; 400 if it is not here."""

BAD_TOKEN = re.compile(r"ExpiredSignature|InvalidSignature|Invalid JWT")
"""What the server says, with 403, of a token that it does not take at all."""
OTHER_COLLECTION = re.compile(r"(?:Access to|Only points access is allowed for) collection (\S+?)(?: is required|$)")
UNINDEXED = re.compile(r'Index required but not found for "(.+?)"')
TOO_MANY_POINTS = re.compile(r'Limit exceeded \S+ > \S+ for "(upsert|update) limit"')
STRICT_MODE = re.compile(
    r"Limit exceeded|limit reached|limit of .* reached|Exact search disabled|Request is forbidden|"
    r"maximum number of payload indexes|larger than rate limiter capacity"
)
"""What strict mode says when it refuses (with 400, and 403 in older versions)."""


def translate(exc: Exception, url: str) -> RagIndexError:
    """Translate one of `FOREIGN` into an error of ours.

    StoreUnavailable may pass (server down, 5xx, a rate limit with `retry_after`). PointsRefused, without ids, blames
    the request, so smaller ones may be tried. StoreRefused is a limit of strict mode or a right that the API key lacks.
    StoreMismatch means a missing point. StoreError needs a person.
    """
    match exc:
        case ResourceExhaustedResponse():
            return StoreUnavailable(f"Qdrant at {url} asks for a pause: {exc}", float(exc.retry_after_s))
        case UnexpectedResponse():
            copyreg.pickle(UnexpectedResponse, _as_text)
            status = exc.status_code or 0
            return _from_status(status, _server_message(exc), url, f"{status}")
        case ResponseHandlingException():
            reason = str(exc.source) or type(exc.source).__name__
            return StoreUnavailable(f"Qdrant at {url} does not answer as it should ({_short(reason)}): is it running?")
        case grpc.RpcError():
            copyreg.pickle(type(exc), _as_text)
            return _from_code(exc, url)
        case KeyError():
            return StoreMismatch(f"No point with id {exc.args[0] if exc.args else ''} found")
        case AssertionError() | json.JSONDecodeError() | UnicodeDecodeError():  # the answer is not from Qdrant
            return StoreUnavailable(f"Qdrant at {url} does not answer as it should ({exc}): is it running?")
        case QdrantException():
            return StoreUnavailable(f"Qdrant at {url} asks for a pause: {exc}")
        case ValueError() if "not found" not in str(exc):
            return PointsRefused(f"Qdrant at {url} cannot take the request: {_short(str(exc))}")
        case _:
            return StoreError(f"Qdrant at {url}: {exc}")


def _as_text(exc: BaseException) -> tuple[Any, tuple[str]]:
    """Return how to pickle an error that cannot be pickled by itself, because it holds a lock or takes arguments.

    On a worker it becomes the cause of one of ours, and Dask pickles causes too (tblib). tblib replaces what is
    registered when it is imported, so each class is registered when an error of it is met.
    """
    return RuntimeError, (str(exc),)


def complaint(error: StoreUnavailable, url: str) -> tuple[str, bool]:
    """Return what is behind an error of `translate`, for a sentence that names the server, and whether it answered."""
    message = str(error).removeprefix(f"Qdrant at {url} ")
    found = re.fullmatch(r"does not answer as it should \((.*)\): is it running\?", message, re.DOTALL)
    return (found[1], False) if found else (message, True)


def _from_status(status: int, message: str, url: str, answer: str) -> RagIndexError:
    """Return the error for a status of HTTP; `answer` is what the server called it."""
    if disk_full(message):
        return StoreError(f"Qdrant at {url} has no space left on its disk ({message}): free some, then run again")
    if status == 429 and "larger than" not in message and not STRICT_MODE.search(message):
        return StoreUnavailable(f"Qdrant at {url} asks for a pause: {message}")
    if status == 408 or not 400 <= status < 500:
        return StoreUnavailable(f"Qdrant at {url} answered {answer}: {message}")
    if status == 404:
        return StoreMismatch(message) if "No point with id" in message else StoreError(f"Qdrant at {url}: {message}")
    return _refusal(message, url, answer, wrong_key=status == 401, no_right=status == 403)


def _from_code(exc: grpc.RpcError, url: str) -> RagIndexError:
    code = exc.code() if isinstance(exc, grpc.Call) else grpc.StatusCode.UNKNOWN
    message = _short((exc.details() or "") if isinstance(exc, grpc.Call) else str(exc))
    if code in SILENT_CODES and not disk_full(message):
        return StoreUnavailable(
            f"Qdrant at {url} does not answer as it should ({code.name}: {message}): is it running?"
        )
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return StoreError(f"Qdrant at {url} is too old for this ({message}): upgrade it")
    return _from_status(HTTP.get(code, 400), message, url, code.name)


def _refusal(message: str, url: str, answer: str, *, wrong_key: bool, no_right: bool) -> RagIndexError:
    """Return the error for a request that the server refuses: `answer` is its status."""
    if field := UNINDEXED.search(message):
        return StoreRefused(
            f"Qdrant at {url} allows no filter on {field[1]}, because strict mode is on and the field has no payload "
            f"index ({message}): add {field[1]} to payload_indexes of the index and run it once"
        )
    if STRICT_MODE.search(message) and not TOO_MANY_POINTS.search(message):
        return StoreRefused(
            f"the strict mode of Qdrant at {url} refuses the request ({message}): raise this limit in the collection's "
            "strict_mode_config; docs/servers.md lists what it must allow"
        )
    if wrong_key or (no_right and BAD_TOKEN.search(message)):
        remedy = "it has expired, so make a new one and set it as" if "Expired" in message else "set"
        return StoreRefused(f"Qdrant at {url} refuses the API key ({answer}: {message}): {remedy} [store] api_key")
    if no_right and (other := OTHER_COLLECTION.search(message)):
        return StoreRefused(
            f"the API key for Qdrant at {url} may not read {other[1]} ({answer}: {message}): give it access to that, "
            "or set [store] api_key to another; docs/servers.md says what a key needs"
        )
    if no_right:
        return StoreRefused(
            f"Qdrant at {url} does not allow this with the API key ({answer}: {message}): the key may be for reading "
            "only, which is enough for searches; set [store] api_key to one that may write to all collections"
        )
    return PointsRefused(f"Qdrant at {url} refuses the request ({answer}): {message}")


def _server_message(exc: UnexpectedResponse) -> str:
    """Return the server's message: the error in Qdrant's JSON, or the beginning of any other answer."""
    try:
        return _short(str(json.loads(exc.content)["status"]["error"]))
    except (ValueError, KeyError, TypeError):
        return _short(exc.content.decode(errors="replace")) or exc.reason_phrase


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:297]}..."
