"""`lookalike demo`: everything once, without an account, a server or a picture of one's own."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from lookalike.cli.output import counted, out, say, settings
from lookalike.cli.progress import show_progress, stop_on_signal
from lookalike.cli.search import print_hits
from lookalike.config import DATABASE_VARIABLES, Settings, read_environment
from lookalike.errors import ImageNotFound
from lookalike.lookalike import Lookalike
from lookalike.store.embedded import EmbeddedServer

DEMO_MODEL = "local/classic-1"

_TEXT = "a red sunset over the sea"
_ELSEWHERE = "snow on a mountain"


def demo(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Pictures to use; without it, some are drawn.")
    ] = None,
) -> None:
    """Try everything once: no account, no server, no pictures needed.

    Pictures and vectors of the demo are kept apart from your own, and its private PostgreSQL stops at the end.
    """
    home = settings().home / "demo"
    server = EmbeddedServer(home, announce=say)
    with server.borrowed():
        _show(folder, home)


def _show(folder: Path | None, home: Path) -> None:
    # no other command should wait for these to load
    from lookalike.cli.demo.contact_sheet import write_contact_sheet
    from lookalike.cli.demo.pictures import draw_samples

    if folder is None:
        folder = home / "pictures"
        say(f"Drawing sample pictures into {folder} …")
        draw_samples(folder)
    given = Settings(home=home, home_chosen=True, model=DEMO_MODEL)
    with Lookalike.open(given, announce=say) as images:
        with stop_on_signal() as stop, show_progress() as progress:
            report = images.ingest(folder, progress=progress, stop=stop.event)
        if stop.signal is not None:
            raise typer.Exit(128 + stop.signal)
        out.print(
            f"{counted(report.found, 'file')}: {report.embedded:,} embedded now, {report.unchanged:,} known already\n"
        )
        if not report.embedded + report.unchanged:
            raise ImageNotFound(f"{folder} holds no pictures.")
        by_text = images.search(_TEXT, limit=8)
        # the text's hits are a cluster of their own; a picture from elsewhere makes the better second example
        start = images.search(_ELSEWHERE, limit=1)[0]
        by_image = images.similar(start.path or start.image_id, limit=8)
    for result in (by_text, by_image):
        print_hits(result)
        out.print()
    sheet = write_contact_sheet(
        home / "contact-sheet.html", [(_TEXT, None, by_text), ("More like this one", start, by_image)]
    )
    script = Path(sys.executable).with_name("activate")
    activate = [] if shutil.which("lookalike") else [f"  source {escape(shlex.quote(str(script)))}"]
    # a database named elsewhere would go before the demo's own
    databases = [name for name in DATABASE_VARIABLES if read_environment().get(name)]
    emptied = "".join(f" {name}=" for name in databases)
    out.print(
        "[bold]See it[/]",
        f"  {escape(sheet.as_uri())}",
        "",
        "[bold]Try next[/]",
        *activate,
        f"  export LOOKALIKE_HOME={escape(shlex.quote(str(home)))} LOOKALIKE_MODEL={DEMO_MODEL}{emptied}",
        "  lookalike search 'a dark forest'",
        f"  lookalike similar {escape(shlex.quote(str(start.path)))}",
        "  lookalike status",
        '  psql "$(lookalike db url)" -c "select uris, width, height from lookalike.library limit 3"',
        "",
        "[bold]Then your own pictures, by meaning[/] (README.md says how to get a key)",
        *_as_before(databases),
        "  lookalike ingest FOLDER",
        sep="\n",
        soft_wrap=True,
    )


def _as_before(databases: Sequence[str]) -> Iterator[str]:
    """The commands that take back what was to be exported for the demo, and ask for the key."""
    # what an earlier demo had exported is taken for nobody's own
    own = os.environ if os.environ.get("LOOKALIKE_MODEL") != DEMO_MODEL else {}
    absent = [name for name in ("LOOKALIKE_HOME", "LOOKALIKE_MODEL", *databases) if not own.get(name)]
    if absent:
        yield f"  unset {' '.join(absent)}"
    kept = [f"{name}={shlex.quote(own[name])} " for name in ("LOOKALIKE_HOME", "LOOKALIKE_MODEL") if own.get(name)]
    # these may hold a password
    kept += [f"{name}=… " for name in databases if own.get(name)]
    yield escape(f"  export {''.join(kept)}VISION_ENDPOINT=… VISION_KEY=…")
