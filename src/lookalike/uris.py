"""How pictures are named: local paths as URIs, URIs without what is secret in them, ids."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit
from uuid import UUID

_URL = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*)://([^/?#\\]*)([^?#]*)(\?[^#]*)?(#.*)?", re.DOTALL)
_PLAIN_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s?#@=\\]*")
# a scheme begins where a word does; else a long word would be looked through from each of its letters
_URL_IN_TEXT = re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>`]+")
_SEPARATORS = re.compile(r"([&;])")

_SECRET = (
    r"(?:(?:access|auth|id|refresh|session|security|oauth)[_-]?)?token|__token__|hdnea|hdnts|jwt|bearer"
    r"|(?:oauth_|sharedaccess)?signature|sig|hmac|auth|authorization|credentials?|sessionid"
    r"|password|passwd|passphrase|pwd|(?:client[_-]?)?secret|(?:aws|oss)accesskeyid|googleaccessid|key-pair-id"
    r"|(?:secret|private|access|account|sharedaccess|api|x-api)[_-]?key|(?:ocp-apim-)?subscription[_-]?key"
    r"|x-(?:amz|goog|oss|cos)-[a-z0-9-]+|q-(?:sign|ak|key-time)[a-z-]*"
)
"""Names of parameters that open doors, whoever serves."""

_AZURE_SAS = r"s[epvrsi]|st|spr|sip|srt|ses|sk[stev]|sk[ot]id|skdutid|scid|saoid|suoid|sduoid|sdd|rsc[cdelt]"
_OF_A_SIGNATURE = "expires|expiry|policy|key-pair-id"
"""Signed along: they say nothing of the picture where a signature is, and may mean anything where none is."""

_IS_SECRET = re.compile(_SECRET)
_IS_SIGNED = re.compile(r"signature|hmac|key-pair-id|hdnea|hdnts|token")
_IS_SECRET_WITH_SIGNATURE = re.compile(f"{_SECRET}|{_OF_A_SIGNATURE}")
_IS_SECRET_WITH_SIG = re.compile(f"{_SECRET}|{_OF_A_SIGNATURE}|{_AZURE_SAS}")

# `code` and `key` name pictures as often as they open doors: only keys of Azure Functions and of Google are recognised
_KEYS = {"code": re.compile(r".*(=|%3d){2}|.*AzFu.*", re.IGNORECASE), "key": re.compile(r"AIza[\w-]{35}")}

_CONNECTION_STRING = re.compile(r"\b(AccountKey\s*=\s*|SharedAccessSignature\s*=\s*)[^\s;'\"<>]+", re.IGNORECASE)
_IN_TEXT = (
    (_CONNECTION_STRING, r"\1…"),
    # a path without its host, as urllib3 words its errors
    (re.compile(rf"([?&;](?:{_SECRET})=)[^\s&;'\"<>)]+", re.IGNORECASE), r"\1…"),
    # of DSNs
    (
        re.compile(
            r"\b((?:account|sharedaccess|access|secret|private|api)_?key|client_?secret|password|passwd|pwd)"
            r"(\s*=\s*)('[^']*'|\"[^\"]*\"|[^\s;&'\"<>]+)",
            re.IGNORECASE,
        ),
        r"\1\2…",
    ),
    # of headers
    (
        re.compile(r"\b((?:proxy-)?authorization['\"]?\s*[:=]\s*['\"]?(?:[A-Za-z]+ +)?+)[^\s'\"<>,…]+", re.IGNORECASE),
        r"\1…",
    ),
    (re.compile(r"\b((?:ocp-apim-subscription|api|x-api)-key['\"]?\s*:\s*['\"]?)[^\s'\"<>,]+", re.IGNORECASE), r"\1…"),
    (re.compile(r"\b(Bearer\s+)[\w.~+/=-]+"), r"\1…"),
    (re.compile(r"\b(bearer\s+)[\w.~+/=-]{16,}", re.IGNORECASE), r"\1…"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), "…"),
)


def uri_of(path: str | os.PathLike[str]) -> str:
    """A local path as the library names it: absolute, percent-encoded, ``file://``."""
    return "file://" + quote(os.fsencode(os.path.abspath(path)))


def path_of(uri: str) -> Path | None:
    """The local path that a ``file://`` URI names, or None for any other URI."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return None  # what stands for a host is none
    return Path(unquote(parts.path, errors="surrogateescape")) if parts.scheme == "file" else None


def as_uuid(text: str) -> UUID | None:
    """The id of an image, if `text` reads like one."""
    try:
        return UUID(text) if len(text) in (32, 36) else None
    except ValueError:
        return None


def without_secrets(text: str) -> str:
    """A URL without what opens doors, so that it may be stored and shown; anything else as it is.

    Left out are user and password, the fragment of an ``http(s)`` URL, and the parameters that are a signature, a token
    or a key, or belong to one. What else identifies the picture stays, byte for byte: ``?id=17``, the container before
    the ``@`` of ``abfs://``, a ``#`` in the name of an object. The same URL signed anew gives the same text.
    """
    if _PLAIN_URL.fullmatch(text):
        return text  # as most are
    if (match := _URL.fullmatch(text)) is None:
        return _CONNECTION_STRING.sub(r"\1…", text)
    scheme, authority, path, query, fragment = (part or "" for part in match.groups())
    on_the_web = scheme.lower() in ("http", "https")
    if "@" in path and re.search(r":(?!\d*$)[^\]]*$", authority.rpartition("@")[2]):
        # a password with a slash in it, which splits the address in the wrong place
        cut, _, path = path.rpartition("@")
        authority, path = f"{authority}{cut}@{path.partition('/')[0]}", "".join(path.partition("/")[1:])
    user, at, host = authority.rpartition("@")
    if on_the_web or ":" in user:
        user = at = ""
    kept = f"{scheme}://{user}{at}{host}{path}{_public(query)}"
    return _CONNECTION_STRING.sub(r"\1…", kept + ("" if on_the_web else fragment))


def redacted(text: str) -> str:
    """Somebody else's words without the secrets in them: URLs as `without_secrets` gives them, ``…`` for keys,
    passwords, signatures and tokens that are recognised as such."""
    text = _URL_IN_TEXT.sub(lambda match: without_secrets(match[0]), text)
    for pattern, instead in _IN_TEXT:
        text = pattern.sub(instead, text)
    return text


def _public(query: str) -> str:
    """A query, with its ``?``, without the parameters that are secret; nothing at all if no other is there."""
    if not query:
        return ""
    pieces = _SEPARATORS.split(query[1:])
    names = [unquote(piece.partition("=")[0]).strip().lower() for piece in pieces[::2]]
    secret = _IS_SECRET
    if "sig" in names:
        secret = _IS_SECRET_WITH_SIG
    elif any(map(_IS_SIGNED.fullmatch, names)):
        secret = _IS_SECRET_WITH_SIGNATURE
    kept = ""
    for number, (name, piece) in enumerate(zip(names, pieces[::2], strict=True)):
        value = piece.partition("=")[2]
        if secret.fullmatch(name) or (name in _KEYS and _KEYS[name].fullmatch(value)):
            continue
        separator = pieces[2 * number - 1] if kept else ""
        kept += separator + _nested(piece, value)
    return f"?{kept}" if kept else ""


def _nested(piece: str, value: str) -> str:
    """A parameter whose value may be a URL with secrets of its own, as resizing proxies take it."""
    inner = unquote(value)
    if "://" not in inner or (public := without_secrets(inner)) == inner:
        return piece
    return piece.removesuffix(value) + quote(public, safe="")
