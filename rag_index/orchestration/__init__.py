"""All that needs Prefect or Dask and is neither a flow nor a task.

`index_run` opens a run of an index in a flow run. `task_steps` decides which task carries out which
step of it, on which process, and what it waits for; `cluster` has the Dask workers, and `liveness`
notices if they die. `reporting` has artifacts and final states, `stopping` cancelled runs, and
`api_outage` a Prefect server that does not answer. `launch` has the runs that the command line
starts without Prefect.

This package imports everything below it but no flow; only it, `tasks` and `flows` import Prefect
and Dask. `make lint` fails otherwise.

Orders that must hold, and the tests that fail if one does not:

- deletes, publishing and erasing wait for all shards: test_the_graph_is_the_diagram in
  tests/flows/test_index_all.py
- vectors of a run with a server never pass through the flow:
  test_vectors_go_from_the_workers_to_a_qdrant_server_and_never_to_the_flow in
  tests/flows/test_clusters.py
- a run closes what it holds open before it reports its end to Prefect: `end_state` in `reporting`
"""
