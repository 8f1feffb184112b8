"""A page of thumbnails that shows what searches found; complete in one file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from lookalike.cli.output import printable
from lookalike.types import Hit, Result

_THUMBNAIL = (320, 320)

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Lookalike: contact sheet</title>
<style>
  :root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }}
  body {{ max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }}
  h2 {{ margin: 2.5rem 0 0; font-weight: 600; }}
  p {{ margin: 0 0 1rem; opacity: .7; }}
  ol {{ display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); }}
  ol {{ list-style: none; padding: 0; }}
  img, video {{ width: 100%; aspect-ratio: 4/3; object-fit: cover; border-radius: .5rem; display: block; }}
  .query img {{ width: 14rem; }}
  figure {{ margin: 0; }}
  figcaption {{ font-size: .85rem; overflow-wrap: anywhere; }}
  b {{ font-variant-numeric: tabular-nums; }}
</style>
<h1>Lookalike</h1>
{sections}
</html>
"""


def write_contact_sheet(path: Path, searches: Sequence[tuple[str, Hit | None, Result]]) -> Path:
    """Write what searches found as one HTML file; returns its path.

    Args:
        searches: for each a title, the picture that it started from if it was one, and the result.
    """
    sections = []
    for title, start, result in searches:
        sections.append(f"<h2>{html.escape(title)}</h2><p>{html.escape(result.model)}, nearest first</p>")
        if start is not None:
            sections.append(f'<div class="query">{_figure(start, "the query")}</div>')
        items = "".join(f"<li>{_figure(hit, f'{hit.similarity:.4f}')}</li>" for hit in result)
        sections.append(f"<ol>{items}</ol>")
    path.write_text(_PAGE.format(sections="\n".join(sections)), encoding="utf-8")
    return path


def _figure(hit: Hit, note: str) -> str:
    name = printable(hit.path.name if hit.path else hit.uri)
    shown = f'<img src="{_thumbnail(hit)}" alt="{html.escape(name)}">'
    if hit.is_video:
        shown = f'<video src="{html.escape(hit.uri)}" controls muted preload="metadata"></video>'
    return f"<figure>{shown}<figcaption><b>{html.escape(note)}</b> {html.escape(name)}</figcaption></figure>"


def _thumbnail(hit: Hit) -> str:
    """The picture as a small JPEG in a data URL; nothing where it has gone or was spoilt since it was ingested."""
    if hit.path is None:
        return ""
    try:
        with Image.open(hit.path) as image:
            image.draft("RGB", _THUMBNAIL)
            small = ImageOps.exif_transpose(image).convert("RGB")
            small.thumbnail(_THUMBNAIL)
    except (OSError, SyntaxError, ValueError):
        return ""
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
