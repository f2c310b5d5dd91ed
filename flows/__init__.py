"""The flows of Prefect: what runs, in which order. Deployments name them (prefect.yaml).

`index_all` runs `index_collection` for each index on one cluster of workers; `benchmark` and
`doctor` stand alone. A flow may import everything but the commands: `orchestration` has what needs
Prefect or Dask, `etl` and `care` have the work, and `tasks` has the policies.

Rules that must hold, and the tests that fail if one does not:
- A flow file holds flows and nothing else. Prefect loads it as a module without a package, so a
  Dask worker could not import a function beside the flow.
- A flow ends in its own state, whatever a platform sets for all flows (`OWN_END`):
  test_what_a_platform_sets_for_all_flows_changes_no_outcome in tests/orchestration/test_launch.py.
- A run has closed what it holds open before it waits for Prefect's server (`end_state`), so that no
  other run of the index waits for it. No test holds this order by itself.
- Names of flows and of their parameters stay: tests/test_interface.py.
"""

from rag_index.core.settings.plugins import check_own_packages

# A Prefect worker imports this package first. Another installed package may be named `tasks`, too,
# and this is the place where the error can name it.
check_own_packages()
