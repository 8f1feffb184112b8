"""Where the command ``lookalike`` starts: outside the package, to answer Ctrl-C while that is read.

Nothing has begun by then, so that there is nothing to end in good order either.
"""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Read the package and run its command line."""
    # whoever starts a command in the background of a script has it ignore Ctrl-C
    listens = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if listens:
        signal.signal(signal.SIGINT, _leave)
    from lookalike.cli import main as run

    if listens:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


def _leave(number: int, frame: object) -> None:  # noqa: ARG001
    # an exception would come up amid somebody's import, which may make another one of it
    os.write(2, b"lookalike: interrupted\n")
    os._exit(130)
