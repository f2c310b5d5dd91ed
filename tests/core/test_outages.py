"""A call that takes longer than a service should need is an outage, until it ends or the service answers."""

from contextlib import suppress
from dataclasses import dataclass

import pytest

from rag_index.core.recovery import Calls


@dataclass
class Clock:
    """A clock that a test sets."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def calls(clock):
    return Calls(clock=clock)


def services(calls):
    return [outage.service for outage in calls.outages()]


def test_a_call_is_an_outage_once_its_patience_is_used_up_and_until_it_ends(calls, clock):
    with calls.asking("Qdrant", patience=5):
        clock.now += 4.9
        assert services(calls) == []
        clock.now += 0.2
        assert services(calls) == ["Qdrant"]
    assert services(calls) == []


def test_an_answer_ends_the_outage_and_may_change_the_patience(calls, clock):
    with calls.asking("Ollama", patience=5) as call:
        clock.now += 6
        call.failed(ValueError("accepts no connection"))
        assert calls.outages()[0].sentence().endswith(": accepts no connection")
        call.answered(20)
        clock.now += 19
        assert services(calls) == []
        clock.now += 1
        assert services(calls) == ["Ollama"]
        assert calls.outages()[0].reason == ""


def test_after_an_error_an_outage_is_noticed_sooner(calls, clock):
    with calls.asking("Ollama", patience=100) as call:
        clock.now += 6
        assert services(calls) == []
        call.failed("accepts no connection")
        assert services(calls) == ["Ollama"]


def test_a_service_that_answers_is_not_called_silent(calls, clock):
    def said() -> None:
        [outage] = calls.outages()
        assert outage.sentence().startswith("waiting for Qdrant since ")
        assert outage.sentence().endswith(": asks for a pause: Rate limiting exceeded")

    with suppress(ValueError), calls.asking("Qdrant", patience=10) as call:
        call.failed("asks for a pause: Rate limiting exceeded", answered=True)
        clock.now += 6
        said()
        raise ValueError("the caller gives up, and tries again")
    with calls.asking("Qdrant"):
        said()


def test_a_service_at_work_is_asked_about_early_and_told_after_the_whole_patience(calls, clock):
    with calls.asking("Ollama", patience=20) as call:
        assert not call.quiet
        clock.now += 10
        assert call.quiet
        call.at_work(True)
        clock.now += 9
        assert (services(calls), call.quiet) == ([], True)
        clock.now += 1
        assert calls.outages()[0].sentence().endswith(": it is still at work on a request")
        call.at_work(False)
        assert "Ollama does not answer" in calls.outages()[0].sentence(), "it went away meanwhile"
        call.answered()
        assert services(calls) == []


def test_a_service_that_several_calls_wait_for_is_named_once_with_the_longest_wait(calls, clock, monkeypatch):
    monkeypatch.setattr("rag_index.core.recovery.time.time", clock)
    with calls.asking("Qdrant"), calls.asking("source"):
        clock.now += 3
        with calls.asking("Qdrant"):
            clock.now += 9
            assert [(outage.service, outage.since) for outage in calls.outages()] == [("Qdrant", 100), ("source", 100)]


def give_up(calls, clock):
    with suppress(ValueError), calls.asking("Qdrant") as call:
        call.failed("refused")
        clock.now += 30
        raise ValueError("refused")


def test_an_outage_goes_on_between_the_tries_of_a_task_until_one_succeeds(calls, clock, monkeypatch):
    monkeypatch.setattr("rag_index.core.recovery.time.time", clock)
    for _ in range(3):
        give_up(calls, clock)
        clock.now += 4
        assert [(outage.service, outage.since) for outage in calls.outages()] == [("Qdrant", 100)]
    with calls.asking("Qdrant"):
        assert services(calls) == ["Qdrant"]
    assert services(calls) == []


def test_an_outage_that_nobody_waits_for_any_more_is_forgotten(calls, clock):
    give_up(calls, clock)
    clock.now += 25
    assert services(calls) == []
