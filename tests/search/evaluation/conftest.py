"""Projects that evaluations are tested on; they are filled once, and tests only read them."""

import pytest

from tests.search.conftest import short_idle
from tests.search.desk import Desk

__all__ = ["short_idle"]

TOPICS = "printer network password invoice keyboard server monitor license update backup".split()


def codes(kind, offset):
    """Return documents that mean nearly the same and differ in a code."""
    return [(n, f"The {TOPICS[n % 10]} {kind} reports error E-{offset + n} and stops after a while") for n in range(60)]


@pytest.fixture(scope="package")
def codes_desk(tmp_path_factory):
    """Two indexes of 60 documents that are found by their codes, and hardly by their meaning."""
    desk = Desk(tmp_path_factory.mktemp("codes"), names=("comments", "titles"))
    return desk.fill({"comments": codes("upstairs", 4100), "titles": codes("downstairs", 7100)})
