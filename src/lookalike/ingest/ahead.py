"""Reading ahead: the next things are made ready while the last ones are written."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")


def ahead(things: Iterator[_T], most: int = 1) -> Generator[_T, None, None]:
    """The same things, made in a thread of their own, up to `most` of them before they are asked for.

    What making them raises is raised here. Close the iterator to have the thread end before the things do.
    """
    ready: queue.Queue[_T | None] = queue.Queue(most)
    unwanted = threading.Event()
    failed: list[BaseException] = []

    def make() -> None:
        try:
            for thing in things:
                ready.put(thing)
                if unwanted.is_set():
                    return
        except BaseException as error:
            failed.append(error)
        finally:
            ready.put(None)

    thread = threading.Thread(target=make, name="lookalike-ahead", daemon=True)
    thread.start()
    try:
        while (thing := ready.get()) is not None:
            yield thing
        if failed:
            raise failed[0]
    finally:
        unwanted.set()
        while thread.is_alive():
            with suppress(queue.Empty):  # whoever waits for a place shall find one
                ready.get(timeout=0.05)
        thread.join()
