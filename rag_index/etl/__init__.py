"""One run of one index: scan, diff, shards, embedding, commit, deletes, publishing.

Begin with `run`, which has the order of the steps; `steps` lists them with their files. `opened`
has what a run holds open, `window` decides how many shards are under way and finds a document that
crashes its process, `commit` keeps the order of writes, and `deletes` has the delete guard.

This package imports `components` and `core`, and neither `search` nor Prefect: a caller gives a run
its search as `publish.Hooks`, and its tasks as `steps.Steps`. Its files import each other only in
the order of `[tool.importlinter]` in pyproject.toml, and `make lint` fails otherwise.

Orders that must hold, and where their tests are named:

- pending documents > points > stale chunks > commit mark > ledger's rows: `commit`
- nothing is deleted before the last page was read and the delete guard agreed: test_delete_guard.py
- the alias moves after all checks of a rebuilt collection, in one step: test_publish.py
- a kill after any step leaves what the next run completes: tests/reliability/test_every_step.py
"""
