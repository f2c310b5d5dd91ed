"""Flows: what runs, in which order. A flow file holds flows and nothing else."""

from rag_index.core.settings.plugins import check_own_packages

check_own_packages()  # a worker of Prefect imports them: only here it can say that `tasks` is another package
