"""`rag-index search` and `evaluate` as a user calls them."""

import json
import os
import re
import signal
import subprocess
import time
import uuid
from contextlib import closing

import psutil
import pytest

from rag_index.components.stores import open_store
from rag_index.components.stores.edge import reader as edge_reader
from tests.project import PROGRAM, Project, run_here
from tests.search.desk import Desk
from tests.waiting import eventually

NAMES = "printer network password invoice keyboard server monitor license update backup".split()


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    return Desk(
        tmp_path_factory.mktemp("desk"),
        more={"comments": 'payload_indexes = { priority = "keyword" }'},
    ).fill()


def run(desk, *arguments, code=0):
    return subprocess.CompletedProcess([], code, *run_here(desk.config, *arguments, code=code))


def hits(desk, *arguments):
    return [
        (hit["index"], hit["document_id"])
        for hit in json.loads(run(desk, *arguments, "--json").stdout)["hits"]
    ]


def test_printed_hits(desk):
    search = ("search", "Printer offline after update", "--limit", "2", "--dense-weight", "1")
    lines = run(desk, *search).stdout.splitlines()
    assert lines[:2] == ["1.000  titles: t-1", "       Printer offline after update"]
    assert lines[2].endswith("comments: 1")
    assert len(lines) == 4


def test_a_filter_on_a_field_of_numbers_finds_the_number_or_is_refused(tmp_path):
    desk = Desk(
        tmp_path, names=("comments",), more={"comments": 'payload_indexes = { number = "integer" }'}
    )
    desk.fill({"comments": [(n, "The printer is offline", {"number": n}) for n in (1, 20, 300)]})
    search = ("search", "printer", "--index", "comments", "--filter")
    for given, numbers in (
        ("number=020,300", "20 300"),
        ("number>1.5e1", "20 300"),
        ("number!=20", "1 300"),
    ):
        assert {document for _, document in hits(desk, *search, given)} == {*numbers.split()}
    for given in ("number=soon", "number>=soon", "number!=soon"):
        refused = run(desk, *search, given, code=2)
        assert (
            "'soon' is not a number, and the field has the kind integer"
            in refused.stderr + refused.stdout
        )


def test_a_title_that_is_the_id_is_printed_once(tmp_path):
    project = Project(tmp_path).fill(2)
    project.execute("UPDATE note SET title = 'Toner', body = 'Order it' WHERE id = 1")
    project.write_settings(
        project.config.read_text().replace('key = "id"', 'key = "id"\ntitle = "title"')
    )
    project.run()
    assert (
        run_here(project.config, "search", "toner", "--limit", "1")[0]
        .splitlines()[0]
        .endswith("notes: Toner (1)")
    )
    project.write_settings(project.config.read_text().replace('key = "id"', 'key = "title"'))
    project.run("notes", full=True, allow_deletes=True)
    assert (
        run_here(project.config, "search", "toner", "--limit", "1")[0]
        .splitlines()[0]
        .endswith("notes: Toner")
    )


def test_json_has_few_keys_and_more_only_when_asked(desk):
    plain = json.loads(run(desk, "search", "printer", "--json").stdout)
    assert set(plain) == {"hits", "as_of"}
    assert set(plain["hits"][0]) == {
        "index",
        "document_id",
        "citation",
        "score",
        "relevance",
        "text",
        "chunk",
        "total_chunks",
        "payload",
        "highlights",
    }
    full = json.loads(run(desk, "search", "printer", "--json", "--explain").stdout)
    assert set(full) == {
        "hits",
        "as_of",
        "timings_ms",
        "fusion",
        "dense_weight",
        "collections",
        "reranked",
    }
    assert set(full["hits"][0]) == {
        *plain["hits"][0],
        "rank",
        "fused",
        "cosine",
        "bm25",
        "soft",
        "matched",
        "synonyms",
        "chunks",
    }
    assert {"embed", "comments", "solutions", "titles", "fuse", "total"} < set(full["timings_ms"])
    assert full["fusion"] == "score"


def test_a_page_continues_the_one_before_and_the_last_is_said(desk):
    first, second = (
        run(desk, "search", "printer", "--limit", "4"),
        run(desk, "search", "printer", "--offset", "4"),
    )
    assert (first.stderr, second.stderr) == (
        "rag-index: there are more documents: --offset 4\n",
        "",
    )
    places = [
        line
        for page in (first, second)
        for line in page.stdout.splitlines()
        if not line.startswith(" ")
    ]
    assert len(set(places)) == 7
    assert (
        run(desk, "search", "--like", "comments/1", "--offset", "6").stdout
        == "No further documents.\n"
    )
    assert (
        "offset is from 0 to 990, not 995"
        in run(desk, "search", "printer", "--offset", "995", code=2).stderr
    )


def test_what_is_corrected_collapsed_or_does_not_fit_is_said(desk):
    lines = run(desk, "search", "zzqqxx wwvvuu", "--limit", "1").stdout.splitlines()
    assert (lines[0], len(lines)) == ("Nothing fits. The nearest documents are:", 3)
    assert (
        run(desk, "search", "zzqqxx wwvvuu", "--min-relevance", "0.5").stdout == "Nothing fits.\n"
    )
    collapsed = json.loads(
        run(desk, "search", "printer", "--collapse", "priority", "--json").stdout
    )["hits"]
    values = [hit["payload"]["priority"] for hit in collapsed if "priority" in hit["payload"]]
    assert len(values) == len(set(values))
    lines = run(desk, "search", "prinetr offline", "--limit", "1", "--explain").stdout.splitlines()
    assert lines[0] == "Searched for printer instead of prinetr."
    assert "(printer, offline)" in lines[2]
    assert "; rank 1 in comments, fused by score 0." in lines[2]
    assert lines[-2].startswith("Fused by score. embed ")
    assert lines[-1].startswith("Searched: comments in desk_comments__1, ")
    assert json.loads(run(desk, "search", "prinetr", "--json").stdout)["corrected"] == {
        "prinetr": "printer"
    }
    found = run(desk, "search", "printer", "--max-age", "10 s", code=1)
    assert "is not at most 10 s old: nothing is known of how far it is" in found.stderr


def test_texts_and_keys_give_the_terminal_no_commands(tmp_path):
    text = "printer \x1b[2J\x9b31m \u202egone می\u200cخواهم"
    desk = Desk(tmp_path).fill({"titles": [("key\x1b]0;title\x07", text, {})]})
    said = run(desk, "search", "printer", "--explain").stdout
    assert "titles: key\ufffd]0;title\ufffd" in said
    assert "printer \ufffd[2J\ufffd31m \ufffdgone می\u200cخواهم" in said


def test_one_failing_index_is_reported_and_the_exit_code_is_3(tmp_path):
    desk = Desk(tmp_path / "desk", names=("comments", "titles")).fill({"titles": [(1, "printer")]})
    both = ("search", "printer", "--index", "titles", "--index", "comments")
    ended, empty = (
        run(desk, *both, code=3),
        "index comments is empty: `rag-index index comments` fills it",
    )
    first, hit, *_ = ended.stdout.splitlines()
    assert first == f"comments did not answer: {empty}. This is only what titles has."
    assert hit.endswith("titles: 1")
    assert ended.stderr == ""
    assert json.loads(run(desk, *both, "--json", code=3).stdout)["errors"] == {"comments": empty}
    assert (
        "index comments is empty"
        in run(desk, "search", "printer", "--index", "comments", code=1).stderr
    )


def test_a_time_limit_that_is_asked_for_holds_in_place_of_that_of_the_settings(tmp_path):
    desk = Desk(tmp_path / "desk", names=("titles",), extra="[retrieve]\ntimeout = 0.0001")
    desk.fill({"titles": [(1, "printer")]})
    late = run(
        desk, "search", "printer", code=1
    ).stderr  # for an answer, or for a thread that begins
    assert "after 0.0001 s" in late or "has waited 0.0 s for its turn" in late
    assert hits(desk, "search", "printer", "--timeout", "60")


def test_waiting_for_a_writer_that_hangs_can_be_interrupted(desk, monkeypatch):
    monkeypatch.setattr(edge_reader, "WRITE_SECONDS", 0.2)
    command = ["search", "printer", "--index", "titles"]
    with closing(open_store(desk.settings.store)) as store:
        store.points("desk_titles__1").delete_points(
            [str(uuid.uuid4())]
        )  # it writes in place, and does not flush
        ended = run(desk, *command, "--json", code=1)
        assert f"is being written by process {os.getpid()}" in json.loads(ended.stdout)["error"]
        waiting = subprocess.Popen(
            [*PROGRAM, "--config", str(desk.config), *command, "--wait", "60"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        used = psutil.Process(waiting.pid).cpu_times

        def waits() -> bool:
            before = used().user
            time.sleep(0.5)
            return before > 0.3 and used().user - before < 0.05

        eventually(waits, "it waits for the writer")
        waiting.send_signal(signal.SIGINT)
        _, stderr = waiting.communicate(timeout=120)
        assert (waiting.returncode, stderr.strip()) == (130, "rag-index: stopped")


def test_an_index_with_access_is_searched_for_a_group_and_otherwise_says_what_to_give(tmp_path):
    groups = {1: ["staff"], 2: ["board"], 3: []}
    rows = [
        (number, "The printer is offline", {"_rag": {"groups": some}})
        for number, some in groups.items()
    ]
    desk = Desk(
        tmp_path / "desk", names=("comments", "titles"), more={"comments": 'access = "acl"'}
    )
    desk.fill({"comments": rows, "titles": [("t-1", "Printer offline")]})
    assert sorted(hits(desk, "search", "printer", "--group", "staff")) == [
        ("comments", "1"),
        ("titles", "t-1"),
    ]
    assert len(hits(desk, "search", "printer", "--group", "staff", "--group", "board")) == 3
    assert len(hits(desk, "search", "printer", "--all-groups")) == 4
    closed = run(desk, "search", "printer", "--json")
    assert [hit["index"] for hit in json.loads(closed.stdout)["hits"]] == ["titles"]
    assert (
        closed.stderr
        == "rag-index: nothing is searched in comments, which has `access`: give --group GROUP"
        " (--role ROLE for that of the database), or --all-groups to see everything\n"
    )
    assert run(desk, "search", "printer", "--index", "comments").stdout == "Nothing found.\n"
    both = run(desk, "search", "printer", "--group", "staff", "--all-groups", code=2)
    assert "--all-groups cannot be combined with --group" in both.stderr


@pytest.fixture(scope="module")
def golden_desk(tmp_path_factory):
    """Two indexes whose documents are found by codes, and a golden file for them."""
    folder = tmp_path_factory.mktemp("desk")
    golden_desk = Desk(
        folder, names=("comments", "titles"), extra="[retrieve]\ntimeout = 10 # short\n"
    )
    first = {"comments": 4100, "titles": 7100}
    texts = {
        index: [
            (n, f"The {NAMES[n % 10]} {index} reports error E-{first[index] + n} and stops")
            for n in range(40)
        ]
        for index in first
    }
    golden_desk.fill(texts)
    golden = [(f"what is E-{first[i] + n}", str(n), i) for i in first for n in range(0, 40, 2)]
    golden.append(("nothing of the kind", "1", "titles"))
    lines = [
        json.dumps({"query": query, "relevant": [number], "index": index})
        for query, number, index in golden
    ]
    (folder / "golden.jsonl").write_text("\n".join(lines))
    return golden_desk


def evaluate(project, *arguments):
    return run_here(project.config, "evaluate", *arguments)


def evaluated(project, *arguments):
    return json.loads(evaluate(project, *arguments, "--json")[0])


def test_a_golden_file_is_measured_in_three_ways_of_each_index_and_of_all(golden_desk):
    lines = evaluate(golden_desk, golden_desk.folder / "golden.jsonl")[0].splitlines()
    assert lines[0].split() == ["index", "queries", "searched", "recall@10", "MRR@10", "nDCG@10"]
    heads = [" ".join(line.split()[:3]) for line in (lines[1], lines[4], lines[7])]
    assert heads == ["comments 20 dense", "titles 21 dense", "all 41 dense"]
    assert [line.split()[0] for line in lines[2:4]] == ["sparse", "hybrid"]
    assert (lines[2].split()[1:5], lines[3].split()[1]) == (
        ["1.000", "(1.000", "to", "1.000)"],
        "0.7",
    )
    printed = "\n".join(lines)
    assert (
        "Queries that do worst in all, hybrid:\n  nothing of the kind\n      recall@10 0.00, MRR@10"
        " 0.00" in printed
    )
    assert "titles: 1 not found; first: " in printed
    assert printed.count("Queries that do worst") == 1


@pytest.mark.long
def test_json_has_everything_and_more_only_when_asked(golden_desk):
    golden = golden_desk.folder / "golden.jsonl"
    plain = evaluated(
        golden_desk, golden, "--index", "titles", "--metric", "recall@1", "--worst", "1"
    )
    assert set(plain) == {"scopes"}
    [scope] = plain["scopes"]
    assert (scope["index"], scope["queries"], len(scope["worst"])) == ("titles", 21, 1)
    ways = [(one["way"], one["dense_weight"]) for one in scope["ways"]]
    assert ways == [("dense", 1), ("sparse", 0), ("hybrid", 0.7)]
    assert scope["ways"][1]["metrics"]["recall@1"]["mean"] == pytest.approx(20 / 21, abs=1e-6)
    assert scope["worst"][0]["relevant"] == [{"index": "titles", "document_id": "1", "rank": None}]
    assert [one["index"] for one in evaluated(golden_desk, golden)["scopes"]] == [
        "comments",
        "titles",
        None,
    ]


def test_without_queries_one_line_says_where_to_get_them(golden_desk):
    logged = golden_desk.folder / "logged.toml"
    logged.write_text(f'{golden_desk.config.read_text()}[serve]\nquery_log = "asked.jsonl"\n')
    golden = golden_desk.folder / "golden.jsonl"
    for config, arguments, said in (
        (golden_desk.config, [], r"name a golden file \(docs/evaluation.md shows one\), as in"),
        (
            golden_desk.config,
            ["--from-log"],
            r"needs \[serve\] query_log, .*: set it, or name a golden file",
        ),
        (
            logged,
            ["--from-log"],
            "no document that was opened from the page: .* or name a golden file",
        ),
        (
            golden_desk.config,
            [golden_desk.folder / "none.jsonl"],
            "golden file .* cannot be read: .*; name one that",
        ),
    ):
        printed, told = run_here(config, "evaluate", *arguments, code=2)
        assert re.fullmatch(f"rag-index: .*{said}.*\n", told)
        assert printed == ""
    both = run_here(golden_desk.config, "evaluate", golden, "--from-log", code=2)[1]
    assert "a golden file cannot be combined with --from-log" in both
