"""All errors of the project. A retry may succeed after a `TransientError`, but not after a
`TerminalError`.

Foreign exceptions become one of these where they enter (`raise … from exc`). All of them survive
pickle, since a Dask worker raises them in another process: arguments are positional and stay in
`args` (`tests/test_errors.py`).
"""

from __future__ import annotations

import html
import json
import re
import shlex
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rag_index.redaction import redacted

_COMMANDS = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]|\r(?!\n)"
)
"""Characters that a terminal may obey: control characters except line end and tab, changes of the
writing direction, and halves of surrogate pairs."""


_PAGE = re.compile(r"<(!doctype html|html|head|title|body|center|h1)\b", re.IGNORECASE)
"""An element by which an HTML page is recognised."""
_UNREAD = re.compile(r"<(?:style|script)\b", re.IGNORECASE)
"""The beginning of an element that people do not read."""
_TAG = re.compile(r"<[^<>]*>")


def printable(text: str) -> str:
    """Return a foreign text with a replacement character for each character that a terminal or a
    file may take for a command."""
    return _COMMANDS.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: object, chars: int = 300) -> str:
    """Return a foreign message or error on one line of at most `chars` characters. Secrets are
    masked before it is cut, and an HTML page, such as a proxy's, becomes its text."""
    message = redacted(str(text))
    if _PAGE.search(message):
        message = _text_of_page(message)
    return shortened(message, chars)


def _text_of_page(page: str) -> str:
    """Return the text of an HTML page, without scripts and styles."""
    first, *others = _UNREAD.split(page)
    parts = [first]
    for part in others:
        # The text after the end of a script: "alert(1)</script> Bad gateway".
        after = part.partition("</")[2]
        parts.append(f"<{after}")
    return html.unescape(_TAG.sub(" ", " ".join(parts)))


def shortened(text: str, chars: int) -> str:
    """Return a text of a document or a caller on one line of at most `chars` characters."""
    line = printable(" ".join(text.split()))
    if len(line) <= chars:
        return line
    return f"{line[: chars - 1]}…"


class RagIndexError(Exception):
    """An error whose message is one line for a person: what is wrong with which value, and what to
    do. Secrets that the process knows are masked in it, whatever it was made from."""

    exit_code = 1

    def __init__(self, *given: object) -> None:
        arguments = [redacted(value) if isinstance(value, str) else value for value in given]
        super().__init__(*arguments)

    def __str__(self) -> str:
        if not self.args:
            return type(self).__name__
        return printable(str(self.args[0]))

    @staticmethod
    def of_class(name: str, message: str) -> RagIndexError:
        """Return the error of this class that another process reported; a TransientError if the
        class is not one of these."""
        found = globals().get(name)
        if isinstance(found, type) and issubclass(found, RagIndexError):
            return found(message)
        return TransientError(message)


class TransientError(RagIndexError):
    """An error for which another try, after a pause, may succeed."""

    since: float | None = None
    """When its service failed first, by the machine's clock (`time.time`); None if unknown."""
    wait: float | None = None
    """For how many seconds after that a retry is worthwhile; None if nobody set a limit."""
    retry_after: float | None = None
    """The pause that the service requested, in seconds."""


class SourceUnavailable(TransientError):
    """The error of a source database that does not answer."""


class SourceTimedOut(SourceUnavailable):
    """The error of a query that exceeded its time limit."""


class EmbedderUnavailable(TransientError):
    """The error of an embedding server that does not answer, or answers with a transient fault.

    Transient faults are a 5xx status, half an answer, and an answer that is not JSON.
    """


class RateLimited(EmbedderUnavailable):
    """The error of a server that asks for a pause; `retry_after` holds the seconds, if the server
    gave them."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after


class HostUnreachable(EmbedderUnavailable):
    """The error of a failed connection to a server, so the text to be sent is not the cause."""


class RequestTimedOut(EmbedderUnavailable):
    """The error of a request that exceeded its time limit."""


class StoreUnavailable(TransientError):
    """The error of a Qdrant that does not answer, or that answers with 5xx, UNAVAILABLE or a rate
    limit."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after


class LedgerUnavailable(TransientError):
    """The error of a ledger database that is locked or does not answer."""


class NoWorkers(TransientError):
    """The error of a run whose worker processes do not start."""


class SearchTimedOut(TransientError):
    """The error of a search of an index, or of its preparation, that exceeded the time limit."""


class SearchBusy(TransientError):
    """The error of a search whose turn has not come, because others are before it, or its caller
    has too many."""


class IndexBehind(TransientError):
    """The error of a search that demands a younger index; `as_of` says how old the index is."""

    def __init__(
        self, message: str, as_of: Mapping[str, Mapping[str, object]] | None = None
    ) -> None:
        self.as_of = dict(as_of or {})
        super().__init__(message, self.as_of)


class TerminalError(RagIndexError):
    """An error for which another try would fail in the same way."""


class SettingsError(TerminalError):
    """A mistake in the settings file, in the environment or on the command line."""

    exit_code = 2


class UnknownIndex(SettingsError):
    """The name of an index that the settings do not have."""


class SettingsReplaced(SettingsError):
    """The settings of a process that runs are not those any more by which its index has to be
    written."""


class SourceError(TerminalError):
    """A table, a column or a key that does not match the settings."""

    exit_code = 2


class InvalidText(SourceError):
    """The error of a text that is not valid in the charset of its database."""


class EmbedderError(TerminalError):
    """The error of an embedder that refuses, or whose answer cannot be right."""


class ModelMissing(EmbedderError):
    """The error of a server that does not have the model."""


class ModelChanged(EmbedderError):
    """The error of a model that changed since the run began, or that differs between hosts."""


class ProcessorDiffers(ModelChanged):
    """The error of a processor that computes other vectors with the same files than the one that
    made a collection."""


class TextTooLong(EmbedderError):
    """A request with a text that is longer than the model's context; nothing was embedded."""


class RequestTooLong(TextTooLong):
    """The error of a request with more texts, or longer ones, than the server takes at a time."""


class TextRefused(EmbedderError):
    """A request with a text that is refused for another reason than its length; nothing was
    embedded."""


class TextEndsServer(TextRefused):
    """A text with which the embedding server ends, or does not answer, although it embeds other
    texts."""


class BadVectors(EmbedderError):
    """Vectors that cannot be right: too few, of another dimension, not finite, or all zero."""


class RerankerError(TerminalError):
    """The error of a reranker that cannot be loaded, or whose numbers cannot be right."""


class ProcessDied(TerminalError):
    """A process died while it embedded a shard: one of the documents may be the cause."""


class ShardHalved(TerminalError):
    """The error of a shard under which its service went away twice: its halves come next."""


class RequestTooLarge(TerminalError):
    """The error of a request to the service whose body is larger than allowed; the rest of it is
    not read."""


class DocumentNotFound(TerminalError):
    """The id of a document that an index does not have, or that is not for the one who asks."""


class NotAllowed(TerminalError):
    """The error of a request that needs all rights, from a caller who does not have them."""


class SearchFailed(TerminalError):
    """The error of a search that no index answered: `errors` holds each one's reason, `timed_out`
    if it is time."""

    def __init__(
        self,
        message: str,
        errors: Mapping[str, str] | None = None,
        exit_code: int = 1,
        timed_out: bool = False,
    ) -> None:
        self.errors = dict(errors or {})
        super().__init__(message, self.errors, exit_code, timed_out)
        self.exit_code, self.timed_out = exit_code, timed_out


class StoreError(TerminalError):
    """The error of a store that refuses."""


class StoreBusy(StoreError):
    """The error of an embedded store that another process writes; the message says which, and since
    when."""


class StoreRefused(StoreError):
    """The error of a server that refuses a request (a limit, or what the API key may not do), or of
    a folder that this user may not write, or whose disk is full. The points are sound."""


class PointsRefused(StoreError):
    """The error of a store that refuses points because of their content; `point_ids` names them, if
    they are known."""

    def __init__(self, message: str, point_ids: tuple[str, ...] = ()) -> None:
        super().__init__(message, point_ids)
        self.point_ids = point_ids


class StoreMismatch(StoreError):
    """The error of a store that is not the one the ledger describes, or that does not hold what the
    ledger says."""


class StoreRestored(StoreMismatch):
    """The error of a store or a ledger that was put back to an older copy. A run over all documents
    helps."""


class EmbedderWithdrawn(TerminalError):
    """The error of a collection whose kind of embedder does not exist any more, so that no query
    can be embedded."""


class FingerprintChanged(TerminalError):
    """The error of an index that was built with another model, prefix, dimension or chunker than
    the settings name."""


class LedgerError(TerminalError):
    """The error of a ledger that cannot be read or written."""


class IndexLocked(TerminalError):
    """The error of an index whose lease another run holds; the message says which process, and
    since when."""


@cache
def install_command(extra: str) -> str:
    """Return the command that installs an extra from where rag-index itself was installed: a
    checkout, a wheel, or a registry if pip recorded neither.

    Example:
        pip install -e '/srv/rag-index[mcp]'
    """
    try:
        record = json.loads(distribution("rag-index").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:  # it runs from a folder that nothing installed
        record = {"url": "file:"}
    url = urlsplit(record.get("url", ""))
    # A registry.
    if url.scheme != "file":
        return f"pip install 'rag-index[{extra}]'"
    # A wheel or a checkout that was moved since.
    place = Path(unquote(url.path))
    if not url.path or not place.exists():
        return f"pip install '.[{extra}]' in a checkout of rag-index"
    editable = "-e " if record.get("dir_info", {}).get("editable") else ""
    return f"pip install {editable}{shlex.quote(f'{place}[{extra}]')}"
