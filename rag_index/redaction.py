"""The secrets that this process knows, and `redacted`, which masks them in all that is said.

Every message of an error of ours passes it (`RagIndexError`), and every record of any logger, with
its traceback: libraries repeat what they were given. Whatever reads a secret calls `keep_secret` or
`keep_url`; settings do so by their type (`Secret`), which a worker that is sent them unpickles.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from html import escape
from numbers import Number
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

MASK = "***"
MIN_SECRET = 4
"""Shorter secrets are masked only where an address or an option has them: they stand in any message
by chance."""
MIN_ANYWHERE = 12
"""Shorter secrets of letters and digits are masked as whole words, since they may be a part of
others."""
PLAIN_WORDS = frozenset(
    (
        "access",
        "admin",
        "database",
        "default",
        "false",
        "host",
        "index",
        "ledger",
        "localhost",
        "none",
        "null",
        "password",
        "public",
        "reader",
        "secret",
        "source",
        "store",
        "test",
        "token",
        "true",
        "user",
        "username",
    )
)
"""Words of our own messages. As a secret they are masked only where an address or an option has
them."""
FILE_OPTIONS = frozenset(("passfile", "ssl_key", "sslkey"))
"""Options of a URL that name a file, although they are called like secrets."""
FOREIGN_VARIABLES = frozenset(
    (
        "HF_TOKEN",
        "MYSQL_PWD",
        "PGPASSWORD",
        "PREFECT_API_AUTH_STRING",
        "PREFECT_API_KEY",
        "PREFECT_SERVER_API_AUTH_STRING",
    )
)
"""Secrets that libraries take from the environment by themselves."""
_OPTION = re.compile(r"[?&]([^?=&\s]+)=([^&\s#]+)")


def is_secret(option: str) -> bool:
    """Return whether the name of an option says that its value is secret."""
    named = any(word in option.lower() for word in ("pass", "pwd", "secret", "token", "key"))
    return named and option.lower() not in FILE_OPTIONS


class _Known:
    """The secrets of a process, and one pattern that finds all their forms."""

    def __init__(self) -> None:
        self._forms: dict[str, bool] = {}  # whether the form may be masked wherever it stands
        self.pattern: re.Pattern[str] | None = None

    def add(self, secret: str, *, shown: bool) -> None:
        everywhere = len(secret) >= MIN_SECRET and not shown and secret.lower() not in PLAIN_WORDS
        before = dict(self._forms)
        for form in _forms_of(secret):
            self._forms[form] = everywhere or self._forms.get(form, False)
        if self._forms != before:
            longest = sorted(self._forms, key=len, reverse=True)
            self.pattern = re.compile(
                "|".join(_pattern_of(form, self._forms[form]) for form in longest)
            )


_KNOWN = _Known()
"""The only global: a message may be made in whatever object and thread, and a library knows none of
ours."""


def redacted(text: str) -> str:
    """Return a text with a mask in place of each secret that this process knows."""
    return text if _KNOWN.pattern is None else _KNOWN.pattern.sub(MASK, text)


def keep_secret(secret: str, *, shown: Iterable[str | None] = ()) -> None:
    """Mask a secret from now on, in what this process says and logs. One that equals what is
    `shown` beside it, as where user and password are one word, is masked only where an address or
    an option has it."""
    if secret.strip():
        if _KNOWN.pattern is None:
            _redact_logs()
        _KNOWN.add(secret, shown=secret in shown)


def keep_url(url: str) -> None:
    """Mask the password of an address from now on, and the values of its options that are named
    like secrets. Both are known as they are written there and as they are meant."""
    scheme, _, rest = url.strip().partition("://")
    authority = re.split("[/?#]", rest)[0]
    places = [
        authority.rpartition("@"),
        *([] if scheme.startswith("http") else [rest.partition("@")]),
    ]
    for userinfo, at, shown in places:  # a database's password may have any sign but @
        user, _, password = (userinfo if at else "").partition(":")
        login = f"{unquote(user)}:{unquote(password)}".encode("utf-8", "replace")
        for form in (password, unquote(password), unquote_plus(password)):
            keep_secret(form, shown=(unquote(user), *re.split("[:/@?&=]", shown)))
        keep_secret(b64encode(login).decode() if password else "")
    for name, value in _OPTION.findall(rest):
        if is_secret(unquote(name)):
            for form in (value, unquote(value), unquote_plus(value)):
                keep_secret(form)


def keep_environment(environ: Mapping[str, str]) -> None:
    """Mask the secrets that libraries take from the environment, and those of the proxies that it
    names."""
    for name, value in environ.items():
        if name.upper() in FOREIGN_VARIABLES:
            keep_secret(value.strip())
        elif name.upper().endswith(("_PROXY", "_URL")):
            keep_url(value)


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an error and of what caused it, as Python prints it, without a
    secret."""
    return redacted("".join(traceback.format_exception(error)))


def _forms_of(secret: str) -> Iterator[str]:
    """Yield how addresses, HTML, JSON and Python write a secret."""
    encoded = [quote(secret, safe=safe) for safe in ("", "/", " +")] + [quote_plus(secret)]
    yield from (
        secret,
        *encoded,
        *(re.sub("%..", lambda sign: sign[0].lower(), form) for form in encoded),
    )
    yield from (
        escape(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    )
    yield from (repr(secret)[1:-1], repr(secret.encode("utf-8", "surrogateescape"))[2:-1])


def _pattern_of(form: str, everywhere: bool) -> str:
    written = re.escape(form)
    if not everywhere:
        return rf"(?:(?<=[:=])|(?<=[:=]['\"])){written}(?=[@&\s'\"]|$)"
    if len(form) < MIN_ANYWHERE and form.isalnum():
        return rf"(?:(?<![^\W_])|(?<=\\[nrt])){written}(?![^\W_])"
    return written


@cache
def _redact_logs() -> None:
    """From the first call on, redact each record of a log as it is made, whichever logger and
    handler it is for."""
    make = logging.getLogRecordFactory()

    def make_redacted(*given: Any, **more: Any) -> logging.LogRecord:
        record = make(*given, **more)
        record.msg = _said(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(map(_said, record.args))
        elif record.args:
            record.args = {name: _said(value) for name, value in record.args.items()}
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and (text := traceback_of(error)) != "".join(
            traceback.format_exception(error)
        ):
            record.exc_text = text.rstrip("\n")  # a formatter takes it in place of its own
        return record

    logging.setLogRecordFactory(make_redacted)


class _Said:
    """A value of a record, redacted once it is formatted."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return redacted(str(self._value))

    def __repr__(self) -> str:
        return redacted(repr(self._value))


def _said(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    return value if value is None or isinstance(value, Number) else _Said(value)
