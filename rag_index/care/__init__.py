"""Care for indexes: the status, the plan of a run, the check-up with its repair, the benchmark,
exports, and the effective settings.

The package may import core, components, `rag_index.etl` and `rag_index.search`. Nothing but
the command line, `rag_index.orchestration` and the flows may import it. These rules hold:

- `status` and `plan` change nothing, and work while a run holds the embedded store
  (tests/care/test_status.py, tests/care/test_plan.py).
- `doctor` examines and repairs an index only under its lease. A collection of the store gets its id
  in the ledger last, once all of its documents are there, so that no run uses it before
  (tests/care/doctor/test_deaths.py).
- A repair deletes points only after the source was read to its end (tests/care/doctor).
"""
