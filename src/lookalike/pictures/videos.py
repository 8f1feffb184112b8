"""What tells a video before anybody has looked at it: its name, or what somebody says of it."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/x-m4v",
    ".mov": "video/quicktime",
    ".avi": "video/x-msvideo",
    ".mkv": "video/x-matroska",
    ".webm": "video/webm",
    ".mpg": "video/mpeg",
    ".mpeg": "video/mpeg",
    ".flv": "video/x-flv",
    ".wmv": "video/x-ms-wmv",
    ".3gp": "video/3gpp",
}
_MEDIA_TYPE = re.compile(r"(?:image|video)/[a-z0-9][a-z0-9.+-]{0,60}")


def video_type(name: str, said: object = None) -> str | None:
    """The media type of the video that lies at a path or URL, None if it is to be taken for something else.

    Args:
        said: its media type, where somebody names one; anything that is none of a picture or video is passed over.
    """
    if isinstance(said, str) and _MEDIA_TYPE.fullmatch(media_type := said.strip().lower()):
        return media_type if media_type.startswith("video/") else None
    try:
        path = unquote(urlsplit(name).path) if "://" in name else name
    except ValueError:
        return None  # what stands for a host is none
    return _TYPES.get(PurePosixPath(path).suffix.lower())
