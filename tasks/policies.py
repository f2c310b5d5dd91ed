"""When Prefect tries a task again, and which errors a task or a flow raises."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import httpx
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from rag_index.core.recovery import may_try_again, retry_message
from rag_index.errors import RagIndexError, TerminalError
from rag_index.etl.interruption import stop_in
from rag_index.quotes import LEFT_OUT, described, without_messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task


PICKLED = ("distributed.protocol.pickle", "distributed.core")
"""Loggers of Dask that log data that they could not read: 10,000 bytes of a pickled shard, or a
complete message."""
P = ParamSpec("P")
T = TypeVar("T")


def _leaves_out_values(record: logging.LogRecord) -> bool:
    """Replace each argument that is neither text nor number, such as the bytes of a shard."""
    if isinstance(record.args, tuple):
        shown = [arg if isinstance(arg, str | int) else LEFT_OUT for arg in record.args]
        record.args = tuple(shown)
    elif record.args is not None:
        # A single dictionary, which logging takes for the names in the message.
        record.args = (LEFT_OUT,)
    return True


# At import, so that workers of a shared cluster do it, too: with their first task.
for _name in PICKLED:
    logging.getLogger(_name).addFilter(_leaves_out_values)


def may_be_tried(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Return whether a failed task is tried again, and log that with the service and its error.

    The error has the seconds for which it is retried (`TransientError.wait`): a decorator is
    evaluated before the settings are known.
    """
    error = error_of(state)
    start = run.start_time or state.timestamp
    began = start.timestamp()
    is_retried = may_try_again(error, run.run_count, began)
    level = logging.WARNING if is_retried else logging.ERROR
    get_run_logger().log(level, "%s", retry_message(error, run.run_count, began))
    return is_retried


@contextmanager
def only_our_errors(step: str) -> Iterator[None]:
    """Raise errors of ours only, without the messages of their causes. For a flow or a task.

    Prefect logs and stores an error with its causes, and the message of a foreign error may quote a
    text or a row.

    Args:
        step: What the block does, for the message: "embed" makes "embed failed: …".
    """
    try:
        yield
    except (httpx.HTTPError, PrefectException):
        # Prefect's own client: the server does not answer, or refuses.
        raise
    except RagIndexError as error:
        # A Ctrl-C inside another error ends the run.
        if stop_in(error) is not None:
            raise
        raise error from without_messages(error.__cause__)
    except Exception as error:
        if stop_in(error) is not None:
            raise
        # Foreign: "embed failed: KeyError in chunker.py, line 17".
        message = f"{step} failed: {described(error)}"
        raise TerminalError(message) from without_messages(error)


def only_ours(step: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator that puts `only_our_errors` around the call of a task.

    Dask pickles the call with its task, and cannot pickle a context manager.
    """

    def decorate(call: Callable[P, T]) -> Callable[P, T]:
        @wraps(call)
        def carry_out(*args: P.args, **kwargs: P.kwargs) -> T:
            with only_our_errors(step):
                return call(*args, **kwargs)

        return carry_out

    return decorate


def error_of(state: State[Any]) -> BaseException | None:
    """Return the exception of a failed state; None if it has none."""
    data = getattr(state.data, "result", state.data)
    return data if isinstance(data, BaseException) else None
