"""Outages of Prefect's server in the log: what is one outage, when it has ended, and how often one
is reported."""

import logging

import pytest
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from rag_index.orchestration.api_outage import ApiOutage, _LostEvents

HEADERS = "http11.receive_response_headers.complete"
FAILED = "connection.connect_tcp.failed"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def outage(clock, monkeypatch):
    outage = ApiOutage(clock)
    monkeypatch.setattr("rag_index.orchestration.api_outage._observe_clients", lambda: None)
    return outage


@pytest.fixture
def lines(outage):
    """The lines of the run's log."""
    lines = []

    class Log:
        def warning(self, message, *values):
            lines.append(message % values)

        info = warning

    outage.follow(Log())
    return lines


def answer(observed, status):
    observed.trace(HEADERS, {"return_value": (b"HTTP/1.1", status, b"", [])})


BEGIN = "Prefect's server does not answer (status 503): the run waits for it where it needs it"


def end(seconds):
    return f"Prefect's server answers again after {seconds} s, and the run goes on"


def test_a_request_that_is_repeated_is_one_outage(outage, lines, clock):
    """Prefect's client sends it after 2, 4, 8, 16, 32 and 64 seconds, and longer if its settings
    say so."""
    with outage.observed() as observed:
        for number in range(1, 10):
            answer(observed, 503)
            assert lines == [BEGIN][: number > 2], number
            clock.now += 2.0**number
        answer(observed, 201)
    assert lines == [BEGIN, end(1022)]


def test_an_answer_over_http_2_has_its_status_first(outage, lines, clock):
    with outage.observed() as observed:
        clock.now += 5
        observed.trace("http2.receive_response_headers.complete", {"return_value": (503, [])})
    assert lines == [BEGIN]


def test_another_request_that_is_answered_ends_no_outage_while_one_waits(outage, lines, clock):
    with outage.observed() as first:
        for seconds in (0, 2, 4, 8):
            clock.now += seconds
            answer(first, 503)
            with outage.observed() as second:
                answer(second, 200)
        assert lines == [BEGIN]
        answer(first, 200)
    assert lines == [BEGIN, end(14)]


def test_requests_that_are_sent_once_find_an_outage_together(outage, lines, clock):
    """Such as those for the progress, and whether the run is cancelled: none of them waits."""
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        for _ in range(5):
            with outage.observed() as observed:
                observed.trace(FAILED, {"exception": OSError("refused")})
            clock.now += 3
        assert lines == [
            "Prefect's server does not answer (refused): the run waits for it where it needs it"
        ]
        with outage.observed() as observed:
            answer(observed, 404)
    assert lines[1:] == [end(15)], "a server that refuses does answer"


def test_a_request_that_gets_no_answer_at_all_is_an_outage(outage, lines, clock):
    with outage.observed() as observed:
        clock.now += 60
        observed.trace("http11.receive_response_headers.failed", {"exception": TimeoutError()})
    assert lines == [
        "Prefect's server does not answer (TimeoutError): the run waits for it where it needs it"
    ]


def test_an_attempt_that_fails_alone_is_no_outage(outage, lines, clock):
    """A database that is locked, or a connection that was idle for too long."""
    for _ in range(100):
        with outage.observed() as observed:
            observed.trace(
                "http11.receive_response_headers.failed", {"exception": OSError("closed")}
            )
            answer(observed, 503)
            clock.now += 2
            answer(observed, 200)
        clock.now += 2
    assert lines == []


def test_a_server_that_fails_again_and_again_is_reported_once_a_minute(outage, lines, clock):
    for _ in range(50):
        with outage.observed() as observed:
            for _ in range(3):
                answer(observed, 503)
                clock.now += 2
            answer(observed, 200)
    assert 2 * 4 <= len(lines) <= 2 * 6, lines
    assert lines[:2] == [BEGIN, end(6)]


def test_the_next_run_of_a_process_reports_its_own_outage(outage, lines, clock):
    for _ in range(2):
        outage.follow(outage._log)
        with outage.observed() as observed:
            clock.now += 5
            answer(observed, 503)
    assert lines == [BEGIN, BEGIN]


def test_events_that_do_not_reach_the_server_have_one_line_and_quote_none():
    keep, secret = _LostEvents(), "an event with a name in it"
    message = "Service %r failed to process item %r"
    records = [
        logging.LogRecord("x", logging.ERROR, "x", 1, message, ("EventsWorker", secret), None)
        for _ in range(9)
    ]
    other = logging.LogRecord("x", logging.ERROR, "x", 1, "another message", (), None)
    assert [keep.filter(record) for record in (other, *records, other)] == [
        True,
        True,
        *[False] * 8,
        True,
    ]
    assert secret not in records[0].getMessage()
