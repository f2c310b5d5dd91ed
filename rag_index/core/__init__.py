"""The terms that all packages share, and the machine below them.

`documents` has batches, keys, canonical payloads, point ids and vectors; `settings` the model of
the settings file; `machine` this process; `reports` progress, metrics and outcome of a run.
`connections`, `database`, `files`, `query_log` and `recovery` wrap HTTP, SQL drivers, files and
retries. It imports only the top-level modules `errors`, `quotes` and `redaction` of this project
(`lint-imports`), and neither Prefect nor Dask.

These must hold:
- Equal documents have equal hashes and point ids on any machine (`tests/core/test_canonical.py`).
- No `repr` and no message has a text of a document (`tests/core/test_sizes.py`,
  `tests/test_quotes.py`), and none has a secret (`tests/test_redaction.py`).
- A replaced file has the old or the new content after a crash (`tests/core/test_files.py`).
"""
