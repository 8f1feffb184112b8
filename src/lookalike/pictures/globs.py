"""Names in stores far away: which are hidden, and which match ``2024/**/*.jpg``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A glob.

    Attributes:
        folder: what everything that matches begins with: empty, or ending with a slash.
    """

    folder: str
    _rule: re.Pattern[str]

    @classmethod
    def of(cls, name: str) -> Self | None:
        """The glob that `name` is, or None if it is a plain name."""
        if (magic := _MAGIC.search(name)) is None:
            return None
        from fsspec.utils import glob_translate

        return cls(name[: name.rfind("/", 0, magic.start()) + 1], re.compile(glob_translate(name)))

    def matches(self, name: str) -> bool:
        """Whether a name, as a whole, does."""
        return self._rule.match(name) is not None


def is_hidden(name: str) -> bool:
    """Whether a name, or a folder on the way to it, begins with a dot."""
    return name.startswith(".") or "/." in name
