"""The table `[serve]` of a settings file."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated

from pydantic import AfterValidator, Field

from rag_index.settings.values import Number, Section, Whole

MAX_PORT = 65_535


def _check_origin(value: str) -> str:
    if not re.fullmatch(r"https?://[^/\s*@]+", value):
        raise ValueError(f"{value!r} is not an origin; write it as https://intranet.example.com, without a path")
    return value.lower()


def _check_host(value: str) -> str:
    if not re.fullmatch(r"[^/\s:@*]+|\[[0-9A-Fa-f:.]+\]", value):
        raise ValueError(f"{value!r} is not the name of a host; write it without scheme and port")
    return value.lower()


Origin = Annotated[str, AfterValidator(_check_origin)]
HostName = Annotated[str, AfterValidator(_check_host)]


class ServeSettings(Section):
    """`[serve]`: where `rag-index serve` listens, who may ask, and how much."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """The address to listen on. Any other than this machine's own (127.0.0.1, ::1, localhost) needs tokens."""
    port: Whole = Field(default=8765, ge=0, le=MAX_PORT)
    """The port to listen on; 0 takes a free one."""
    tokens: list[str] = Field(default=[])
    """Who may ask: a line for each token, as `rag-index serve --new-token NAME` prints it, with the token's hash."""
    tokens_file: Path | None = None
    """A file with such lines. It is read again when it changes."""
    hosts: list[HostName] = Field(default=[])
    """The names under which others reach the service, such as that of a reverse proxy. Other names are refused."""
    cors: list[Origin] = Field(default=[])
    """The origins of other web pages that may ask from a browser."""
    timeout: Number = Field(default=30.0, gt=0)
    """The time limit of a request, in seconds."""
    max_body_bytes: Whole = Field(default=100_000, gt=0)
    """The maximum size of a request's body."""
    max_requests: Whole = Field(default=256, ge=1)
    """The maximum number of requests that are answered at the same time; more are told to come back."""
    rate_limit: Number = Field(default=100.0, ge=0)
    """How many requests a second each token (without tokens: each address) may make on average; 0 means any number."""
    log_queries: bool = False
    """Whether the log names what is searched for."""
