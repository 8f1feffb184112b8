"""Waiting for a database that restarts, so that a run of days outlives it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from lookalike.errors import DatabaseUnavailable, LookalikeError

_SECONDS = 15 * 60.0
_SECONDS_WHEN_STOPPED = 30.0
_SECONDS_BEFORE_REVIVING = 10.0

_log = logging.getLogger("lookalike.ingest")
_T = TypeVar("_T")


class Patiently:
    """Does something with the database, again while it does not answer.

    Attributes:
        hopeless: set it to wait no longer.
    """

    def __init__(self, stop: threading.Event, revive: Callable[[], None]) -> None:
        """Args:
        revive: what may help a database that does not answer; it may fail.
        """
        self._stop = stop
        self._revive = revive
        self.hopeless = threading.Event()

    def __call__(self, work: Callable[[], _T]) -> _T:
        """What `work` gives.

        Raises:
            DatabaseError: the database refuses, or has not answered for a quarter of an hour.
        """
        began, wait = time.monotonic(), 0.25
        while True:
            try:
                return work()
            except DatabaseUnavailable as error:
                waited = time.monotonic() - began
                if waited > (_SECONDS_WHEN_STOPPED if self._stop.is_set() else _SECONDS):
                    raise
                if waited > 1:
                    _log.warning("%s. Trying again.", str(error).splitlines()[0].rstrip("."))
                if waited > _SECONDS_BEFORE_REVIVING:
                    with contextlib.suppress(LookalikeError):
                        self._revive()
                if self.hopeless.wait(wait):
                    raise
                wait = min(wait * 2, 5.0)
