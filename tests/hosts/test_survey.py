"""The survey of hosts: which answers agree, which are only warned about, and which error is raised."""

import logging

import pytest

from rag_index.errors import EmbedderUnavailable, ModelChanged, ModelMissing
from rag_index.hosts.survey import HostReport, agreed_report

LOG = logging.getLogger("rag_index.embedders")
FIRST = HostReport("http://a:1", "d1" * 32, 8, 2048)
SECOND = HostReport("http://b:1", "d1" * 32, 8, 2048)
DOWN = HostReport("http://c:1", error=EmbedderUnavailable("http://c:1 accepts no connection"))
MISSING = HostReport("http://d:1", error=ModelMissing("http://d:1 has no model 'm'"))


@pytest.mark.parametrize("reports", [[DOWN, MISSING], [FIRST, MISSING]])
def test_a_host_that_answers_but_cannot_be_used_is_an_error(reports):
    with pytest.raises(ModelMissing, match="http://d:1"):
        agreed_report(reports, "m", LOG)


@pytest.mark.parametrize(
    ("other", "description"),
    [
        (HostReport("http://b:1", "e2" * 32, 8), r"http://b:1 weights e2e2e2e2e2e2 \(8-d\)"),
        (HostReport("http://b:1", "d1" * 32, 12), r"http://b:1 weights d1d1d1d1d1d1 \(12-d\)"),
        (HostReport("http://b:1", "e2" * 32), r"http://b:1 weights e2e2e2e2e2e2;"),
    ],
)
def test_different_models_are_an_error(other, description):
    with pytest.raises(ModelChanged, match=rf"http://a:1 weights d1d1d1d1d1d1 .*{description}.*ollama pull m"):
        agreed_report([FIRST, other], "m", LOG)
