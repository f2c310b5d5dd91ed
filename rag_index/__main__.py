"""Where the program begins. Until what reports an end is imported, Ctrl-C ends it without a
word."""

import _signal  # type: ignore[import-not-found]  # importing `signal` takes as long as Python itself


def main() -> None:
    """Run the command line, and exit."""
    if (
        _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
    ):  # and it is not ignored on purpose
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from rag_index.cli import main as run

    run()


if __name__ == "__main__":
    main()
