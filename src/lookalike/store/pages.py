"""Pages of a search: where one ends, and what the next one must leave out."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from lookalike.errors import InvalidFilter
from lookalike.filters import Chosen, Where

MOST_ROWS = 1 << 28
"""No page ends farther on, and no limit is larger."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ends, and what the next one must leave out.

    A page that compared everything ends at its last hit: what is nearer was shown. A page that walked the index may
    have missed some, which later pages must not take for shown, so the hits themselves are listed.

    Attributes:
        seen: how many hits there were.
        distance, image_id: the last hit of an exact page, by cosine distance exactly as the database gave it.
        shown: of pages before that, the first eight bytes of each hit's id, one after the other.
    """

    seen: int
    distance: float | None = None
    image_id: UUID | None = None
    shown: bytes = b""

    def after(self, images: Sequence[UUID], distance: float | None) -> Place:
        """Where the page after this place ends.

        Args:
            images: what it shows.
            distance: of the last of them, where everything was compared.
        """
        seen = self.seen + len(images)
        if distance is not None:
            return Place(seen, distance, images[-1], self.shown)
        return Place(seen, shown=self.shown + b"".join([image_id.bytes[:8] for image_id in images]))

    def token(self, check: str) -> str:
        """The place as callers hand it back."""
        end = f"{self.distance.hex()}~{self.image_id}" if self.distance is not None else "~"
        listed = base64.urlsafe_b64encode(self.shown).decode().rstrip("=")
        return f"{self.seen}~{end}~{check}~{listed}"

    @classmethod
    def of(cls, token: str, check: str) -> Place:
        """The place that a token names.

        Raises:
            InvalidFilter: it is no token, or one of another search.
        """
        try:
            seen, distance, image_id, checked, listed = token.split("~")
            shown = base64.b64decode(listed + "=" * (-len(listed) % 4), b"-_", validate=True)
            place = cls(
                int(seen),
                float.fromhex(distance) if distance else None,
                UUID(image_id) if distance else None,
                shown,
            )
            if not (0 < place.seen <= MOST_ROWS and 0 <= (place.distance or 0) <= 2 and len(shown) % 8 == 0):
                raise ValueError(token)
        except (ValueError, OverflowError, AttributeError):
            raise InvalidFilter(
                f"{str(token)[:80]!r} is no place to go on after; take it from `after` of a result."
            ) from None
        if checked != check:
            raise InvalidFilter(
                "The place to go on after belongs to another search: repeat the query, the model and the filter."
            )
        return place


def scope_of(model: str, where: Where | None, among: Chosen | None) -> int:
    """What tells the places that one search looks at from those of another."""
    told = zlib.crc32(f"{model} {where}".encode(errors="replace"))
    if among is not None:
        # the text of a query, as its object is another one in the next request
        own = str(among.select) if among.select is not None else ""
        told = zlib.crc32("\0".join([own, *among.keys]).encode(errors="replace"), told)
        told = zlib.crc32(b"".join(image_id.bytes for image_id in among.ids), told)
    return told


def check_of(scope: int, query: str) -> str:
    """What tells one search from another."""
    return f"{zlib.crc32(query.encode(errors='replace'), scope):08x}"
