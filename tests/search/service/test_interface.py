"""What programs, agents and people see of a search stays as it is, byte for byte, until a change is
meant."""

import json

import pytest

from tests.search.service.interface import FILE, interface


@pytest.fixture(scope="module")
def seen():
    return interface()


@pytest.mark.parametrize("part", ["answers", "openapi", "tools", "help"])
def test_nothing_changes_unmeant(seen, part):
    """`python -m tests.search.service.interface` writes the file anew; look at its diff."""
    kept = json.loads(FILE.read_text(encoding="utf-8"))[part]
    if part == "answers":
        for now, before in zip(seen[part], kept, strict=True):
            assert now == before
    assert seen[part] == kept
    assert json.dumps(seen[part]) == json.dumps(kept), "in another order"
