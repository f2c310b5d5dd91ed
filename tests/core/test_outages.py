"""A call that takes longer than a service should need is an outage, until it ends or the service answers."""

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
