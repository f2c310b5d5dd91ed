"""The tasks of Prefect: each is a policy of retries around one call into rag_index.

`etl` has the tasks, `policies` decides when one is tried again, and `assets` describes published
collections to Prefect. This package imports `etl`, `components`, `core` and Prefect. Dask workers
import it before their first task, so it imports neither `care` nor `search` nor `watch`:
test_a_worker_imports_what_embeds_and_writes_and_no_more in tests/test_imports.py.

Rules that must hold, and the tests that fail if one does not:
- A task raises errors of ours only, without a value of the source: tests/test_quotes.py.
- Each step that `rag_index.etl.run` calls has a task in `TASKS`: tests/flows/test_index_all.py,
  whose test_the_graph_is_the_diagram also holds what waits for what.
- Names of tasks stay: tests/test_interface.py.
"""
