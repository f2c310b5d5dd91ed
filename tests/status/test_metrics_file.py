"""The metrics file for monitoring: replaced as a whole, with every index."""

from prometheus_client.parser import text_string_to_metric_families

from rag_index.care.index_status import try_to_write_metrics
from rag_index.core.reports.record import RunRecord
from rag_index.etl.opened import RunOptions, open_index
from tests.project import Project


def run_of(project: Project):
    """Record a run with an outcome in the ledger."""
    record = RunRecord("notes")
    record.outcome.new = 7
    with open_index(project.settings, "notes", RunOptions(), run_id="1") as opened:
        report = record.end(project.settings.embedder, on_server=False)
        opened.ledger.finish_run("1", state="completed", message="", report=report)


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return the values that Prometheus reads, by name and labels."""
    families = list(text_string_to_metric_families(text))
    assert {family.type for family in families} <= {"gauge"}
    assert len({family.name for family in families}) == len(families), "the samples of a metric stand together"
    found = [sample for family in families for sample in family.samples]
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in found}


def test_prometheus_reads_the_file(tmp_path):
    project = Project(tmp_path / "project", extra='[run]\nmetrics_file = "out/m.prom"')
    run_of(project)
    try_to_write_metrics(project.settings)
    file = project.folder / "out" / "m.prom"
    found = samples(file.read_text())
    index = ("index", "notes")
    assert found["rag_index_run_new", (index,)] == 7
    assert found["rag_index_run_state", (index, ("state", "completed"))] == 1
    assert found["rag_index_run_state", (index, ("state", "failed"))] == 0
    assert found["rag_index_run_stages", (index, ("stage", "other"))] >= 0
    assert found["rag_index_run_ended_timestamp_seconds", (index,)] > 1.7e9
    assert list(file.parent.iterdir()) == [file], "nothing is left beside it"
