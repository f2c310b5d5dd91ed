"""The file that the rows of a query are copied into."""

import datetime as dt
import decimal
import ipaddress
import math
import os
import signal
import stat
import uuid
from contextlib import closing

import pytest
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from rag_index.components.sources.row_file import FOLDER, RowFile, remove_leftovers
from rag_index.errors import SourceError
from tests.project import Project
from tests.reliability.test_disk_and_clock import Disk
from tests.sources.databases import open_database, read

ZONE = dt.timezone(dt.timedelta(hours=5, minutes=45))
VALUES = (
    None, True, 7, -(2**70), 0.1, -0.0, math.inf, "Über\u2028\n\ud800\0", b"\x00\xff", {"a": [1.5, None], "é": {}}, [],
    decimal.Decimal("1.50"), decimal.Decimal("-0E+3"), decimal.Decimal("NaN"), uuid.UUID(int=7), [decimal.Decimal(1)],
    dt.datetime(2024, 5, 1, 12, 30, 0, 7),  # noqa: DTZ001
    dt.datetime(1, 1, 1, tzinfo=ZONE), dt.date(2024, 5, 1), dt.time(12, tzinfo=ZONE),
    dt.timedelta(-1, 7, 9), (1, "two"), {3, 4}, [[dt.date(2024, 5, 1)], None], ipaddress.ip_interface("10.0.0.1/8"),
    Range(dt.date(2024, 5, 1), None, "[)"), Range(empty=True), Multirange([Range(1, 2)]), {"Decimal": ["Decimal", "x"]},
)  # fmt: skip


def test_a_value_of_each_type_is_read_as_it_was(tmp_path):
    with closing(RowFile(tmp_path / FOLDER)) as file:
        assert file.write([VALUES, [math.nan], ["last"]], 3) == 3
        [found, [nan], last], ends = file.page(0, 10, 10**9)
        assert (last, math.isnan(nan)) == (["last"], True)
        assert [(type(one), str(one)) for one in found] == [(type(one), str(one)) for one in VALUES]
        for one, value in zip(found, VALUES, strict=True):
            assert one == value or value != value
        assert file.page(ends[0], 1, 10**9)[0][0][0] != "last"
        assert file.page(ends[1], 1, 10**9) == ([["last"]], [file.size])
        assert [len(file.page(0, *most)[0]) for most in ((2, 10**9), (10, 1))] == [2, 1]


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


def test_no_table_is_held_and_the_file_is_private_and_gone_after_its_last_page(request, tmp_path):
    folder = tmp_path / "data" / FOLDER
    folder.parent.mkdir()
    with open_database("postgresql", request, tmp_path) as desk:
        source = desk.notes(9).source(query="SELECT * FROM note", folder=folder)
        first = source.page(None, 4)
        desk.run("ALTER TABLE note ADD COLUMN more text", "DELETE FROM note")
        [file] = folder.iterdir()
        assert [stat.S_IMODE(one.stat().st_mode) for one in (folder, file)] == [0o700, 0o600]
        assert source.page(first.cursor, 4).documents == source.page(first.cursor, 4).documents, "a page is read again"
        assert source.page(source.page(first.cursor, 4).cursor, 4).documents.keys == ["9"]
        assert not folder.exists()


def test_a_sample_copies_no_more_rows_than_it_looks_at(request, tmp_path):
    with open_database("postgresql", request, tmp_path) as desk:
        source = desk.notes(9).source(query="SELECT * FROM note", first=4)
        assert len(source.page(None, 100).documents) == 4


@pytest.mark.mount
def test_a_disk_without_room_is_named_before_it_is_full(tmp_path):
    project = Project(tmp_path / "project")
    with Disk(project, 40) as disk:
        folder = disk.path / FOLDER
        for expected, rows in ((100_000, 1000), (None, 10**6)):
            with closing(RowFile(folder)) as file:
                with pytest.raises(SourceError, match=r"need about .* MB in .*queries for the time of a run, and only"):
                    file.write((["x" * 1000] for _ in range(rows)), expected)
                assert file.size < 36_000_000, "others still have room"
        assert not folder.exists()


def test_what_a_killed_process_left_is_removed_and_what_another_reads_is_not(tmp_path):
    folder = tmp_path / FOLDER
    child = os.fork()
    if not child:
        file = RowFile(folder)
        file.write([["left"]], 1)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(list(folder.iterdir())) == 1
    with closing(RowFile(folder)) as file:
        file.write([["kept"]], 1)
        remove_leftovers(folder)
        assert file.page(0, 10, 10**9)[0] == [["kept"]]
        assert len(list(folder.iterdir())) == 1
    assert not folder.exists()
