"""The log of a deployed run: it ends with the message of the run's final state."""

from __future__ import annotations

import logging

from prefect.exceptions import CancelledRun, FailedRun, UnfinishedRun

LOGGER = "prefect.flow_runs"


class _RaisedState(logging.Filter):
    """A filter for the stack that Prefect's engine logs as it raises a final state which a flow has returned."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for a record that only repeats the final state."""
        return not (record.exc_info and isinstance(record.exc_info[1], FailedRun | CancelledRun | UnfinishedRun))


def end_with_state() -> None:
    """Let the log of this process end with the sentence of the run's state: call it as the flow returns that state.

    For a state other than Completed the engine would go on to log an "unexpected exception" with a stack of 45 lines,
    all of it Prefect's own. There is nobody to catch that exception in a process that a worker has started.
    """
    logger = logging.getLogger(LOGGER)
    if not any(isinstance(one, _RaisedState) for one in logger.filters):
        logger.addFilter(_RaisedState())
