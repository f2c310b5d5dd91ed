"""Golden files: what can be read, and what is refused and how."""

import pytest

from rag_index.errors import SettingsError
from rag_index.search.evaluation.golden import GoldenQuery, read_golden


@pytest.fixture
def golden(tmp_path):
    def write(content, name="golden.jsonl"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refusal(*arguments):
    with pytest.raises(SettingsError) as refused:
        read_golden(*arguments)
    return str(refused.value)


def test_queries_of_a_file_that_was_edited_elsewhere(golden):
    path = golden(
        '\ufeff{"query": "größe", "relevant": [118, -3, "7"]}\r\n\r\n  \n'
        '{"query":"b","relevant":["[1,2]"],"index":"x"}\n'
        '{"query": "q", "relevant": {"a": 1, "b": 3, "none": 0}}\n{"query": "q", "relevant": ["c"], "index": "x"}\n'
        '{"query": "q", "relevant": {"a": 2, "b": 1, "d": 1}, "note": "asked on the phone"}\n'
    )
    assert read_golden(path) == [
        GoldenQuery("größe", {"118": 1, "-3": 1, "7": 1}),
        GoldenQuery("b", {"[1,2]": 1}, "x"),
        GoldenQuery("q", {"a": 2, "b": 3, "d": 1}),
        GoldenQuery("q", {"c": 1}, "x"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query": "q", "relevant": ["1"]', "Invalid JSON"),
        ('["q"]', "it is '[\"q\"]': Input should be an object; write {"),
        ('{"relevant": ["1"]}', "query is missing"),
        ('{"query": " ", "relevant": ["1"]}', "query is ''"),
        ('{"query": "q", "relevant": []}', "relevant is '[]'"),
        ('{"query": "q", "relevant": ["1", true]}', "True is no document's id"),
        ('{"query": "q", "relevant": [1.5, ""]}', "1.5 is no document's id"),
        ('{"query": "q", "relevant": {"a": -1}}', "relevant.a is '-1'"),
        ('{"query": "q", "relevant": {"a": 0}}', "no document with a grade above 0"),
        ('{"query": "q", "relevant": ["1"], "index": ""}', "index is ''"),
        ('{"query": "q", "relevant": ["1"], "indx": "x"}', "indx is 'x'"),
    ],
)
def test_a_wrong_line_is_named_with_its_number_and_value(golden, line, message):
    path = golden(f'{{"query": "fine", "relevant": ["1"]}}\n\n{line}\n')
    refused = refusal(path)
    assert refused.startswith(f"{path}, line 3: ")
    assert message in refused
    assert len(refused) < len(str(path)) + 250
