"""A service that does not answer at the start: a command says so at once, and waits if it is told to."""

from tests.fakes.qdrant import FakeQdrant
from tests.project import Project, run_here


def test_a_command_asks_a_server_again_only_if_it_is_told_to_wait(tmp_path):
    with FakeQdrant() as qdrant:
        project = Project(tmp_path / "project", extra=f'[store]\nurl = "{qdrant.url}"\n').fill(3)
        fault = qdrant.break_next(status=503, times=3)
        out, _ = run_here(project.config, "index-all", code=1)
        assert f"Qdrant at {qdrant.url} answered 503" in out
        assert fault.times, "it was asked once or twice"
        run_here(project.config, "index-all", "--wait", "3")
        assert not fault.times
