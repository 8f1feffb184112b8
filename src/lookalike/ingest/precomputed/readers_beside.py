"""Processes that read numbers out of text, which is most of the work where vectors are written so.

They are plain programs: unlike those of `multiprocessing` they neither start the caller's own program again nor copy
its threads' locks. They end with the process that has started them, whatever becomes of it.
"""

from __future__ import annotations

import mmap
import os
import select
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Generic, Self, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from lookalike.ingest.precomputed import number_reader

_T = TypeVar("_T")
Halves: TypeAlias = npt.NDArray[np.float16]

_PROCESSES = 2
"""As the rest of an import takes half as long as reading the numbers, more would wait for it."""
_AT_ONCE = 4  # chunks of each process: one to read while others come or go
_CHUNK_BYTES = 1 << 20
_CHUNK_ROWS = 500


@dataclass(slots=True)
class _Chunk(Generic[_T]):
    """Some things, and the texts of those that have one.

    Attributes:
        answer: where the numbers come from; None where nobody reads them.
    """

    things: list[_T] = field(default_factory=list)
    texts: list[bytes | None] = field(default_factory=list)
    answer: Callable[[], Sequence[Halves | None]] | None = None


class ReadersBeside:
    """Processes that read vectors written as JSON. Use it in a ``with`` statement, from one thread at a time.

    Nothing depends on them: what they have not read is left to the caller, be it that they have just been started,
    cannot be, or have come to an end.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._readers: list[_Reader] = []

    def __enter__(self) -> Self:
        if _can_start():
            for _ in range(_PROCESSES):
                with suppress(OSError):
                    self._readers.append(self._stack.enter_context(_Reader()))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def vectors(
        self, things: Iterable[_T], text_of: Callable[[_T], bytes | None]
    ) -> Iterator[tuple[_T, Halves | None]]:
        """Things in their order, each with the numbers of its text, rounded once to half precision.

        Args:
            text_of: the text of a thing, None where it has none.

        Returns:
            None instead of numbers where there is no text, where it is no JSON list of numbers that half precision can
            hold, and where nobody had time to read it.
        """
        waiting: deque[_Chunk[_T]] = deque()
        for chunk in _chunks(things, text_of):
            reader = max(self._readers, key=lambda each: each.free, default=None)
            if reader is not None and reader.free:
                chunk.answer = reader.ask(chunk.texts)
            waiting.append(chunk)
            while waiting and (waiting[0].answer is None or not any(each.free for each in self._readers)):
                yield from _answered(waiting.popleft())
        for chunk in waiting:
            yield from _answered(chunk)


def _can_start() -> bool:
    """Whether this interpreter can be started beside itself, and has a core to run on.

    Programs that embed Python or are frozen would start themselves.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    is_python = Path(sys.executable or "").name.lower().startswith(("python", "pypy"))
    return os.name == "posix" and cores > 1 and is_python and not getattr(sys, "frozen", False)


def _chunks(things: Iterable[_T], text_of: Callable[[_T], bytes | None]) -> Iterator[_Chunk[_T]]:
    chunk: _Chunk[_T] = _Chunk()
    size = 0
    for thing in things:
        text = text_of(thing)
        if text is not None and len(text) >= _CHUNK_BYTES:
            text = None
        length = len(text) + 1 if text is not None else 0
        if len(chunk.things) == _CHUNK_ROWS or size + length > _CHUNK_BYTES:
            yield chunk
            chunk, size = _Chunk(), 0
        chunk.things.append(thing)
        chunk.texts.append(text)
        size += length
    if chunk.things:
        yield chunk


def _answered(chunk: _Chunk[_T]) -> Iterator[tuple[_T, Halves | None]]:
    vectors = chunk.answer() if chunk.answer is not None else [None] * len(chunk.things)
    return zip(chunk.things, vectors, strict=True)


def _unnamed_file() -> IO[bytes]:
    """An empty file that vanishes with the last process that has it open; where there can be such, in memory."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("lookalike"), "w+b")
    return tempfile.TemporaryFile()


class _Reader:
    """One process, and the memory that is shared with it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        try:
            file = self._stack.enter_context(_unnamed_file())
            file.write(bytes(_AT_ONCE * _CHUNK_BYTES))  # a place that the disk lacks later would be the end of us
            file.flush()
            self._memory = self._stack.enter_context(mmap.mmap(file.fileno(), 0))
            self._process = subprocess.Popen(
                # without what the folder of a script would bring in, and what a site may do at the start of a program
                [sys.executable, "-P", "-S", number_reader.__file__, str(file.fileno())],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[file.fileno()],
                bufsize=0,
                process_group=0,  # an interrupt from the keyboard is not for it
            )
        except BaseException:
            self._stack.close()
            raise
        assert self._process.stdout is not None
        self._answers = select.poll()
        self._answers.register(self._process.stdout, select.POLLIN)
        self._is_ready = False
        self._places = [n * _CHUNK_BYTES for n in range(_AT_ONCE)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._stack.close()

    @property
    def free(self) -> int:
        """How many more chunks it takes; none before it is ready."""
        if not self._is_ready and self._places:
            assert self._process.stdout is not None
            if self._answers.poll(0):
                self._is_ready = self._process.stdout.read(1) == number_reader.READY
                if not self._is_ready:
                    self._end()
        return len(self._places) if self._is_ready else 0

    def ask(self, texts: Sequence[bytes | None]) -> Callable[[], Sequence[Halves | None]] | None:
        """Have texts read that fit into a chunk; what is returned waits for their numbers. Answers come in order."""
        begin = place = self._places.pop()
        places = [-1] * len(texts)
        for n, text in enumerate(texts):
            if text is not None:
                self._memory[place : place + len(text)] = text
                places[n] = place
                place += len(text) + len(text) % 2
        lengths = [len(text) for text in texts if text is not None]
        request = number_reader.HEAD.pack(begin, len(lengths)) + number_reader.counts(len(lengths)).pack(*lengths)
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(request)
        except OSError:
            self._end()
            return None
        return lambda: self._numbers(begin, places, len(lengths))

    def _numbers(self, begin: int, places: Sequence[int], texts: int) -> Sequence[Halves | None]:
        answer = number_reader.counts(texts)
        data = b""
        assert self._process.stdout is not None
        with suppress(OSError, ValueError):
            while len(data) < answer.size and (more := self._process.stdout.read(answer.size - len(data))):
                data += more
        if len(data) < answer.size:
            self._end()
            return [None] * len(places)
        found = iter(answer.unpack(data))
        vectors = [
            np.frombuffer(self._memory[place : place + 2 * count], np.float16)
            if place >= 0 and (count := next(found))
            else None
            for place in places
        ]
        self._places.append(begin)
        return vectors

    def _end(self) -> None:
        self._places = []
        self._process.kill()
        self._process.__exit__(None, None, None)
