"""The entry point of the program. Until the module that reports errors is imported, Ctrl-C ends it
without a message."""

import _signal  # type: ignore[import-not-found]  # importing `signal` takes as long as Python itself


def main() -> None:
    """Run the command line, and exit."""
    # SIGINT is not ignored on purpose: its default handler would print a traceback.
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from rag_index.cli import main as run

    run()


if __name__ == "__main__":
    main()
