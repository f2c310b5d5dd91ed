"""What Qdrant's client raises, REST, gRPC and in memory, as errors of ours."""

from __future__ import annotations

import copyreg
import json

import grpc  # type: ignore[import-untyped]
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from rag_index.errors import PointsRefused, RagIndexError, StoreError, StoreMismatch, StoreUnavailable
from rag_index.stores.edge.folder import disk_full

__all__ = ["FOREIGN", "translate"]

FOREIGN = (ApiException, QdrantException, grpc.RpcError, AssertionError, ValueError, KeyError, RuntimeError)
"""All that a call of the client raises: asserts for an empty answer, the last three for arguments and in memory."""

copyreg.pickle(
    UnexpectedResponse,  # it cannot unpickle itself, and tblib, which Dask uses, pickles the cause of an error with it
    lambda exc: (UnexpectedResponse, (exc.status_code, exc.reason_phrase, exc.content, exc.headers)),
)

PASSING_CODES = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DATA_LOSS,
}
KEY_CODES = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


def translate(exc: Exception, url: str) -> RagIndexError:
    """The error of ours that one of `FOREIGN` means.

    StoreUnavailable may pass (down, 5xx, a rate limit: `retry_after`); PointsRefused, without ids, says that the
    request is at fault, so that smaller ones may be tried; StoreMismatch that a point is not there; StoreError
    needs a person.
    """
    match exc:
        case ResourceExhaustedResponse():
            return StoreUnavailable(f"Qdrant at {url} asks for a pause: {exc}", float(exc.retry_after_s))
        case UnexpectedResponse():
            return _from_status(exc.status_code or 0, _said(exc), url)
        case ResponseHandlingException():
            reason = str(exc.source) or type(exc.source).__name__
            return StoreUnavailable(f"Qdrant at {url} does not answer as it should ({_short(reason)}): is it running?")
        case grpc.RpcError():
            return _from_code(exc, url)
        case KeyError():
            return StoreMismatch(f"No point with id {exc.args[0] if exc.args else ''} found")
        case AssertionError() | json.JSONDecodeError() | UnicodeDecodeError():  # an answer that is not Qdrant's
            return StoreUnavailable(f"Qdrant at {url} does not answer as it should ({exc}): is it running?")
        case QdrantException():
            return StoreUnavailable(f"Qdrant at {url} asks for a pause: {exc}")
        case ValueError() if "not found" not in str(exc):
            return PointsRefused(f"Qdrant at {url} cannot take the request: {_short(str(exc))}")
        case _:
            return StoreError(f"Qdrant at {url}: {exc}")


def _from_status(status: int, said: str, url: str) -> RagIndexError:
    if disk_full(said):
        return StoreError(f"Qdrant at {url} has no space left on its disk ({said}): free some, then run again")
    if status == 429:
        return StoreUnavailable(f"Qdrant at {url} asks for a pause: {said}")
    if status == 408 or not 400 <= status < 500:
        return StoreUnavailable(f"Qdrant at {url} answered {status}: {said}")
    if status in (401, 403):
        return StoreError(f"Qdrant at {url} refuses the API key ({status}: {said}): set [store] api_key")
    if status == 404:
        return _missing(said, url)
    return PointsRefused(f"Qdrant at {url} refuses the request ({status}): {said}")


def _from_code(exc: grpc.RpcError, url: str) -> RagIndexError:
    code = exc.code() if isinstance(exc, grpc.Call) else grpc.StatusCode.UNKNOWN
    said = _short((exc.details() or "") if isinstance(exc, grpc.Call) else str(exc))
    if disk_full(said):
        return StoreError(f"Qdrant at {url} has no space left on its disk ({said}): free some, then run again")
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than" not in said:
        return StoreUnavailable(f"Qdrant at {url} asks for a pause: {said}")
    if code in PASSING_CODES:
        return StoreUnavailable(f"Qdrant at {url} does not answer as it should ({code.name}: {said}): is it running?")
    if code in KEY_CODES:
        return StoreError(f"Qdrant at {url} refuses the API key ({said}): set [store] api_key")
    if code == grpc.StatusCode.NOT_FOUND:
        return _missing(said, url)
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return StoreError(f"Qdrant at {url} is too old for this ({said}): upgrade it")
    return PointsRefused(f"Qdrant at {url} refuses the request ({code.name}): {said}")


def _missing(said: str, url: str) -> RagIndexError:
    if "No point with id" in said:
        return StoreMismatch(said)
    return StoreError(f"Qdrant at {url}: {said}")


def _said(exc: UnexpectedResponse) -> str:
    """What the server wrote: the error in Qdrant's JSON, or the beginning of whatever else it is."""
    try:
        return _short(str(json.loads(exc.content)["status"]["error"]))
    except (ValueError, KeyError, TypeError):
        return _short(exc.content.decode(errors="replace")) or exc.reason_phrase


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:297]}..."
