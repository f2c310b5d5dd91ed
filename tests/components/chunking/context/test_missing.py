"""Missing contexts: answers that cannot be used, servers that fail, and the effect on other chunks."""

import pytest

from rag_index.core.documents.batches import ContextCounts
from rag_index.errors import EmbedderUnavailable, ModelChanged, RateLimited
from tests.components.chunking.context.conftest import numbered, page
from tests.fakes.ollama import TOO_LONG

MARKED = {"path": "/api/generate", "marker": "number 001 of a text.\n</passage"}
BAD = [  # test_answer.py has all reasons
    ({"response": ""}, "the answer is empty"),
    ({"response": "cut off in the mid", "done_reason": "length"}, "too long"),
]


@pytest.mark.parametrize(("options", "reason"), BAD)
def test_an_answer_that_cannot_be_used_leaves_its_chunk_without_context(server, make_chunker, options, reason):
    server.fault("generated", path="/api/generate", marker="number 001 of a text.\n</passage", **options)
    (document,) = make_chunker(server).chunk(page(numbered(3)))
    assert document.contexts[1] == ""
    assert document.contexts[0]
    assert document.contexts[2]
    assert document.incomplete.startswith("1 of 3 chunks have no context: ")
    assert reason in document.incomplete
    assert document.context_counts == ContextCounts(made=2, missing=1)
    asked = [r for r in server.generates() if "number 001 of a text.\n</passage" in r.texts[0]]
    assert [r.body["options"]["temperature"] for r in asked] == [0]


def test_a_bad_answer_is_not_cached(server, make_chunker):
    server.fault("generated", path="/api/generate", response="", times=3)
    chunker = make_chunker(server)
    assert chunker.chunk(page(numbered(3)))[0].context_counts == ContextCounts(missing=3)
    assert chunker.chunk(page(numbered(3)))[0].context_counts == ContextCounts(made=3)


def test_a_model_that_did_not_read_all_of_the_question_gives_no_context(server, make_chunker):
    """Each sign is a token here, twice the estimate: the server's count shows that it left something out."""
    server.chars_per_token = 1.0
    (document,) = make_chunker(server, num_ctx=1024).chunk(page(numbered(60)))
    assert document.context_counts == ContextCounts(missing=60)
    assert "and 874 fit" in document.incomplete


def test_a_question_that_is_refused_as_too_long_costs_its_chunk_the_context(server, make_chunker):
    server.fault("status", **MARKED, code=400, words=TOO_LONG)
    (document,) = make_chunker(server).chunk(page(numbered(3)))
    assert document.context_counts == ContextCounts(made=2, missing=1)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (("status", {"code": 500, "words": "boom"}), "answers 500: boom"),
        (("hang", {"seconds": 2}), "gave no answer within 1 s"),
        (("reset", {}), "broke the connection"),
        (("generated", {"response": 7}), "JSON that Ollama would not return"),
    ],
)
def test_a_chunk_that_a_server_fails_at_costs_no_other_context(server, make_chunker, fault, reason):
    kind, options = fault
    server.fault(kind, **MARKED, **options)
    (document,) = make_chunker(server, timeout=1.0, patience=20.0).chunk(page(numbered(6)))
    assert [bool(context) for context in document.contexts] == [True, False, True, True, True, True]
    assert reason in document.incomplete


def test_servers_that_do_not_recover_fail_the_shard_and_written_contexts_are_kept(server, make_chunker):
    pause = {"code": 429, "headers": {"Retry-After": "100"}}
    server.fault("status", path="/api/generate", marker="number 003 of a text.\n</passage", **pause)
    with pytest.raises(RateLimited, match="no host could be used"):
        make_chunker(server, requests_in_flight=1).chunk(page(numbered(6)))
    server.clear()
    (document,) = make_chunker(server, requests_in_flight=2).chunk(page(numbered(6)))
    assert document.context_counts == ContextCounts(made=3, cached=3)
    assert len(server.generates()) == 3


def test_a_server_that_answers_everything_but_questions_counts_as_down(server, make_chunker):
    """A wedged server still says which models it has. No chunk is blamed for it."""
    server.fault("hang", path="/api/generate", seconds=3)
    with pytest.raises(EmbedderUnavailable, match=r"gave no answer within 0\.3 s"):
        make_chunker(server, timeout=0.3, patience=0.6).chunk(page(numbered(3)))


def test_another_model_under_the_same_name_is_refused(server, make_chunker):
    chunker = make_chunker(server)
    server.digest = "e2" * 32
    with pytest.raises(ModelChanged, match="but the run began with weights"):
        chunker.chunk(page(numbered(3)))
