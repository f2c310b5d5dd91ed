"""The outcome of a run: its documented keys, its sentence, its exit code."""

import pytest

from rag_index.core.reports.outcome import IndexOutcome, RunReport


def outcome(index="notes", **given):
    return IndexOutcome(index, **given)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "notes: 0 documents: nothing changed in 0.0 s"),
        ({"documents": 9, "unchanged": 9, "seconds": 1.26}, "notes: 9 documents: nothing changed in 1.3 s"),
        (
            {"documents": 1234, "new": 1000, "changed": 4, "unchanged": 100, "chunks_embedded": 2000},
            "notes: 1,234 documents: 1,000 new, 4 changed, 100 unchanged, 2,000 chunks embedded in 0.0 s",
        ),
        (
            {"documents": 7, "payload_only": 1, "empty": 3, "deleted": 2, "failed": 1, "message": "1 failed"},
            "notes: 7 documents: 1 payload only, 3 empty, 2 deleted, 1 failed in 0.0 s (1 failed)",
        ),
        ({"state": "failed", "message": "the source is down", "new": 5}, "notes: failed: the source is down"),
    ],
)
def test_the_sentence_of_an_outcome(given, sentence):
    assert outcome(**given).sentence() == sentence


@pytest.mark.parametrize(
    ("states", "state", "code"),
    [
        ([], "completed", 0),
        (["completed", "completed"], "completed", 0),
        (["completed", "partial"], "partial", 3),
        (["partial", "failed", "completed"], "failed", 1),
    ],
)
def test_the_worst_index_decides_state_and_exit_code(states, state, code):
    report = RunReport([outcome(str(i), state=s) for i, s in enumerate(states)])
    assert (report.state, report.exit_code) == (state, code)


def test_wrong_settings_are_exit_code_2_only_if_nothing_else_is_wrong():
    wrong = outcome(state="failed", error_class="SourceError")
    assert RunReport([wrong, wrong]).exit_code == 2
    assert RunReport([wrong, outcome(state="failed", error_class="KeyError")]).exit_code == 1
    assert RunReport([wrong, outcome()]).exit_code == 1


def test_the_sentence_of_a_run_names_the_indexes_that_failed():
    report = RunReport(
        [
            outcome("comments", new=1000, changed=1, payload_only=1, unchanged=5, deleted=2),
            outcome("titles", failed=3, state="partial", message="3 documents failed"),
            outcome("logs", state="failed", message="there is no table 'log'"),
        ]
    )
    assert report.sentence() == (
        "logs failed: there is no table 'log'; 3 indexes: 1,002 documents indexed, 3 failed, 2 deleted, 5 unchanged; "
        "titles: 3 documents failed"
    )
    alone = outcome("logs", state="failed", message="index logs: there is no table 'log'")
    assert RunReport([alone]).sentence() == "index logs: there is no table 'log'"
    assert RunReport([outcome()]).sentence() == "1 index: no documents"
    assert RunReport([outcome(new=1)]).sentence().startswith("1 index: 1 document indexed")
