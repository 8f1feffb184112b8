"""Azure AI Vision, multimodal embeddings: the wire format of api-version 2024-02-01 and what it accepts.

https://learn.microsoft.com/azure/ai-services/computer-vision/how-to/image-retrieval
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import json
import math
import re
import threading
from collections.abc import Mapping, Sequence
from datetime import date
from urllib.parse import urlsplit

from lookalike.config import Settings
from lookalike.embedders.http import CONNECTIONS, Client, Verdict, read_embeddings
from lookalike.embedders.terms import Budget, Ledger, Patience
from lookalike.errors import ConfigurationError, ContractBroken, CredentialsRefused, ItemError, ServiceError
from lookalike.identity import Tokens
from lookalike.types import DIMENSIONS, Embedding, ImageInput, Limits, Model, Usage

_MAX_WORDS = 70

LIMITS = Limits(
    max_bytes=20_971_520,
    min_side=11,
    max_side=15_999,
    media_types=frozenset(f"image/{kind}" for kind in ("jpeg", "png", "gif", "bmp", "webp", "x-icon", "tiff", "mpo")),
    max_words=_MAX_WORDS,
)
"""What Microsoft documents: below 20 MB, sides above 10 and below 16000 pixels, 1 to 70 words."""

_API_VERSION = "2024-02-01"
_OLDER_MODEL = "2022-04-11"
_NAME = "Azure AI Vision"
_SHOW = "az cognitiveservices account show --name RESOURCE --resource-group GROUP --query properties.endpoint"
_KEYS = "az cognitiveservices account keys list --name RESOURCE --resource-group GROUP"
_WHERE = (
    "look under 'Keys and Endpoint' of the resource in the portal, or run\n"
    f"  {_SHOW}\n  {_KEYS}\nNo account yet? `lookalike demo` needs none."
)
_REGIONS = (
    "East US, West US, West US 2, France Central, North Europe, West Europe, Sweden Central, Switzerland North, "
    "Australia East, Southeast Asia, Korea Central, Japan East"
)
_SCOPE = "https://cognitiveservices.azure.com/.default"
_IDENTITY = "\0identity"  # stands for it where keys tell credentials from each other
_ROLE = "the identity of this machine needs the role Cognitive Services User; or set VISION_KEY or VISION_KEY_FILE"
_NOT_ACCESSIBLE = "url-not-accessible"
_UNFIT = "does not take what Lookalike sends"
_REFUSALS: tuple[tuple[int, str, str | type[ServiceError], str], ...] = (
    (400, "InvalidImageFormat", "unsupported-format", "cannot read the picture"),
    (400, "NotSupportedImage", "refused-content", "refuses the picture for what it shows"),
    (400, "custom subdomain", CredentialsRefused, "does not take this kind of credential"),
    (400, "in this region", ServiceError, f"has no multimodal embeddings; these regions do: {_REGIONS}"),
    (400, "content type", ContractBroken, _UNFIT),
    (400, "model.?version", ContractBroken, "does not have this version of the model"),
    (400, r"\burl\b", _NOT_ACCESSIBLE, "cannot fetch the picture"),
    (400, "image size .* bytes", "wrong-byte-size", "does not take a picture of so many bytes"),
    (400, "InvalidImageSize|image dimension", "wrong-dimensions", "does not take a picture of so many pixels"),
    (400, r"\b(text|words?)\b", "refused-text", "does not take the text"),
    (401, "", CredentialsRefused, f"refuses VISION_KEY (401): is it the key of VISION_ENDPOINT? Look with: {_KEYS}"),
    (
        403,
        "",
        CredentialsRefused,
        "refuses calls: a quota is used up, a network rule forbids it, or keys are not allowed",
    ),
    (404, "", ContractBroken, f"is no Computer Vision or AI Services resource in one of {_REGIONS}"),
    (410, "", ContractBroken, f"has given up api-version {_API_VERSION}: update Lookalike"),
    (415, "", ContractBroken, _UNFIT),
)
"""What Azure's refusals mean: status, what is found in codes or message, and an item's code or the error that stops the
run. The rest means what it usually means. Messages are not stable, so they only count where codes say too little."""


class _TokenRefused(CredentialsRefused):
    """The service refused the token of an identity."""


class AzureVision:
    """Embeds pictures and texts with Azure AI Vision, one input per call. Safe to use from several threads."""

    def __init__(
        self,
        model: Model,
        settings: Settings,
        *,
        patience: Patience,
        rate: float | None = None,
        stop: threading.Event | None = None,
        ledger: Ledger | None = None,
        budget: Budget | None = None,
    ) -> None:
        """Check the settings; nothing is sent to the service yet.

        Without a key, calls go out as the identity that this machine has in Azure, which is asked for a token here.

        Args:
            model: ``azure-vision/2023-04-15``, ``azure-vision/2022-04-11`` or a later version's date.
            rate: calls a second, by default that of the settings.
            stop: once set, waits are cut short with `Interrupted`.
            ledger: shares the turns of the resource with other processes.
            budget: how many calls may be billed.

        Raises:
            ConfigurationError: a setting is missing or malformed, or the model cannot exist.
        """
        _check_model(model)
        self._model = model
        key = _key(settings)
        self._endpoint = _endpoint(settings)
        self._rate = settings.vision_rate if rate is None else rate
        if not 0 < self._rate < math.inf:
            raise ConfigurationError(f"The rate is {self._rate:g}; it is a number of calls a second above 0.")
        self._key, self._tokens = key, None if key else _tokens()
        self._client = Client(
            _NAME,
            self._endpoint,
            key or _IDENTITY,
            self._classify,
            rate=self._rate,
            patience=patience,
            stop=stop,
            ledger=ledger,
            budget=budget,
        )

    @property
    def model(self) -> Model:
        """The vector space of everything this embedder gives."""
        return self._model

    @property
    def limits(self) -> Limits:
        """What the service accepts."""
        return LIMITS

    @property
    def concurrency(self) -> int:
        """Calls worth having under way at once: enough for the rate if each of them takes a second."""
        return min(CONNECTIONS, max(4, math.ceil(self._rate)))

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

    def embed_images(self, images: Sequence[ImageInput]) -> list[Embedding | ItemError]:
        """Embed pictures, one call after the other.

        Returns:
            As many answers as pictures, in their order: embeddings with 1024 numbers, or the reasons why not.

        Raises:
            ServiceError: nothing more can be done with this service.
        """
        return [self._embed_image(image) for image in images]

    def embed_texts(self, texts: Sequence[str]) -> list[Embedding | ItemError]:
        """Embed texts, one call after the other.

        Returns:
            As many answers as texts, in their order: embeddings with 1024 numbers, or the reasons why not.

        Raises:
            ServiceError: nothing more can be done with this service.
        """
        return [self._embed_text(text) for text in texts]

    def close(self) -> None:
        """Give back connections."""
        self._client.close()
        if self._tokens is not None:
            self._tokens.close()

    def _embed_image(self, image: ImageInput) -> Embedding | ItemError:
        if image.data is None:
            return self._call("vectorizeImage", "application/json", json.dumps({"url": image.url}).encode())
        if not image.data:
            return ItemError("empty-file", "The picture has no bytes.")
        if len(image.data) > LIMITS.max_bytes:
            return ItemError(
                "too-many-bytes", f"The picture has {len(image.data):,} bytes; {LIMITS.max_bytes:,} are the most."
            )
        return self._call("vectorizeImage", "application/octet-stream", image.data)

    def _embed_text(self, text: str) -> Embedding | ItemError:
        words = len(text.split())
        if not words:
            return ItemError("empty-text", "The text is empty.")
        if words > _MAX_WORDS:
            return ItemError("too-many-words", f"The text has {words} words; {self._model} takes {_MAX_WORDS} at most.")
        return self._call("vectorizeText", "application/json", json.dumps({"text": text}).encode())

    def _call(self, operation: str, content_type: str, body: bytes) -> Embedding | ItemError:
        post = functools.partial(
            self._client.post,
            f"/computervision/retrieval:{operation}",
            # Without a version the service would take its newest model, and the vectors would not tell.
            params={"api-version": _API_VERSION, "model-version": self._model.version},
            body=body,
        )
        if self._tokens is None:
            answer = post(headers={"Ocp-Apim-Subscription-Key": self._key or "", "Content-Type": content_type})
        else:
            token = self._token(self._tokens)
            try:
                answer = post(headers={"Authorization": f"Bearer {token}", "Content-Type": content_type})
            except _TokenRefused:  # it may have been taken back, or expired while we waited for a turn
                self._tokens.forget(token)
                token = self._token(self._tokens)
                answer = post(headers={"Authorization": f"Bearer {token}", "Content-Type": content_type})
        if isinstance(answer, ItemError):
            return answer
        version, vector = answer.document.get("modelVersion"), answer.document.get("vector")
        return read_embeddings(self._model, answer, version=version, rows=[(0, vector)], count=1)[0]

    def _token(self, tokens: Tokens) -> str:
        token = tokens.get()
        self._client.hide(token)
        return token

    def _classify(self, status: int, codes: tuple[str, ...], message: str, _: Mapping[str, str]) -> Verdict | None:
        said = f"{' '.join(codes)} {message}"
        if status == 401 and self._tokens is not None:
            return _TokenRefused(f"{_NAME} at {self._endpoint} refuses our token (401): {_ROLE}.")
        for refused_with, pattern, kind, meaning in _REFUSALS:
            if status != refused_with or not re.search(pattern, said, re.IGNORECASE):
                continue
            if isinstance(kind, str):
                # what Azure could not fetch today may be there tomorrow; a picture does not change
                return ItemError(kind, f"{_NAME} {meaning}: {message}", retryable=kind == _NOT_ACCESSIBLE)
            its_words = "" if status == 401 else f". It says: {message}"
            if status == 403 and self._tokens is not None:
                its_words += f" ({_ROLE})"
            return kind(f"{_NAME} at {self._endpoint} {meaning}{its_words}")
        return None


def _check_model(model: Model) -> None:
    try:
        known = model.name == f"azure-vision/{date.fromisoformat(model.version)}" and model.dimensions == DIMENSIONS
    except ValueError:
        known = False
    if not known:
        raise ConfigurationError(
            f"{model.name!r} cannot be a model of {_NAME}, whose versions are dates: "
            f"azure-vision/2023-04-15 (102 languages) and azure-vision/{_OLDER_MODEL} (English)."
        )


def _key(settings: Settings) -> str | None:
    if not (settings.vision_endpoint or "").strip():
        missing = "VISION_ENDPOINT" if (settings.vision_key or "").strip() else "VISION_ENDPOINT and VISION_KEY"
        raise ConfigurationError(f"{_NAME} needs {missing}: {_WHERE}")
    if not (settings.vision_key or "").strip():
        return None
    key = str(settings.vision_key).strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigurationError("VISION_KEY holds characters that no key has; copy it once more.")
    return key


def _tokens() -> Tokens:
    """Tokens of this machine's identity, the first of them at hand."""
    try:
        tokens = Tokens(_SCOPE, "VISION_KEY or VISION_KEY_FILE")
        with contextlib.ExitStack() as undo:
            undo.callback(tokens.close)
            tokens.get()
            undo.pop_all()
    except ConfigurationError as error:
        raise ConfigurationError(f"{_NAME} needs VISION_KEY: {_WHERE}\n{error}") from None
    return tokens


def _endpoint(settings: Settings) -> str:
    """The base URL, without what gets pasted along: slashes, the path of an operation, a query."""
    example = "It reads https://RESOURCE.cognitiveservices.azure.com"
    try:
        parts = urlsplit((settings.vision_endpoint or "").strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"VISION_ENDPOINT is no address. {example}") from None
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
        raise ConfigurationError(f"VISION_ENDPOINT is not https:// with the name of a host. {example}")
    if parts.scheme == "http" and not _is_near(host):
        raise ConfigurationError(f"VISION_ENDPOINT is http://, so the key would go to {host} unencrypted. {example}")
    path = re.split("/computervision", parts.path, flags=re.IGNORECASE)[0]
    return f"{parts.scheme}://{parts.netloc.lower()}{path}".rstrip("/")


def _is_near(host: str) -> bool:
    """Whether a host is this machine or has a bare name, as the services of a compose file have for each other."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return "." not in host or host.endswith(".localhost")
