"""Every error of the project, in one tree.

    RagIndexError
    ├── TransientError              worth another try, and the tasks do try again
    │   ├── SourceUnavailable       the database does not answer
    │   ├── EmbedderUnavailable     the embedding server does not answer, or answered with a passing fault
    │   │   ├── RateLimited         the server asked for a pause, perhaps with the seconds to wait
    │   │   ├── HostUnreachable     no connection, so the text sent is not the reason
    │   │   └── RequestTimedOut     no answer within the time limit of a request
    │   ├── StoreUnavailable        Qdrant does not answer, or answered with a passing fault
    │   ├── LedgerUnavailable       the ledger's database is locked or does not answer
    │   ├── NoWorkers               the worker processes of a run do not start
    │   └── SearchTimedOut          an index, or what precedes its search, exceeded the time limit
    └── TerminalError               trying again gives the same: a person or another path has to act
        ├── SettingsError           exit code 2: the file, the environment or the command line
        │   └── UnknownIndex
        ├── SourceError             exit code 2: tables, columns and keys that do not fit the settings
        ├── EmbedderError
        │   ├── ModelMissing
        │   ├── ModelChanged
        │   ├── TextTooLong         one text is longer than the model's context
        │   ├── TextRefused         one text is refused for another reason
        │   └── BadVectors          too few, another dimension, not finite, all zero
        │       └── WrongDimension  the digest is the same and the dimension another
        ├── FileTimedOut            a file of source code could not be parsed within the time limit
        ├── SearchFailed            no index answered a search, and the reasons differ
        ├── ContextMissing          a chunk has no context, and the settings want one
        ├── StoreError
        │   ├── StoreBusy           the embedded store is open in another process
        │   ├── PointsRefused       the store refuses points for what they are
        │   └── StoreMismatch       the store is not the one that the ledger knows
        ├── FingerprintChanged      the index was made by another model, prefix or chunker
        ├── LedgerError
        │   └── LedgerTooNew
        └── IndexLocked             another run holds the index

Foreign exceptions become one of these where they enter (`raise … from exc`). All of them survive pickle, since a
Dask worker raises them in another process: arguments are positional and stay in `args`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BadVectors",
    "ContextMissing",
    "EmbedderError",
    "EmbedderUnavailable",
    "FileTimedOut",
    "FingerprintChanged",
    "HostUnreachable",
    "IndexLocked",
    "LedgerError",
    "LedgerTooNew",
    "LedgerUnavailable",
    "ModelChanged",
    "ModelMissing",
    "NoWorkers",
    "PointsRefused",
    "RagIndexError",
    "RateLimited",
    "RequestTimedOut",
    "SearchFailed",
    "SearchTimedOut",
    "SettingsError",
    "SourceError",
    "SourceUnavailable",
    "StoreBusy",
    "StoreError",
    "StoreMismatch",
    "StoreUnavailable",
    "TerminalError",
    "TextRefused",
    "TextTooLong",
    "TransientError",
    "UnknownIndex",
    "WrongDimension",
]


class RagIndexError(Exception):
    """An error with one line for a person: what is wrong, with the value, and what to do about it."""

    exit_code = 1

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__


class TransientError(RagIndexError):
    """Worth another try after a pause."""


class SourceUnavailable(TransientError):
    """The source's database does not answer."""


class EmbedderUnavailable(TransientError):
    """The embedding server does not answer, or answered with a passing fault (5xx, half an answer, no JSON)."""


class RateLimited(EmbedderUnavailable):
    """The server asked for a pause: `retry_after` seconds where it said so."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after


class HostUnreachable(EmbedderUnavailable):
    """No connection to the server, so whatever was to be sent is not the reason."""


class RequestTimedOut(EmbedderUnavailable):
    """No answer within the time limit of a request."""


class StoreUnavailable(TransientError):
    """Qdrant does not answer, or answered with a passing fault (5xx, UNAVAILABLE, a rate limit)."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after


class LedgerUnavailable(TransientError):
    """The ledger's database is locked or does not answer."""


class NoWorkers(TransientError):
    """The worker processes of a run do not start."""


class SearchTimedOut(TransientError):
    """An index, or what precedes its search, exceeded the time limit."""


class TerminalError(RagIndexError):
    """Trying again gives the same."""


class SettingsError(TerminalError):
    """The settings file, the environment or the command line says something that cannot be."""

    exit_code = 2


class UnknownIndex(SettingsError):
    """No index of this name is in the settings."""


class SourceError(TerminalError):
    """A table, a column or a key that does not fit the settings."""

    exit_code = 2


class EmbedderError(TerminalError):
    """The embedder refuses, or answers what cannot be right."""


class ModelMissing(EmbedderError):
    """The server does not have the model."""


class ModelChanged(EmbedderError):
    """The model of this name is another one than when the run began, or differs between hosts."""


class TextTooLong(EmbedderError):
    """One of the texts sent is longer than the model's context; nothing was embedded."""


class TextRefused(EmbedderError):
    """One of the texts sent is refused for another reason than its length; nothing was embedded."""


class BadVectors(EmbedderError):
    """The vectors cannot be right: their number, dimension, a value that is not finite, all zero."""


class WrongDimension(BadVectors):
    """The model's digest is the same, and the dimension of its vectors is another."""


class FileTimedOut(TerminalError):
    """A file of source code could not be parsed within the time limit."""


class SearchFailed(TerminalError):
    """No index answered a search, and the reasons differ; `errors` holds the reason of each index."""

    def __init__(self, message: str, errors: Mapping[str, str] | None = None, exit_code: int = 1) -> None:
        self.errors = dict(errors or {})
        super().__init__(message, self.errors, exit_code)
        self.exit_code = exit_code


class ContextMissing(TerminalError):
    """Chunks of a document have no context, and the settings say that it is required."""


class StoreError(TerminalError):
    """The store refuses."""


class StoreBusy(StoreError):
    """The embedded store is open in another process; the message says which, and since when."""


class PointsRefused(StoreError):
    """The store refuses these points for what they are; `point_ids` names them where it is known."""

    def __init__(self, message: str, point_ids: tuple[str, ...] = ()) -> None:
        super().__init__(message, point_ids)
        self.point_ids = point_ids


class StoreMismatch(StoreError):
    """The store is not the one that the ledger knows, or does not hold what the ledger explains."""


class FingerprintChanged(TerminalError):
    """The index was made with another model, prefix, dimension or chunker than the settings name."""


class LedgerError(TerminalError):
    """The ledger cannot be read or written as it should."""


class LedgerTooNew(LedgerError):
    """The ledger was written by a newer version of rag-index."""


class IndexLocked(TerminalError):
    """Another run holds the index; the message says which, and since when."""
