"""What the adapters of services share beside calling: checked settings, tokens of Azure, many inputs in one call.

`http` knows how a service is called, an adapter what is said to it. Here lies what every adapter is to the rest of the
house.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from lookalike.embedders.http import CONNECTIONS, Answer, Client, Verdict
from lookalike.errors import ConfigurationError, CredentialsRefused, ItemError, LookalikeError, ServiceError
from lookalike.identity import Tokens
from lookalike.types import Embedding, Limits, Model, Usage

Outcome: TypeAlias = Embedding | ItemError

SCOPE = "https://cognitiveservices.azure.com/.default"
"""What a token for a service of Azure AI is asked for."""

IDENTITY = "\0identity"
"""Stands for the identity of this machine where keys tell credentials from each other."""

NOT_ACCESSIBLE = "url-not-accessible"
"""Code of what a service could not fetch: it may be there tomorrow. Pictures that it has do not change."""

Refusals: TypeAlias = Sequence[tuple[int, str, str | type[ServiceError], str]]
"""Status, what is found in message or codes, an item's code or the error that stops the run, and what it means in
words; the first that fits counts."""

_MOST_BYTES = 20_000_000
"""Of inputs in one call: beyond it a service would rather refuse the body than save anybody time."""

_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG", "png"),
    (b"BM", "bmp"),
    (b"RIFF", "webp"),
    (b"GIF8", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
)


class TokenRefused(CredentialsRefused):
    """The service refused the token of an identity."""


@dataclass(frozen=True, slots=True)
class Payload:
    """One input as it is written into a call.

    Attributes:
        content: what `json.dumps` takes.
        size: in bytes, roughly.
        alone: whether nothing may stand beside it in a call.
    """

    content: Any
    size: int
    alone: bool = False


class RemoteEmbedder:
    """The part of an `Embedder` that is the same for every service. Safe to use from several threads."""

    def __init__(
        self,
        model: Model,
        limits: Limits,
        client: Client,
        *,
        rate: float,
        pictures_per_call: int = 1,
        texts_per_call: int = 1,
    ) -> None:
        self._model, self._limits, self._client, self._rate = model, limits, client, rate
        self._pictures_per_call, self._texts_per_call = pictures_per_call, texts_per_call

    @property
    def model(self) -> Model:
        """The vector space of everything this embedder gives."""
        return self._model

    @property
    def limits(self) -> Limits:
        """What the service accepts."""
        return self._limits

    @property
    def concurrency(self) -> int:
        """Calls worth having under way at once: enough for the rate if each of them takes a second."""
        return min(CONNECTIONS, max(4, math.ceil(self._rate)))

    @property
    def pictures_per_call(self) -> int:
        """Pictures worth giving to `embed_images` at once: as many as one call may hold."""
        return self._pictures_per_call

    @property
    def texts_per_call(self) -> int:
        """Texts worth giving to `embed_texts` at once: as many as one call may hold."""
        return self._texts_per_call

    @property
    def rate(self) -> float:
        """Calls a second that are allowed."""
        return self._rate

    @property
    def usage(self) -> Usage:
        """What has been spent through this embedder so far."""
        return self._client.usage

    @property
    def notice(self) -> str | None:
        """None: there is nothing that everybody would have to know."""
        return None

    def inquire(self) -> str | None:
        """None: the service says nothing of itself for free."""
        return None

    def close(self) -> None:
        """Give back connections."""
        self._client.close()


def in_calls(
    inputs: Iterable[Payload | ItemError], most: int, send: Callable[[Sequence[Any]], Sequence[Outcome] | ItemError]
) -> list[Outcome]:
    """Send inputs, as many in each call as it may hold; what is at fault already costs none.

    A refusal does not say which of several inputs it is about, so they are sent once more, each by itself.

    Args:
        most: inputs in one call.
        send: makes a call with the contents of some payloads.

    Returns:
        As many answers as inputs, in their order.

    Raises:
        ServiceError: nothing more can be done with the service; its `answered` holds what came before.
    """
    outcomes: list[Outcome | None] = []
    calls: deque[list[tuple[int, Payload]]] = deque()
    open_call: list[tuple[int, Payload]] = []
    for position, each in enumerate(inputs):
        if isinstance(each, ItemError):
            outcomes.append(each)
            continue
        outcomes.append(None)
        size = sum(payload.size for _, payload in open_call) + each.size
        if not open_call or each.alone or len(open_call) >= most or size > _MOST_BYTES:
            open_call = []
            calls.append(open_call)
        open_call.append((position, each))
        if each.alone:
            open_call = []
    while calls:
        call = calls.popleft()
        try:
            answer = send([payload.content for _, payload in call])
        except LookalikeError as error:
            error.answered = outcomes
            raise
        if isinstance(answer, ItemError):
            if len(call) > 1 and not answer.retryable:
                calls.extendleft([one] for one in reversed(call))
                continue
            answer = [answer] * len(call)
        for (position, _), outcome in zip(call, answer, strict=True):
            outcomes[position] = outcome
    return [outcome for outcome in outcomes if outcome is not None]


def data_url(data: bytes) -> str:
    """A picture as a URL that holds it."""
    kind = next((kind for magic, kind in _MAGIC if data.startswith(magic)), "jpeg")
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def checked_picture(data: bytes, limits: Limits) -> ItemError | None:
    """Why bytes cannot be sent whatever they show, None if they can."""
    if not data:
        return ItemError("empty-file", "The picture has no bytes.")
    if len(data) > limits.max_bytes:
        return ItemError("too-many-bytes", f"The picture has {len(data):,} bytes; {limits.max_bytes:,} are the most.")
    return None


def text_not_fused(model: Model) -> ItemError:
    """Why a picture is not sent: its text would be dropped, or make its vector one of another space."""
    return ItemError("text-not-supported", f"{model} embeds pictures alone. With a text, it is a model of its own.")


def checked_rate(rate: float) -> float:
    """Calls a second.

    Raises:
        ConfigurationError: it is no such number.
    """
    if not 0 < rate < math.inf:
        raise ConfigurationError(f"The rate is {rate:g}; it is a number of calls a second above 0.")
    return rate


def checked_key(text: str | None, variable: str) -> str | None:
    """A key as it is sent, None where there is none.

    Raises:
        ConfigurationError: it cannot be sent.
    """
    key = (text or "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigurationError(f"{variable} holds characters that no key has; copy it once more.")
    return key or None


def checked_endpoint(text: str, variable: str, example: str, operations: str) -> str:
    """The base URL, without what gets pasted along: slashes, the path of an operation, a query.

    Args:
        example: a sentence that shows a right one, for messages.
        operations: pattern of where the paths of operations begin.

    Raises:
        ConfigurationError: it is none, or would carry the key unencrypted.
    """
    try:
        parts = urlsplit(text.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"{variable} is no address. {example}") from None
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
        raise ConfigurationError(f"{variable} is not https:// with the name of a host. {example}")
    if parts.scheme == "http" and not _is_near(host):
        raise ConfigurationError(f"{variable} is http://, so the key would go to {host} unencrypted. {example}")
    path = re.split(operations, parts.path, flags=re.IGNORECASE)[0]
    return f"{parts.scheme}://{parts.netloc.lower()}{path}".rstrip("/")


def azure_verdict(
    refusals: Refusals,
    status: int,
    codes: tuple[str, ...],
    message: str,
    *,
    service: str,
    endpoint: str,
    role: str | None,
) -> Verdict | None:
    """What a refusal of a service of Azure means by a table, None where that does not say.

    Args:
        service, endpoint: for messages.
        role: what the identity needs, where it is one that calls.
    """
    there = f"{service} at {endpoint}"
    if status == 401 and role is not None:
        return TokenRefused(f"{there} refuses our token (401): {role}.")
    said = f"{message} {' '.join(codes)}"
    for refused_with, pattern, kind, meaning in refusals:
        if status != refused_with or not re.search(pattern, said, re.IGNORECASE):
            continue
        if isinstance(kind, str):
            return ItemError(kind, f"{service} {meaning}: {message}", retryable=kind == NOT_ACCESSIBLE)
        its_words = "" if status == 401 else f". It says: {message}"
        if status == 403 and role is not None:
            its_words += f" ({role})"
        return kind(f"{there} {meaning}{its_words}")
    return None


def signed_in(scope: str, instead: str) -> Tokens:
    """Tokens of this machine's identity, the first of them at hand.

    Raises:
        ConfigurationError: it has none.
    """
    tokens = Tokens(scope, instead)
    with contextlib.ExitStack() as undo:
        undo.callback(tokens.close)
        tokens.get()
        undo.pop_all()
    return tokens


def with_token(tokens: Tokens, client: Client, post: Callable[[str], Answer | ItemError]) -> Answer | ItemError:
    """Post with a token, and once more with a fresh one where the service refuses it.

    Raises:
        ServiceError: as `Client.post`.
    """
    token = _shown_to_nobody(tokens, client)
    try:
        return post(token)
    except TokenRefused:  # it may have been taken back, or expired while we waited for a turn
        tokens.forget(token)
        return post(_shown_to_nobody(tokens, client))


def _shown_to_nobody(tokens: Tokens, client: Client) -> str:
    token = tokens.get()
    client.hide(token)
    return token


def _is_near(host: str) -> bool:
    """Whether a host is this machine or has a bare name, as the services of a compose file have for each other."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return "." not in host or host.endswith(".localhost")
