"""Foreign messages without what they quote: a server repeats its input, and a database the values
of rows.

No text, payload or file of a document may be in a log, a reason, an artifact or the ledger, but
messages may (`tests/test_quotes.py`).
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from rag_index.errors import RagIndexError

LEFT_OUT = "…"
MIN_WORD, MIN_PART = 3, 4
"""Shorter words of ASCII letters reveal nothing. Shorter parts of words are in any text by
chance."""
_WORD = re.compile(r"\w+(?:[-.@'’]\w+)*")
_PART = re.compile(r"\w+")
_LEFT_OUT = re.compile(r"…(?:[^\w…]*…)+")
_IN_QUOTES = re.compile(r"""(?P<quote>["'`])(?:.*(?P=quote)|.*\Z)""", re.DOTALL)
_WORDS_OF_SERVERS = """
    about above accept accepts access after again all allocate allocation allowed already and another answer any api
    are argument array attempt authorized available bad base64 batch because been before being below between body
    buffer busy but byte bytes call can cannot capacity changed check client close closed code collection column
    command config configuration connection contain contains content context corrupt cosine could cpu crash crashed
    create cublas cuda data database deadline decode denied did dimension disabled disk does duplicate embed
    embedding embeddings empty enabled encoding_format end engine eof error exact exceed exceeded exceeds exist
    existing exists exit expected fail failed failure fatal field file float for forbidden format found from full
    gateway get given got gpu greater had has have host http id implemented index input inputs insufficient internal
    into invalid is item its json key kind large larger layer least length less limit limits line list load loaded
    loading long longer lower malformed many match max maximum may media memory message method minimum missing mode
    model more must name nan nil node none not null number object occurred offset one only open operation optimize
    out over overflow overloaded pad panic parameter parse path payload payloads peer permission please point points
    pool port prefix process processing prompt protocol provided quota range rate ratelimit read ready reason
    receive received refused reject rejected rename request requests required reset resource response retry return
    row run runner runtime same search segment send sequence server service set shape shard should shutdown shutting
    signal size slot socket some space sparse start started starting state status stop stopped storage stream string
    supported system template temporarily temporary terminated text than that the them then there this thread
    through time timed timeout token tokenizer tokens too total truncate type unable unauthorized unavailable
    unexpected unit unknown unprocessable unsupported until update upload upper upstream uri url usage use used user
    uuid valid validation value values vector vectors version wait was when which while with within without worker
    write wrong you your zero
"""
"""Words by which servers name a fault. A document that has them, too, is not revealed by them."""
_OF_SERVERS = frozenset(_WORDS_OF_SERVERS.split())


def without_texts(message: str, sent: Iterable[str]) -> str:
    """Return a server's answer without the words of the texts that it was sent. Words by which
    servers name a fault stay, and so do all that were not sent.

    Example:
        without_texts("invalid token 'measles' in input", ["Her measles are over"])
        # invalid token '…' in input
    """
    texts = "\n".join(sent).casefold()
    if not texts:
        return message
    words = set(_PART.findall(texts))

    def is_sent(part: str) -> bool:
        if part in words:
            return True
        # Scripts without spaces have no words: a part of a text counts as one.
        if not part.isascii():
            return part in texts
        # The end of a message may cut a word off: "meas".
        return len(part) >= MIN_PART and part.isalpha() and part in texts

    def shown(found: re.Match[str]) -> str:
        word = found[0].casefold()
        is_short = word.isascii() and word.isalpha() and len(word) < MIN_WORD
        if is_short or word in _OF_SERVERS:
            return found[0]
        # One sent part hides the complete word: "measles-vaccine".
        is_quoted = any(map(is_sent, _PART.findall(word)))
        return LEFT_OUT if is_quoted else found[0]

    return _LEFT_OUT.sub(LEFT_OUT, _WORD.sub(shown, message))


def values_in(value: object) -> Iterator[str]:
    """Yield the texts and numbers in a payload, or in several, at any depth. Names of fields are
    not yielded."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from values_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from values_in(inner)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def without_values(message: str) -> str:
    """Return a database's message about a value, without what it quotes: everything from the first
    quotation mark to the last of its kind, since the value may have quotation marks itself.

    Example:
        without_values('invalid input syntax for type integer: "measles"')
        # invalid input syntax for type integer: "…"
    """
    replacement = rf"\g<quote>{LEFT_OUT}\g<quote>"
    return _IN_QUOTES.sub(replacement, message)


def described(error: BaseException) -> str:
    """Return an error in words that quote no document: the message of one of ours; of another error
    its class and the line that raised it."""
    if isinstance(error, RagIndexError):
        return str(error)
    # A message about a file, a connection, a package or a URL.
    if isinstance(error, OSError | ImportError) or type(error).__module__.startswith("httpx"):
        return f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    last = frames[-1]
    place = "/".join(Path(last.filename).parts[-3:])
    return f"{type(error).__name__} in {place}, line {last.lineno}"


class ForeignCause(Exception):
    """Replaces a foreign error among causes: it has its class and traceback, but not its
    message."""


def without_messages(error: BaseException | None) -> BaseException | None:
    """Return a cause of an error, and its own causes, without foreign messages: logs show all of
    them."""
    if error is None:
        return None
    context = None if error.__suppress_context__ else error.__context__
    cause = without_messages(error.__cause__ or context)
    shown: BaseException = error
    # Not ours, not replaced yet, and no Ctrl-C or SIGTERM, which has no message.
    if isinstance(error, Exception) and not isinstance(error, RagIndexError | ForeignCause):
        kind = type(error)
        shown = ForeignCause(f"{kind.__module__}.{kind.__qualname__}")
        shown.__traceback__ = error.__traceback__
    shown.__cause__ = cause
    shown.__context__ = None
    return shown
