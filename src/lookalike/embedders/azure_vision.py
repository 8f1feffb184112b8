"""Azure AI Vision, multimodal embeddings: the wire format of api-version 2024-02-01 and what it accepts.

https://learn.microsoft.com/azure/ai-services/computer-vision/how-to/image-retrieval
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Mapping, Sequence
from datetime import date

from lookalike.config import Settings
from lookalike.embedders.http import Client, Verdict, read_embeddings
from lookalike.embedders.remote import (
    IDENTITY,
    NOT_ACCESSIBLE,
    SCOPE,
    Refusals,
    RemoteEmbedder,
    azure_verdict,
    checked_endpoint,
    checked_key,
    checked_picture,
    checked_rate,
    signed_in,
    with_token,
)
from lookalike.embedders.terms import Budget, Ledger, Patience
from lookalike.errors import ConfigurationError, ContractBroken, CredentialsRefused, ItemError, ServiceError
from lookalike.identity import Tokens
from lookalike.types import DIMENSIONS, Embedding, ImageInput, Limits, Model

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
_ROLE = "the identity of this machine needs the role Cognitive Services User; or set VISION_KEY or VISION_KEY_FILE"
_UNFIT = "does not take what Lookalike sends"
_REFUSALS: Refusals = (
    (400, "InvalidImageFormat", "unsupported-format", "cannot read the picture"),
    (400, "NotSupportedImage", "refused-content", "refuses the picture for what it shows"),
    (400, "custom subdomain", CredentialsRefused, "does not take this kind of credential"),
    (400, "in this region", ServiceError, f"has no multimodal embeddings; these regions do: {_REGIONS}"),
    (400, "content type", ContractBroken, _UNFIT),
    (400, "model.?version", ContractBroken, "does not have this version of the model"),
    (400, r"\burl\b", NOT_ACCESSIBLE, "cannot fetch the picture"),
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
"""What Azure's refusals mean. The rest means what it usually means. Messages are not stable, so they only count where
codes say too little."""


class AzureVision(RemoteEmbedder):
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
        key = _key(settings)
        self._endpoint = checked_endpoint(
            settings.vision_endpoint or "",
            "VISION_ENDPOINT",
            "It reads https://RESOURCE.cognitiveservices.azure.com",
            "/computervision",
        )
        rate = checked_rate(settings.vision_rate if rate is None else rate)
        self._key, self._tokens = key, None if key else _tokens()
        client = Client(
            _NAME,
            self._endpoint,
            key or IDENTITY,
            self._classify,
            rate=rate,
            patience=patience,
            stop=stop,
            ledger=ledger,
            budget=budget,
        )
        super().__init__(model, LIMITS, client, rate=rate)

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
        super().close()
        if self._tokens is not None:
            self._tokens.close()

    def _embed_image(self, image: ImageInput) -> Embedding | ItemError:
        if image.is_video:
            return ItemError("video-not-supported", f"{_NAME} takes no videos.")
        if image.data is None:
            return self._call("vectorizeImage", "application/json", json.dumps({"url": image.url}).encode())
        fault = checked_picture(image.data, LIMITS)
        return fault or self._call("vectorizeImage", "application/octet-stream", image.data)

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
            answer = with_token(
                self._tokens,
                self._client,
                lambda token: post(headers={"Authorization": f"Bearer {token}", "Content-Type": content_type}),
            )
        if isinstance(answer, ItemError):
            return answer
        version, vector = answer.document.get("modelVersion"), answer.document.get("vector")
        return read_embeddings(self._model, answer, version=version, rows=[(0, vector)], count=1)[0]

    def _classify(self, status: int, codes: tuple[str, ...], message: str, _: Mapping[str, str]) -> Verdict | None:
        role = _ROLE if self._tokens is not None else None
        return azure_verdict(_REFUSALS, status, codes, message, service=_NAME, endpoint=self._endpoint, role=role)


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
    return checked_key(settings.vision_key, "VISION_KEY")


def _tokens() -> Tokens:
    try:
        return signed_in(SCOPE, "VISION_KEY or VISION_KEY_FILE")
    except ConfigurationError as error:
        raise ConfigurationError(f"{_NAME} needs VISION_KEY: {_WHERE}\n{error}") from None
