"""The command line. A command loads the settings, makes one call into rag_index, and prints the
result. It may import every package, but only inside functions: each command pays for its own
imports.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 partial (`tests/docs/test_commands.py`).
"""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import re
import signal
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rag_index.core.machine import collect_seldom
from rag_index.errors import RagIndexError, SettingsError, printable
from rag_index.quotes import described, without_messages
from rag_index.redaction import keep_secret, redacted, traceback_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rag_index.core.settings import Settings

COMMAND_GROUPS = {
    "Begin": {"try": "trial", "init": "settings", "sample": "settings", "config": "settings"},
    "Run": {
        "plan": "status",
        "index-all": "runs",
        "rebuild": "runs",
        "rollback": "runs",
        "watch": "runs",
    },
    "Look": {"status": "status"},
    "Search": dict.fromkeys(("search", "verify", "serve", "mcp"), "search"),
    "Repair": dict.fromkeys(("doctor", "erase", "drop", "export"), "runs"),
    "Measure": {"evaluate": "search", "benchmark": "runs"},
}
"""The commands in the order of the help, each with the module of this package that has it."""
COMMANDS: dict[str, str] = {}
"""The module of each command."""
for _group in COMMAND_GROUPS.values():
    COMMANDS.update(_group)
SECOND_NAMES = {"index": "index-all"}
NO_NUMBER = "-"
"""A cell of a table without a value. A column of it alone is aligned like text."""
_NUMBER = re.compile(r"[\d,.]+%?|-")


@dataclass(slots=True)
class Context:
    """The options given before the command."""

    config: str | None
    verbose: bool

    def settings(self, **overrides: Any) -> Settings:
        """Load the settings file and apply `overrides`, ignoring those that are None. Raises
        SettingsError."""
        with collect_seldom():  # imports create many objects, and no cycles that could be freed
            from rag_index.core.settings import run_settings
        return run_settings(self.config, **overrides)


class _Commands(click.Group):
    """The commands of `COMMANDS`. The module of a command is imported when it is called, since most
    commands need little."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for text in args:
            # Half a surrogate pair. An embedder or a database would refuse it less clearly.
            if text.encode(errors="replace").decode() != text:
                raise click.UsageError(
                    f"{text!a} is not valid Unicode; check the terminal's encoding", ctx
                )
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        cmd_name = SECOND_NAMES.get(cmd_name, cmd_name)
        # A mistyped name: click suggests a command among all.
        modules = set(COMMANDS.values())
        if cmd_name in COMMANDS:
            modules = {COMMANDS[cmd_name]}
        for module in modules:
            import_module(f"rag_index.cli.{module}")
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, group in COMMAND_GROUPS.items():
            rows: list[tuple[str, str]] = []
            for name in group:
                found = self.get_command(ctx, name)
                if found:
                    rows.append((name, found.get_short_help_str(200)))
            with formatter.section(title):
                formatter.write_dl(rows, col_max=14)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  rag-index try postgresql+psycopg://reader@db.example.org/servicedesk
  rag-index search "the printer prints blank pages" --limit 3""",
)
@click.option(
    "--config",
    metavar="FILE",
    help="The settings file [RAG_INDEX_CONFIG, or rag-index.toml here or above].",
)
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
@click.option("--verbose", is_flag=True, help="Show the log.")
@click.version_option(package_name="rag-index")
@click.pass_context
def program(context: click.Context, config: str | None, verbose: bool) -> None:
    """Keep a Qdrant index in sync with a relational database."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        if config is None or not Path(config).is_absolute():
            raise SettingsError(
                "the folder that this is run in was deleted: change to another, or name the"
                " settings by --config and their whole path"
            ) from error
        os.chdir(Path(config).parent)
    context.obj = Context(config, verbose)


FILE = click.Path(dir_okay=False, path_type=Path)


class IntegerOption(click.IntRange):
    """A whole number within limits. Messages of click show its name."""

    name = "whole number"


class Number(click.FloatRange):
    """A number within limits. Messages of click show its name."""

    name = "number"


POSITIVE = IntegerOption(min=1)

name_argument = click.argument("name", metavar="INDEX")
names_argument = click.argument("names", nargs=-1, metavar="[INDEX]…")
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on standard output."
)
wait_option = click.option(
    "--wait",
    type=Number(min=0),
    metavar="SECONDS",
    help="How long to wait for services that are down, or a store in use.",
)


api_key_option = click.option(
    "--api-key-env",
    metavar="VAR",
    help="The environment variable that holds that server's API key.",
)


def api_key_in(variable: str | None) -> str | None:
    """Return the key in the environment variable of `api_key_option`, and register it for
    redaction. Raises UsageError if the variable is not set, or has a character that no header
    accepts."""
    if variable is None:
        return None
    from rag_index.core.settings.parts import header_key

    try:
        key = header_key(os.environ.get(variable, ""))
    except ValueError as error:
        raise click.UsageError(f"--api-key-env: the key in {variable} {error}") from None
    if not key:
        raise click.UsageError(
            f"--api-key-env names {variable}, which is not set or is empty; set it to the API key"
        )
    keep_secret(key)
    return key


def options(*given: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a decorator that adds these options, in this order."""

    def add(function: Any) -> Any:
        for option in reversed(given):
            function = option(function)
        return function

    return add


parallel_options = options(
    click.option("--workers", type=POSITIVE, metavar="N", help="Number of Dask worker processes."),
    click.option("--shard-documents", type=POSITIVE, metavar="N", help="Documents per shard."),
    click.option("--serial", is_flag=True, help="Use one process and no Dask cluster."),
)


def search_options(verb: str) -> Callable[[Any], Any]:
    """Return a decorator with the options of every command that searches. `verb` is what the
    command does with an index, such as "Search"."""
    index = repeated("--index", "indexes", f"{verb} only this index", metavar="INDEX")
    return options(index, wait_option, json_option)


def caller_options(groups: str) -> Callable[[Any], Any]:
    """Return a decorator with the options of the caller, except `--all-groups`. The function gets
    a `caller`. `groups` is the help of `--group`."""

    def add(function: Any) -> Any:
        @wraps(function)
        def call(
            *given: Any, groups: Sequence[str], role: str | None, claims: Sequence[str], **more: Any
        ) -> Any:
            from rag_index.search import Caller

            found: dict[str, str] = {}
            for claim in claims:
                name, equal, value = claim.partition("=")
                if not (name and equal):
                    raise click.UsageError("--claim is NAME=VALUE, such as --claim tenant_id=7")
                found[name] = value
            named = frozenset(group for group in groups if group)
            caller = Caller("command line", named, role or "", found, local=True)
            return function(*given, caller=caller, **more)

        return call

    return options(
        repeated("--group", "groups", groups, metavar="GROUP"),
        click.option(
            "--role",
            metavar="ROLE",
            help="Ask as this role of a database that decides who sees what.",
        ),
        repeated("--claim", "claims", "A claim of the caller", metavar="NAME=VALUE"),
        add,
    )


def repeated(option: str, name: str, help_text: str, **more: Any) -> Callable[[Any], Any]:
    """Return an option that may be given several times."""
    text = f"{help_text} (may be repeated)."
    return click.option(option, name, multiple=True, help=text, **more)


def command(
    name: str | None = None,
    *,
    example: str,
    quiet: bool = False,
    begins: str = "",
    endless_without: str = "",
    kept: str = "stopped",
) -> Callable[[Callable[..., Any]], click.Command]:
    """Return a decorator that makes a function a command of the program. The function gets the
    `Context` first.

    Args:
        name: The name of the command; by default that of the function.
        example: The end of the command's help, without `rag-index`.
        quiet: Whether the command is no run. It then shows the progress of its longer work, and
            reports which service it waits for.
        begins: A line that is printed before anything that takes long is imported.
        endless_without: The option without which the command has no end. Ctrl-C is then no error.
        kept: The message after Ctrl-C.
    """

    def add(function: Callable[..., Any]) -> click.Command:
        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            if begins:
                say(begins, err=True)
            try:
                if not quiet:
                    return function(*arguments, **options)
                from rag_index.core.reports.progress import shown

                with shown(name or function.__name__, _say_outage):
                    return function(*arguments, **options)
            except KeyboardInterrupt:
                if endless_without and not options[endless_without]:
                    return 0
                raise KeyboardInterrupt(kept) from None

        epilog = f"\b\nExample:\n  rag-index {example}"
        return program.command(name, epilog=epilog)(click.pass_obj(call))

    return add


def _say_outage(sentence: str) -> None:
    say(f"rag-index: {sentence}", err=True)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns. The first row is the header; columns of numbers are aligned to the
    right."""
    columns: list[list[str]] = []
    for head, *cells in zip(*rows, strict=True):
        column = [head, *cells]
        width = max(map(len, column))
        is_numeric = all(map(_NUMBER.fullmatch, cells)) and set(cells) != {NO_NUMBER}
        if is_numeric:
            columns.append([cell.rjust(width) for cell in column])
        else:
            columns.append([cell.ljust(width) for cell in column])
    for row in zip(*columns, strict=True):
        say("  ".join(row).rstrip())


def say(text: str, *, err: bool = False) -> None:
    """Print text for a person, without characters that a terminal would obey: a part of it may be
    foreign."""
    click.echo(printable(text), err=err)


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on standard output, dataclasses as objects with their fields."""
    text = json.dumps(value, ensure_ascii=False, default=asdict)
    # A character that a terminal would obey is escaped: \u202e.
    if printable(text) != text:
        text = json.dumps(value, default=asdict)
    click.echo(text)


class LogLines(logging.Formatter):
    """Lines of a log, without characters that a terminal would obey."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s | %(levelname)-7s | %(name)s - %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return printable(super().format(record))


def log_to_terminal(logger: logging.Logger) -> None:
    """Write the records of this logger to standard error."""
    handler = logging.StreamHandler()
    logger.addHandler(handler)
    handler.setFormatter(LogLines())


def show(value: dict[str, Any], *lines: str, as_json: bool) -> None:
    """Print the result of a command: one JSON object, or lines for a person."""
    if as_json:
        print_json(value)
    else:
        for line in lines:
            say(line)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit. An error becomes one line on standard error and an exit code."""
    # Child processes must not import from the current folder.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    _end_by_sigterm()
    # Otherwise Python looks for cycles among all imports at exit, a tenth of the time of `status`.
    atexit.register(gc.freeze)
    given = sys.argv[1:] if arguments is None else arguments
    try:
        # `rag_index.__main__` has set the default, and Ctrl-C is reported from now on.
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = program.main(given, prog_name="rag-index", standalone_mode=False)
    except click.exceptions.Abort as error:  # click raises it for Ctrl-C
        code = _print_error(str(error.__cause__ or "") or "stopped", given, 130)
    except click.ClickException as error:
        if "--json" in given:
            print_json({"error": " ".join(error.format_message().split())})
        error.show()
        code = error.exit_code
    except KeyboardInterrupt:
        code = _print_error("stopped; the next run resumes from here", given, 130)
    except BrokenPipeError:  # `rag-index export … | head`
        sys.stderr.close()
        code = 1
    except RagIndexError as error:
        _print_traceback(error, given)
        code = _print_error(str(error), given, error.exit_code, error_class=type(error).__name__)
    except Exception as error:  # noqa: BLE001 - a person gets one line, and --debug all
        _print_traceback(error, given)
        code = _print_error(f"unexpected {described(error)}; --debug shows the traceback", given, 1)
    sys.exit(code if isinstance(code, int) else 0)


def _end_by_sigterm() -> None:
    """Let SIGTERM end the imports, which take seconds, like Ctrl-C, unless it is ignored on
    purpose."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        with suppress(ValueError):  # another thread than the main one
            signal.signal(signal.SIGTERM, signal.default_int_handler)


def _print_traceback(error: Exception, arguments: list[str]) -> None:
    """Print the traceback of an error with --debug, without foreign messages: they may have a
    secret, or the text of a document."""
    if "--debug" in arguments:
        shown = without_messages(error)
        say(traceback_of(shown or error), err=True)


def _print_error(message: str, arguments: list[str], code: int, **more: str) -> int:
    """Print the message as one line, with --json also as an object that includes `more`, and return
    the exit code."""
    line = " ".join(redacted(message).split())
    if "--json" in arguments:
        print_json({"error": line, **more})
    say(f"rag-index: {line}", err=True)
    return code
