"""What others rely on by name has not changed unnoticed."""

import json

import pytest

from tests.interface import FILE, collect


@pytest.fixture(scope="module")
def found():
    return json.loads(json.dumps(collect()))


@pytest.mark.parametrize("kind", json.loads(FILE.read_text(encoding="utf-8")))
def test_names_that_others_rely_on_are_as_written(found, kind):
    """`python -m tests.interface` writes the file anew: what changed in it, changed for users."""
    written = json.loads(FILE.read_text(encoding="utf-8"))
    assert found[kind] == written[kind]
    assert found.keys() == written.keys()
