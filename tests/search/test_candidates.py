"""Candidates in any order of weights: always what a search with that weight returns."""

from pathlib import Path

import pytest

from rag_index import Retriever
from rag_index.search.fusion import NAME_WEIGHT, ranked
from tests.etl.plain import run_plain
from tests.project import Project
from tests.search.desk import Desk, found

WORDS = "printer network password invoice keyboard server monitor license update backup account mail".split()


def texts(seed: int) -> list[tuple[int, str]]:
    """Return 150 documents of few words, some of several chunks, so that no search sees all chunks."""
    return [
        (n, " ".join(WORDS[(n * seed + k * (n % 5 + 1)) % len(WORDS)] for k in range(60 if n % 9 == 0 else 7)))
        for n in range(150)
    ]


def test_the_order_is_that_of_a_search_with_the_same_weight(embedded: Desk) -> None:
    embedded.fill({"comments": texts(3), "titles": texts(7)}, number=2)
    with embedded.retriever() as retriever:
        for query in ("printer offline", "backup of the mail server", "license", "nothing of the kind"):
            for indexes in (None, ["titles"], ["titles", "comments"]):
                candidates = retriever.run(retriever.candidates(query, indexes=indexes, limit=10))
                kept = [point.payload["_rag"] for answer in candidates.answered for point in answer.points]
                assert not any("text" in one for one in kept)
                for weight in (1.0, 0.99, 0.4, 0.05, 0.0):
                    searched = retriever.search_sync(query, indexes=indexes, limit=10, dense_weight=weight)
                    assert ranked(candidates, weight, indexes) == found(searched), (query, indexes, weight)
                    assert len(searched.hits) == 10


@pytest.mark.parametrize("chosen", [None, 0.7])
def test_a_name_in_source_code_has_the_weight_of_a_search_unless_somebody_chose_one(
    tmp_path: Path, chosen: float | None
) -> None:
    project = Project(tmp_path / "project")
    source = project.folder / "src"
    source.mkdir()
    for n, word in enumerate(WORDS):
        text = f"def read_{word}(tree):\n    '''Read a {word} of trees.'''\n    return tree.{word}\n"
        (source / f"module_{n}.py").write_text(text)
    index = '[[indexes]]\nname = "notes"\nkind = "code"\nroot = "src"\n'
    weight = "" if chosen is None else f"[retrieve]\ndense_weight = {chosen}\n"
    project.write_settings(f'{index}[embedder]\nkind = "local"\n{weight}')
    assert run_plain(project).state == "completed"
    with Retriever.from_settings(project.config) as retriever:
        candidates = retriever.run(retriever.candidates("read_printer"))
        for given, applied in ((None, chosen or NAME_WEIGHT), (1.0, 1.0), (0.7, 0.7), (0.0, 0.0)):
            searched = retriever.search_sync("read_printer", dense_weight=given)
            assert searched.dense_weight == applied
            assert ranked(candidates, given) == found(searched)
