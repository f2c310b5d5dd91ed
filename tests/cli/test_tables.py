"""Tables on the terminal."""

from __future__ import annotations

from rag_index.cli import print_table


def test_numbers_and_missing_numbers_are_aligned_to_the_right(capsys):
    print_table([("index", "collection", "documents"), ("notes", "-", "1,234"), ("others", "test_others__1", "-")])
    assert capsys.readouterr().out.splitlines() == [
        "index   collection      documents",
        "notes   -                   1,234",
        "others  test_others__1          -",
    ]
