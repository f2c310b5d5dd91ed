"""The metrics of a run, the advice that follows, and its outcome: documented keys, its sentence,
its exit code."""

import json

import pytest

from rag_index.core.documents.batches import WrittenShard
from rag_index.core.documents.work import Work
from rag_index.core.reports.metrics import Stopwatch, advice
from rag_index.core.reports.outcome import IndexOutcome, RunReport
from rag_index.core.settings import EmbedderSettings
from tests.waiting import Clock

LOCAL = EmbedderSettings()
MORE = "more requests at once (requests_in_flight)"
VLLM = EmbedderSettings(kind="openai", model="m", url="http://a:1")
FEW = EmbedderSettings(kind="openai", model="m", url="http://a:1", requests_in_flight=1)


def outcome(index="notes", **given):
    return IndexOutcome(index, **given)


def test_the_stages_add_up_to_the_whole_run_and_an_inner_one_is_not_counted_twice():
    clock = Clock(0)
    watch = Stopwatch(clock)
    clock.now = 3
    with watch.stage("diff"):
        clock.now = 4
        with watch.stage("fetch"):
            clock.now = 6
        clock.now = 7
    watch.count_rest("start")
    clock.now = 8
    with watch.stage("wait"):
        clock.now = 18
    clock.now = 22
    assert list(watch.stages().items()) == [
        ("start", 3),
        ("fetch", 2),
        ("diff", 2),
        ("wait", 10),
        ("other", 5),
    ]
    ended = outcome(
        seconds=22.0, workers=2, first_shard_after=8.0, shards=1, work=Work(seconds=18.0)
    )
    assert ended.utilisation == pytest.approx(18 / 28)


def test_what_a_run_does_seldom_is_one_of_its_stages():
    for stage in ("words", "gate", "erase"):
        clock = Clock()
        watch = Stopwatch(clock)
        with watch.stage(stage):
            clock.now += 5
        assert watch.stages() == {stage: 5, "other": 0}


def ollama(*hosts: str, **more) -> EmbedderSettings:
    return EmbedderSettings(
        kind="ollama", model="m", hosts=list(hosts or ["http://127.0.0.1:11434"]), **more
    )


def busy(*, took=100.0, **work) -> IndexOutcome:
    """Return the outcome of a run whose workers were busy nearly all the time."""
    return outcome(
        documents=1000,
        seconds=took,
        workers=2,
        first_shard_after=0.0,
        shards=9,
        work=Work(**{"seconds": 195.0, "embed_seconds": 190.0, **work}),
        stages={"fetch": 1.0, "upsert": 2.0, "wait": 90.0},
    )


def asked(seconds: float) -> IndexOutcome:
    return busy(requests=400, asked_seconds=seconds)


def idle(values: dict | None = None, **stages: float) -> IndexOutcome:
    """Return the outcome of a run whose workers were busy for a third of the time."""
    ended = busy(**{"seconds": 60.0, "embed_seconds": 55.0, **(values or {})})
    ended.stages = {
        "fetch": 1.0,
        "diff": 1.0,
        "submit": 1.0,
        "upsert": 1.0,
        "commit": 1.0,
        "wait": 5.0,
        **stages,
    }
    return ended


def with_outage(ended: IndexOutcome, seconds: float) -> IndexOutcome:
    """Return the outcome of a run that waited so much longer for a service that did not answer."""
    ended.seconds += seconds
    ended.outage_seconds = seconds
    ended.stages["wait"] += seconds
    return ended


@pytest.mark.parametrize(
    ("ended", "embedder", "expected"),
    [
        (outcome(documents=10), ollama(), "nothing had to be embedded"),
        (
            busy(requests=100, retries=40, rate_limited=9),
            ollama(),
            "40 of 100 requests had to be repeated, 9 because",
        ),
        (busy(contexts_made=9, chunk_seconds=150.0), ollama(), "writing contexts took 77%"),
        (busy(embed_seconds=50.0), LOCAL, "74% of that on chunking, not embedding"),
        (busy(), LOCAL, "workers busy 98%: the embedder is the bottleneck; more processors"),
        (busy(), ollama(), "1 embedding server: more at a time is not faster, since Ollama"),
        (
            busy(),
            ollama("http://a:1", "http://b:1", "http://c:1"),
            "3 embedding servers: more at a time",
        ),
        (busy(), VLLM, "1 embedding server: one more, on another GPU"),
        (busy(), FEW, f"1 embedding server: {MORE}, or one more, on another GPU"),
        (
            asked(98.0),
            VLLM,
            "server, asked for 98% of the time, 0.24 s a request: one more, on another GPU",
        ),
        (
            asked(60.0),
            VLLM,
            f"asked for 60% of the time, 0.15 s a request: more workers, or {MORE}",
        ),
        (idle(fetch=70.0), LOCAL, "reading the source took 70%"),
        (idle(diff=60.0), LOCAL, "comparing with the ledger took 60%"),
        (idle(upsert=60.0), LOCAL, "writing took 60%: a Qdrant server"),
        (idle(start=60.0), LOCAL, "start took 60% of the time"),
        (idle(commit=60.0), LOCAL, "writing the ledger took 60%"),
        (
            idle(submit=60.0),
            LOCAL,
            "submit took 60% of the time: larger shards (parallel.shard_documents)",
        ),
        (idle(wait=60.0), LOCAL, "workers busy 30%: the embedder is the bottleneck"),
        (
            idle({"write_seconds": 110.0}, wait=60.0),
            LOCAL,
            "workers busy 30%, because they waited for the store: wri",
        ),
        (
            idle({"write_seconds": 40.0}, wait=60.0),
            LOCAL,
            "workers busy 30%: the embedder is the bottleneck",
        ),
        (
            idle({"write_seconds": 110.0}, upsert=100.0, wait=0.0),
            LOCAL,
            "writing took 100%: a Qdrant server",
        ),
        (idle({"took": 5.0, "seconds": 1.0}), LOCAL, "too small for a cluster"),
        (
            with_outage(busy(), 400.0),
            LOCAL,
            "workers busy 98%: the embedder is the bottleneck; more processors",
        ),
        (
            with_outage(asked(98.0), 400.0),
            VLLM,
            "asked for 98% of the time, 0.24 s a request: one more, on another GPU",
        ),
        (
            with_outage(idle(fetch=70.0), 400.0),
            LOCAL,
            "workers busy 30%, reading the source took 70%",
        ),
    ],
)
def test_the_advice_names_the_bottleneck_and_the_remedy(ended, embedder, expected):
    assert expected in advice(ended, embedder)
    on_server = advice(idle(upsert=60.0), LOCAL, on_server=True)
    assert "writing took 60%: a faster disk or more processors for Qdrant" in on_server, (
        "it writes to a server already"
    )


def test_the_sentence_of_an_outcome():
    for given, sentence in (
        ({}, "notes: 0 documents: nothing changed in 0.0 s"),
        (
            {"documents": 9, "unchanged": 9, "seconds": 1.26},
            "notes: 9 documents: nothing changed in 1.3 s",
        ),
        (
            {
                "documents": 1234,
                "new": 1000,
                "changed": 4,
                "unchanged": 100,
                "work": Work(chunks=2000),
            },
            (
                "notes: 1,234 documents: 1,000 new, 4 changed, 100 unchanged, 2,000 chunks embedded"
                " in 0.0 s"
            ),
        ),
        (
            {
                "documents": 7,
                "payload_only": 1,
                "empty": 3,
                "deleted": 2,
                "failed": 1,
                "message": "1 failed",
            },
            "notes: 7 documents: 1 payload only, 3 empty, 2 deleted, 1 failed in 0.0 s (1 failed)",
        ),
        (
            {"state": "failed", "message": "the source is down", "new": 5},
            "notes: failed: the source is down",
        ),
    ):
        assert outcome(**given).sentence() == sentence


def test_the_worst_index_decides_state_and_exit_code_and_wrong_settings_are_2_if_nothing_else_is_wrong():
    for states, state, code in (
        ([], "completed", 0),
        (["completed", "completed"], "completed", 0),
        (["completed", "partial"], "partial", 3),
        (["partial", "failed", "completed"], "failed", 1),
    ):
        report = RunReport([outcome(str(i), state=s) for i, s in enumerate(states)])
        assert (report.state, report.exit_code) == (state, code)
    wrong = outcome(state="failed", error_class="SourceError")
    assert RunReport([wrong, wrong]).exit_code == 2
    assert RunReport([wrong, outcome(state="failed", error_class="KeyError")]).exit_code == 1
    assert RunReport([wrong, outcome()]).exit_code == 1


def test_the_sentence_of_a_run_names_the_indexes_that_failed():
    comments = outcome("comments", new=1000, changed=1, payload_only=1, unchanged=5, deleted=2)
    titles = outcome("titles", failed=3, state="partial", message="3 documents failed")
    logs = outcome("logs", state="failed", message="there is no table 'log'")
    assert (
        RunReport([comments, titles, logs]).sentence()
        == "logs failed: there is no table 'log'; 3 indexes: 1,002 documents indexed, 3 failed, 2"
        " deleted, 5 unchanged; titles: 3 documents failed"
    )
    alone = outcome("logs", state="failed", message="index logs: there is no table 'log'")
    assert RunReport([alone]).sentence() == "index logs: there is no table 'log'"
    assert RunReport([outcome()]).sentence() == "1 index: no documents"
    without_text = RunReport([outcome(empty=2), outcome(empty=1, skipped=4)])
    assert without_text.sentence() == "2 indexes: 3 empty, 4 skipped"
    assert RunReport([outcome(new=1)]).sentence().startswith("1 index: 1 document indexed")


def test_why_an_index_is_partial_is_said_before_what_else_a_person_should_know():
    outcome = IndexOutcome("notes", message="its model is unknown")
    outcome.hold("2 documents failed")
    assert (outcome.state, outcome.message) == (
        "partial",
        "2 documents failed; its model is unknown",
    )


def test_the_keys_of_a_run_keep_their_names_order_and_values():
    """Programs read them from `--json`, the ledger, and Prefect's artifacts."""
    work = Work(
        seconds=10.0,
        embed_seconds=6.0,
        chunk_seconds=3.0,
        asked_seconds=5.5,
        write_seconds=1.25,
        texts=5,
        chars=900,
        chunks=7,
        reused=2,
        requests=4,
        retries=1,
        rate_limited=1,
        contexts_made=3,
        contexts_cached=2,
        contexts_missing=1,
    )
    ended = outcome(
        workers=2,
        first_shard_after=1.0,
        outage_seconds=2.0,
        workers_died=1,
        stages={"start": 1.0, "fetch": 2.0},
    )
    ended.add(WrittenShard(1, ["1", "2"], [b"", b""], [b"", b""], [4, 3], [], work), new=1)
    ended.documents, ended.seconds, ended.deleted = 2, 20.0, 1
    ended.say("a sentence")
    assert (
        json.dumps(ended.to_json())
        == '{"index": "notes", "documents": 2, "new": 1, "changed": 1, "payload_only": 0,'
        ' "unchanged": 0, "empty": 0, "failed": 0, "message": "a sentence", "deleted": 1,'
        ' "chunks_embedded": 5, "contexts_made": 3, "contexts_cached": 2, "contexts_missing": 1,'
        ' "seconds": 20.0, "state": "completed"}'
    )
    assert (
        json.dumps(ended.metrics())
        == '{"documents": 2, "seconds": 20.0, "workers": 2, "workers_died": 1, "stages": {"start":'
        ' 1.0, "fetch": 2.0}, "write_seconds": 1.25, "first_shard_after": 1.0, "outage_seconds":'
        ' 2.0, "shards": 1, "chunks": 7, "embed_seconds": 6.0, "texts": 5, "reused": 2,'
        ' "requests": 4, "retries": 1, "rate_limited": 1, "asked_seconds": 5.5, "chars": 900,'
        ' "chunk_seconds": 3.0, "contexts_made": 3, "contexts_cached": 2, "contexts_missing": 1,'
        ' "worker_seconds": 10.0, "utilisation": 0.294}'
    )
