"""The texts that pictures are embedded together with, where a model makes one vector of both.

A text is what stands in one column of a table, or under one key of the metadata that is stored. An image has one vector
under a model, and so one text: that of the file that came first. Its other files are found by that one, too. When the
text of that file changes, or the file is no longer one of the image's, the next file that is walked is embedded anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

from lookalike.ingest.patience import Patiently
from lookalike.ingest.sources import Candidate
from lookalike.ingest.spill import Firsts
from lookalike.store.database import Database
from lookalike.store.known import Known
from lookalike.store.reading import stored_values
from lookalike.store.writing import storable


class Texts:
    """Tells candidates their texts. One thread at a time; close it.

    Args:
        column: of the tables, or key of the metadata; None where pictures are embedded alone, and nothing is told.
    """

    def __init__(self, database: Database, column: str | None, patiently: Patiently | None = None) -> None:
        self._database, self._column = database, column
        self._patiently = patiently
        self._firsts = Firsts() if column is not None else None

    def told(self, batch: list[Candidate]) -> list[Candidate]:
        """The candidates with their texts; a file that was given another one in this run already only `repeats`."""
        if self._firsts is None or self._column is None or not batch:
            return batch
        silent = [place for one in batch for place in _places(one) if place.metadata is None]
        look = partial(stored_values, self._database, [place.name for place in silent], self._column)
        stored = (self._patiently(look) if self._patiently is not None else look()) if silent else {}

        def with_text(candidate: Candidate) -> Candidate:
            place = candidate.place
            value = stored.get(place.name) if place.metadata is None else place.metadata.get(self._column or "")
            return replace(candidate, text=_text(value), others=tuple(map(with_text, candidate.others)))

        found = [with_text(candidate) for candidate in batch]
        names = [("\0".join(one.place.name), (one.text or "").encode()) for one in found]
        noted = self._firsts.note_all(names)
        return [replace(one, repeats=which == "other") for one, which in zip(found, noted, strict=True)]

    def close(self) -> None:
        """Give the temporary file back."""
        if self._firsts is not None:
            self._firsts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_new(candidate: Candidate, known: Known) -> bool:
    """Whether a file that is embedded has another text than its vector was made with."""
    return known.text is not None and known.text != candidate.text and not candidate.repeats


def _places(candidate: Candidate) -> Sequence[Any]:
    return [candidate.place, *(other.place for other in candidate.others)]


def _text(value: object) -> str | None:
    """A cell as a text; None where it holds none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return " ".join(storable(str(value)).split()) or None
