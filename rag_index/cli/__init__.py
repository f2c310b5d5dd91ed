"""The command line. Each command is a few lines: settings, one call into rag_index or a flow, and the printing.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 partial.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from rag_index.errors import RagIndexError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rag_index.settings import Settings

__all__ = ["Context", "command", "main", "print_json"]


COMMANDS = (
    "init",
    "sample",
    "index",
    "index_all",
    "rebuild",
    "retry_failed",
    "status",
    "failed",
    "report",
    "plan",
    "search",
    "optimize",
    "rollback",
    "doctor",
    "export",
    "move",
    "config",
    "benchmark",
    "tune",
    "automations",
)
"""Modules of this package, one a command, in the order in which help shows them."""


@dataclass(slots=True)
class Context:
    """What every command has from the options before it."""

    config: str | None
    debug: bool
    verbose: bool

    def settings(self, **overrides: Any) -> Settings:
        """The settings file's, with what this call does differently. Raises SettingsError."""
        from rag_index.settings import run_settings

        return run_settings(self.config, **overrides)


class _Ordered(click.Group):
    """Lists commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Ordered, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", metavar="FILE", help="The settings file [RAG_INDEX_CONFIG, or rag-index.toml here or above].")
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
@click.option("--verbose", is_flag=True, help="Show what Prefect and Dask log.")
@click.version_option(package_name="rag-index")
@click.pass_context
def program(context: click.Context, config: str | None, debug: bool, verbose: bool) -> None:
    """Keep a Qdrant search index true to a relational source."""
    context.obj = Context(config, debug, verbose)


def command(name: str | None = None) -> Callable[[Callable[..., Any]], click.Command]:
    """A command of the program, given the `Context` first."""

    def add(function: Callable[..., Any]) -> click.Command:
        return program.command(name)(click.pass_obj(function))

    return add


def print_json(value: dict[str, Any]) -> None:
    """One object on standard output."""
    click.echo(json.dumps(value, ensure_ascii=False))


def main(arguments: list[str] | None = None) -> None:
    """The entry point: runs a command, and turns an error into one line and an exit code."""
    for module in COMMANDS:
        import_module(f"rag_index.cli.{module}")
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = program.main(given, prog_name="rag-index", standalone_mode=False)
    except click.exceptions.Abort:
        code = _said("stopped", given, 130)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except KeyboardInterrupt:
        code = _said("stopped; the next run goes on from here", given, 130)
    except BrokenPipeError:
        sys.stderr.close()
        code = 1
    except RagIndexError as error:
        if "--debug" in given:
            raise
        code = _said(str(error), given, error.exit_code)
    except Exception as error:
        if "--debug" in given:
            raise
        code = _said(f"unexpected {type(error).__name__}: {error}; --debug shows where", given, 1)
    sys.exit(code if isinstance(code, int) else 0)


def _said(message: str, arguments: list[str], code: int) -> int:
    line = " ".join(message.split())
    if "--json" in arguments:
        print_json({"error": line})
    click.echo(f"rag-index: {line}", err=True)
    return code
