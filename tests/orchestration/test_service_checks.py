"""What a run learns about its services: it waits for each once, and asks again what may have changed."""

import pytest

from rag_index.core.machine import Policy
from rag_index.errors import EmbedderUnavailable, SourceUnavailable, TransientError
from rag_index.etl.checks import Question, ServiceChecks


class Service:
    """A service whose answers a test sets; each takes `seconds` of the clock."""

    def __init__(self):
        self.now = 0.0
        self.seconds = 1.0
        self.asked = 0
        self.error = None

    def clock(self):
        return self.now

    def ask(self):
        self.asked += 1
        self.now += self.seconds
        if self.error is not None:
            raise self.error
        return f"answer {self.asked}"


def answer_of(checks, service, *, kept=False):
    question = Question("embedder", service.ask, Policy(), kept=kept)
    return checks.ask([question], lambda name, ask, policy: ask())["embedder"]


@pytest.fixture
def service():
    return Service()


@pytest.mark.parametrize(("wait", "seconds", "asked"), [(0.0, 7.0, 5), (600.0, 250.0, 3)])
def test_a_service_that_refuses_is_asked_again_until_that_has_cost_too_much(service, wait, seconds, asked):
    checks = ServiceChecks(wait, clock=service.clock)
    service.seconds, service.error = seconds, EmbedderUnavailable("refused")
    for _ in range(10):
        with pytest.raises(TransientError):
            answer_of(checks, service)
    assert service.asked == asked


def test_an_answer_is_remembered_until_an_index_fails(service):
    checks = ServiceChecks(clock=service.clock)
    assert [answer_of(checks, service, kept=True) for _ in range(3)] == ["answer 1"] * 3
    checks.index_failed(SourceUnavailable("away"), embedder_only=True)
    assert answer_of(checks, service, kept=True) == "answer 2"


@pytest.mark.parametrize(("embedder_only", "asked"), [(True, 1), (False, 2)])
def test_an_embedder_that_goes_silent_in_the_middle_is_waited_for_once_in_a_run(service, embedder_only, asked):
    """An index whose contexts are written by a model has two services that may be silent: both are asked again."""
    checks = ServiceChecks(clock=service.clock)
    answer_of(checks, service, kept=True)
    service.error = EmbedderUnavailable("no host could be used within 600 s")
    checks.index_failed(service.error, embedder_only=embedder_only)
    with pytest.raises(TransientError, match="within 600 s"):
        answer_of(checks, service, kept=True)
    assert service.asked == asked
