"""When Prefect tries a task again, and how a state tells what ended one."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import httpx
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from rag_index.core.recovery import may_try_again, said_of_try
from rag_index.errors import RagIndexError, TerminalError
from rag_index.etl.interruption import stop_in
from rag_index.quotes import LEFT_OUT, described, without_messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task


PICKLED = ("distributed.protocol.pickle", "distributed.core")
"""Loggers of Dask that write what they could not read: 10,000 bytes of a pickled shard, or a whole message."""
P = ParamSpec("P")
T = TypeVar("T")


def _leaves_out_values(record: logging.LogRecord) -> bool:
    """Leave out each argument that is no text and no number, such as the bytes of a pickled shard."""
    if isinstance(record.args, tuple):
        record.args = tuple(one if isinstance(one, str | int) else LEFT_OUT for one in record.args)
    elif record.args is not None:  # logging takes one argument that is a dictionary for the names in the message
        record.args = (LEFT_OUT,)
    return True


for _name in PICKLED:  # workers that others have started import this, too, with their first task
    logging.getLogger(_name).addFilter(_leaves_out_values)


def may_be_tried(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Return whether a task that failed is tried again, and log who is away, why, and which try it was. Errors carry
    how long that may go on: decorators are evaluated before the settings are known."""
    error, began = error_of(state), (run.start_time or state.timestamp).timestamp()
    again, logger = may_try_again(error, run.run_count, began), get_run_logger()
    (logger.warning if again else logger.error)("%s", said_of_try(error, run.run_count, began))
    return again


@contextmanager
def only_our_errors(step: str) -> Iterator[None]:
    """Raise errors of ours alone, without the messages of what caused them: for the body of a flow or a task.

    Prefect logs and keeps such an error with its causes, and a message of others may quote a text or a row. An error of
    Prefect's own client, and a Ctrl-C within another error, are raised as they are.
    """
    try:
        yield
    except (httpx.HTTPError, PrefectException):
        raise
    except RagIndexError as error:
        if stop_in(error) is not None:
            raise
        raise error from without_messages(error.__cause__)
    except Exception as error:
        if stop_in(error) is not None:
            raise
        raise TerminalError(f"{step} failed: {described(error)}") from without_messages(error)


def only_ours(step: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator for the call of a task: `only_our_errors` around it. Dask pickles the call with its task, and
    cannot pickle a context manager."""

    def decorate(call: Callable[P, T]) -> Callable[P, T]:
        @wraps(call)
        def carry_out(*args: P.args, **kwargs: P.kwargs) -> T:
            with only_our_errors(step):
                return call(*args, **kwargs)

        return carry_out

    return decorate


def error_of(state: State[Any]) -> BaseException | None:
    """Return the exception that a failed state carries, None if it carries none."""
    data = getattr(state.data, "result", state.data)
    return data if isinstance(data, BaseException) else None
