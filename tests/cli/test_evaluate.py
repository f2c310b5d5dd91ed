"""`rag-index evaluate` as a user calls it."""

import json

import pytest

from tests.project import Project, run_here
from tests.search.desk import Desk

NAMES = "printer network password invoice keyboard server monitor license update backup".split()


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Two indexes whose documents are found by codes, and a golden file for them."""
    folder = tmp_path_factory.mktemp("desk")
    desk = Desk(folder, names=("comments", "titles"), extra="[retrieve]\ntimeout = 10 # short\n")
    texts = {
        index: [(n, f"The {NAMES[n % 10]} {index} reports error E-{first + n} and stops") for n in range(40)]
        for index, first in {"comments": 4100, "titles": 7100}.items()
    }
    desk.fill(texts)
    first = {"comments": 4100, "titles": 7100}
    golden = [(f"what is E-{first[i] + n}", str(n), i) for i in first for n in range(0, 40, 2)]
    lines = [
        json.dumps({"query": query, "relevant": [document], "index": index})
        for query, document, index in [*golden, ("nothing of the kind", "1", "titles")]
    ]
    (folder / "golden.jsonl").write_text("\n".join(lines))
    return desk


def run(project, *arguments, code=0):
    return run_here(project.config, "evaluate", *arguments, code=code)


def evaluated(project, *arguments, code=0):
    return json.loads(run(project, *arguments, "--json", code=code)[0])


def test_a_golden_file_is_measured_in_three_ways_of_each_index_and_of_all(desk):
    lines = run(desk, desk.folder / "golden.jsonl")[0].splitlines()
    assert lines[0].split() == ["index", "queries", "searched", "recall@10", "MRR@10", "nDCG@10"]
    heads = [" ".join(line.split()[:3]) for line in (lines[1], lines[4], lines[7])]
    assert heads == ["comments 20 dense", "titles 21 dense", "all 41 dense"]
    assert [line.split()[0] for line in lines[2:4]] == ["sparse", "hybrid"]
    assert lines[2].split()[1:5] == ["1.000", "(1.000", "to", "1.000)"]
    assert lines[3].split()[1] == "0.7"
    printed = "\n".join(lines)
    worst = "Queries that do worst in all, hybrid:\n  nothing of the kind\n      recall@10 0.00, MRR@10 0.00"
    assert worst in printed
    assert "titles: 1 not found; first: " in printed
    assert printed.count("Queries that do worst") == 1


@pytest.mark.long
def test_json_has_everything_and_more_only_when_asked(desk):
    golden = desk.folder / "golden.jsonl"
    plain = evaluated(desk, golden, "--index", "titles", "--metric", "recall@1", "--worst", "1")
    assert set(plain) == {"scopes"}
    [scope] = plain["scopes"]
    assert (scope["index"], scope["queries"], len(scope["worst"])) == ("titles", 21, 1)
    assert [(one["way"], one["dense_weight"]) for one in scope["ways"]] == [
        ("dense", 1),
        ("sparse", 0),
        ("hybrid", 0.7),
    ]
    assert scope["ways"][1]["metrics"]["recall@1"]["mean"] == pytest.approx(20 / 21, abs=1e-6)
    assert scope["worst"][0]["relevant"] == [{"index": "titles", "document_id": "1", "rank": None}]
    assert [one["index"] for one in evaluated(desk, golden)["scopes"]] == ["comments", "titles", None]


def test_queries_are_made_of_a_column(tmp_path):
    printed, progress = run(Project(tmp_path / "p").fill(40), "--query-column", "title")
    assert progress == "Indexing a sample of notes without title, in a temporary store …\n"
    assert printed.splitlines()[1].split()[:3] == ["notes", "40", "dense"]
