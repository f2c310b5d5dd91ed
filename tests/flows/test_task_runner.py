"""A person who adds a task to a flow finds Dask's workers where Prefect says that they are: at its task runner."""

import os

import pytest
from prefect import flow, task

from flows.index_collection import index_collection
from rag_index.orchestration.cluster import run_workers
from rag_index.orchestration.task_steps import flow_client
from tests.project import Project


@task
def added() -> int:
    return os.getpid()


@pytest.mark.long
def test_a_task_that_is_submitted_runs_on_the_workers_that_embed(tmp_path, prefect_server):
    settings = Project(tmp_path / "project").settings
    settings = settings.model_copy(update={"parallel": settings.parallel.model_copy(update={"workers": 1})})

    @flow(task_runner=index_collection.task_runner.duplicate())
    def enlarged() -> tuple[int, dict[str, int]]:
        with run_workers(settings):
            return added.submit().result(), flow_client().run(os.getpid)

    submitted, embedding = enlarged()
    assert [submitted] == list(embedding.values())
    assert submitted != os.getpid()
