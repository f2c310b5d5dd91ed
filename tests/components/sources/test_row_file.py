"""The file that the rows of a query are copied into."""

from contextlib import closing

import pytest

from rag_index.components.sources.row_file import RowFile
from rag_index.errors import SourceError
from tests.components.sources.databases import open_database, read
from tests.project import Project
from tests.reliability.test_disk_and_clock import Disk


def test_a_query_gives_what_its_table_gives(request, tmp_path):
    """All types that a driver gives, once directly and once by way of the file."""
    with open_database("postgresql", request, tmp_path) as desk:
        columns = {
            "id": "uuid PRIMARY KEY", "body": "text", "at": "timestamptz", "clock": "timetz", "price": "numeric",
            "raw": "bytea", "tags": "numeric[]", "more": "jsonb", "span": "interval", "r": "tstzrange",
            "m": "int4multirange", "address": "inet", "share": "float8", "days": "date[][]", "pair": "point",
        }  # fmt: skip
        desk.run(
            f"CREATE TABLE note ({', '.join(' '.join(one) for one in columns.items())})",
            """INSERT INTO note VALUES ('00000000-0000-0000-0000-0000000000ff', 'x', '2024-05-01 12:30:00.000001+02',
               '24:00+02', 'NaN', '\\x00ff', '{1.50,NULL}', '{"z": [1e400, 0.1]}', '400 days', '[2024-05-01,)',
               '{[1,3),[5,7)}', '10.0.0.1/8', 'NaN', '{{2024-05-01},{infinity}}', '(1,2)')""",
        )
        given = {"payload": [name for name in columns if name not in ("id", "body")], "text": "body"}
        pages = [desk.source(**given, **one).page(None, 10) for one in ({}, {"query": "SELECT * FROM note"})]
        assert pages[0].documents == pages[1].documents
        for name in columns:
            given = {"text": "{body} {" + name + "}", "format": {name: "plain"}}
            assert read(desk.source(query="SELECT * FROM note", **given)) == read(desk.source(**given)), name


def test_no_table_is_held_and_the_file_has_no_name(request, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    with open_database("postgresql", request, tmp_path) as desk:
        source = desk.notes(9).source(query="SELECT * FROM note", folder=folder)
        first = source.page(None, 4)
        desk.run("ALTER TABLE note ADD COLUMN more text", "DELETE FROM note")
        assert not list(folder.iterdir())
        assert source.page(first.cursor, 4).documents == source.page(first.cursor, 4).documents, "a page is read again"
        assert source.page(source.page(first.cursor, 4).cursor, 4).documents.keys == ["9"]


@pytest.mark.mount
def test_a_disk_without_room_is_named_before_it_is_full(tmp_path):
    project = Project(tmp_path / "project")
    with Disk(project, 40) as disk:
        for expected, rows in ((100_000, 1000), (None, 10**6)):
            with closing(RowFile(disk.path)) as file:
                with pytest.raises(SourceError, match=r"need about .* MB in .* for the time of a run, and only"):
                    file.write((["x" * 1000] for _ in range(rows)), expected)
                assert file.size < 36_000_000, "others still have room"
