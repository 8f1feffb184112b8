"""The command line: a thin shell over `Lookalike`.

stdout is data, stderr is progress and messages. Exit codes: 0 done; 1 done, but pictures failed for the first time in
this run; 2 refused or stopped; 130 and 143 interrupted, after finishing and reporting what was under way.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys
from typing import Annotated, Never

import typer

from lookalike.cli import demo, index, ingest, library, precomputed, search, server
from lookalike.cli.output import say
from lookalike.errors import LookalikeError

__all__ = ["app", "main"]

app = typer.Typer(
    name="lookalike",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
app.command()(ingest.ingest)
app.command()(search.search)
app.command()(search.similar)
app.command()(search.embed)
app.command()(search.similarity)
app.add_typer(search.query, name="query")
app.command()(library.status)
app.command()(library.failures)
app.command()(library.delete)
app.command("import")(precomputed.import_vectors)
app.command()(precomputed.export)
app.add_typer(index.index, name="index")
app.add_typer(library.models, name="models")
app.command()(library.doctor)
app.add_typer(server.db, name="db")
app.command()(server.emulator)
app.command()(demo.demo)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"lookalike {importlib.metadata.version('lookalike')}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell on stderr what happens underneath.")] = False,
) -> None:
    """Image similarity search that lives in your own PostgreSQL.

    Settings come from the environment and from a file .env in the working directory.
    Try it without any account: lookalike demo
    """
    handler = _OnConsole(sparingly=not verbose)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s" if verbose else "%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("lookalike").setLevel(logging.DEBUG if verbose else logging.ERROR)
    # which identities there are not fills a screen, and our own message says what to do
    logging.getLogger("azure").setLevel(logging.WARNING if verbose else logging.CRITICAL)
    # what becomes of a connection that is lost is told in words of our own
    logging.getLogger("psycopg").setLevel(logging.WARNING if verbose else logging.CRITICAL)
    # a service that cannot be reached is called again for minutes: nobody should sit before a silent terminal
    logging.getLogger("lookalike.embedders").setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("lookalike.ingest").setLevel(logging.DEBUG if verbose else logging.WARNING)


class _OnConsole(logging.Handler):
    """Prints above a progress bar, and sparingly: many callers wait for the same reason."""

    def __init__(self, *, sparingly: bool) -> None:
        super().__init__()
        self._pause = 10.0 if sparingly else 0.0
        self._next = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message, at most every ten seconds."""
        if record.created < self._next:
            return
        if self._pause and not self._next:
            say("What may pass is tried again; Ctrl-C loses nothing.")
        self._next = record.created + self._pause
        say(self.format(record))


def main() -> Never:
    """Run the command line and exit with its code; nobody ever sees a traceback unless they ask for it."""
    sys.exit(_run())


def _run() -> int:
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except LookalikeError as error:
        say(f"lookalike: {error}")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        say("lookalike: interrupted")
        return 130
    except (BrokenPipeError, SystemExit):
        # Whoever read us has seen enough, which rich takes for an exit. Python would complain when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        # typer's own errors, of a mistyped command, know how to show themselves
        if (show := getattr(error, "show", None)) is not None:
            show()
            return 2
        if os.environ.get("LOOKALIKE_DEBUG"):
            raise
        say(
            f"lookalike: something went wrong that should not have: {type(error).__name__}: {error}\n"
            "Set LOOKALIKE_DEBUG=1 and run it again for the details that a bug report needs."
        )
        return 2
    return code if isinstance(code, int) else 0
