"""`lookalike db` and `lookalike emulator`: the servers."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from lookalike.cli.output import say, settings
from lookalike.errors import ConfigurationError
from lookalike.store.database import Database
from lookalike.store.embedded import EmbeddedServer
from lookalike.store.rights import grant as grant_rights

db = typer.Typer(no_args_is_help=True, help="The database: the private server, or one of your own.")


@db.command()
def start() -> None:
    """Start the private PostgreSQL, and make its data if there is none. Every command does this by itself."""
    given = settings()
    if given.database_url is not None:
        raise ConfigurationError("A database URL is set: that server is yours to start.")
    with Database.open(given, announce=say) as database:
        say(f"The private PostgreSQL runs: {database.place}")


@db.command()
def stop() -> None:
    """Stop the private PostgreSQL. The data stays; the next command starts it again."""
    home = settings().home
    if EmbeddedServer(home).stop():
        say("The private PostgreSQL has stopped.")
    else:
        say(f"No private PostgreSQL runs in {home}.")


@db.command()
def url() -> None:
    """Print the connection URL alone, password included: psql "$(lookalike db url)"."""
    with Database.open(settings(), checked=False, announce=say) as database:
        sys.stdout.write(database.url + "\n")


@db.command()
def upgrade() -> None:
    """Make or update the tables, functions and views in a database. Safe to run again."""
    with Database.open(settings(), checked=False, announce=say) as database:
        database.upgrade()
        say(f"{database.place} is up to date.")


@db.command()
def grant(
    reader: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE", help="May search and read, not the vectors of all models at once; repeatable."),
    ] = None,
    writer: Annotated[
        list[str] | None, typer.Option(metavar="ROLE", help="May also ingest and delete; repeatable.")
    ] = None,
) -> None:
    """Let roles of your own read or write. Needed once: later models and versions reach them by themselves.

    Roles are made by you: create role anna login. Run this as the owner of the tables.
    """
    readers, writers = reader or [], writer or []
    with Database.open(settings(), announce=say) as database:
        with database.transaction() as connection:
            grant_rights(connection, readers=readers, writers=writers)
        for roles, what in ((readers, "read"), (writers, "read and write")):
            if roles:
                say(f"{', '.join(roles)} may {what} in {database.place}.")


def emulator(
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port on 127.0.0.1; 0 takes a free one.")
    ] = 8081,
    recordings: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Real answers: files, sha256, vectors, model.")
    ] = None,
    latency_ms: Annotated[float, typer.Option(min=0, metavar="N", help="Milliseconds that every answer takes.")] = 0,
    rate: Annotated[float | None, typer.Option(min=0.001, metavar="N", help="Calls a second before 429.")] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND=SHARE",
            help="Answer a share of the calls wrongly, e.g. 429=0.2. Kinds: 429, 500, 503, timeout, reset, "
            "truncated-json, html, wrong-model, wrong-length, nan, zero, and what only one service says, "
            "e.g. dashscope:Arrearage=0.1. Repeatable.",
        ),
    ] = None,
) -> None:
    """Stand in for the embedding services on this machine, so that everything works without an account.

    The key that it accepts is: emulator
    """
    # no other command should wait for it to load
    from lookalike.emulator import Emulator, parse_fault

    faults = dict(parse_fault(text) for text in fault or [])
    service = Emulator(port, recordings=recordings, latency_ms=latency_ms, rate=rate, faults=faults)

    def handler(_number: int, _frame: FrameType | None) -> None:
        # stopping waits for the serving thread, which this handler has interrupted
        threading.Thread(target=service.stop).start()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)
    service.start()
    say(f"Azure AI Vision, emulated: VISION_ENDPOINT={service.url} VISION_KEY=emulator")
    say(
        "Azure AI Model Inference, emulated: "
        f"AZURE_INFERENCE_ENDPOINT={service.url}models AZURE_INFERENCE_CREDENTIAL=emulator"
    )
    say(f"DashScope, emulated: DASHSCOPE_HTTP_BASE_URL={service.url}api/v1 DASHSCOPE_API_KEY=emulator")
    service.serve()
