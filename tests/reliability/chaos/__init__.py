"""Changes by several sessions, with kills of everything, while a watch follows: nothing is lost.

    python -m tests.reliability.chaos --way postgresql --operations 200000 --kills 40

`writers` changes a service desk, `desk` has its database and index, `watcher` follows the changes,
and `trial` kills what it needs, holds answers against the history of the writers, and says what was
found.
"""
