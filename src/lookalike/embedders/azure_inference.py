"""Azure AI Model Inference: the wire format of api-version 2024-05-01-preview, and what its models accept.

https://learn.microsoft.com/rest/api/aifoundry/model-inference/get-image-embeddings

Other servers speak the same routes; what is known of Azure's own models is in `_KINDS`, and any other name is taken as
it is.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from lookalike.config import Settings
from lookalike.embedders.http import Answer, Client, Verdict, read_embeddings
from lookalike.embedders.remote import (
    IDENTITY,
    SCOPE,
    Outcome,
    Payload,
    Refusals,
    RemoteEmbedder,
    azure_verdict,
    checked_endpoint,
    checked_key,
    checked_picture,
    checked_rate,
    data_url,
    in_calls,
    signed_in,
    text_not_fused,
    with_token,
)
from lookalike.embedders.terms import Budget, Ledger, Patience
from lookalike.errors import ConfigurationError, ContractBroken, CredentialsRefused, ItemError
from lookalike.identity import Tokens
from lookalike.types import DIMENSIONS, ImageInput, Limits, Model

_NAME = "Azure AI Model Inference"
_API_VERSION = "2024-05-01-preview"
_TEXTS_PER_CALL = 96
_SERVERLESS = ".inference.ai.azure.com"
_FOUNDRY = ".services.ai.azure.com"
_SERVERLESS_SCOPE = "https://ml.azure.com/.default"
_EXAMPLE = f"It reads https://RESOURCE{_FOUNDRY}/models or https://DEPLOYMENT.REGION{_SERVERLESS}"
_WHERE = (
    "look at the deployment in the Foundry portal under 'Endpoint', or docs/azure-inference.md. "
    "No account yet? `lookalike demo` needs none."
)
_ROLE = (
    "the identity of this machine needs the role Cognitive Services User; or set AZURE_INFERENCE_CREDENTIAL or "
    "AZURE_INFERENCE_CREDENTIAL_FILE"
)


@dataclass(frozen=True, slots=True)
class _Kind:
    """A model of Azure's.

    Attributes:
        dimensions: that can be asked for; empty where it always gives 1024.
        one_image: whether a call may hold no more than that.
        fuses: whether a picture and a text become one vector.
    """

    dimensions: Sequence[int] = ()
    one_image: bool = False
    fuses: bool = False
    max_pixels: int | None = None


_KINDS = {
    "Cohere-embed-v3-english": _Kind(one_image=True),
    "Cohere-embed-v3-multilingual": _Kind(one_image=True),
    "embed-v-4-0": _Kind((1024, 512, 256), max_pixels=2_000_000, fuses=True),
}
MODELS = tuple(f"azure-inference/{name}" for name in _KINDS)
"""Those of Azure's own models that embed pictures into vectors of at most 1024 numbers."""

FUSING = tuple(f"azure-inference/{name}" for name, kind in _KINDS.items() if kind.fuses)
"""Those of them that make one vector of a picture and a text. Another server might drop the text without a word."""

_ENCODINGS = ("int8", "uint8", "binary", "ubinary")

_PARAMETER = r"^body\.(dimensions|encoding_format|input_type|model)\b"
_UNFIT = "does not take what Lookalike sends"
_REFUSALS: Refusals = (
    (400, "content_filter", "refused-content", "refuses the input for what it holds"),
    (400, "custom subdomain", CredentialsRefused, "does not take this kind of credential"),
    (400, "api.version", ContractBroken, f"does not know api-version {_API_VERSION}"),
    (400, "unknown_model|no_model|unavailable_model|DeploymentNotFound", ContractBroken, "does not have the model"),
    (400, r"^body\.(?!input\b)\w+: |not permitted|unrecognized|unexpected", ContractBroken, _UNFIT),
    (401, "", CredentialsRefused, f"refuses AZURE_INFERENCE_CREDENTIAL (401): {_WHERE}"),
    (403, "", CredentialsRefused, "refuses calls: a network rule forbids it, or the credential lacks the right"),
    (404, "", ContractBroken, "has no such model or route, or the model takes no pictures"),
    (405, "", ContractBroken, "does not have this route: it is the endpoint of another kind of model"),
    (410, "", ContractBroken, "has given up these routes"),
    (415, "", ContractBroken, _UNFIT),
    (422, _PARAMETER, ContractBroken, "does not honour a parameter"),
    (422, r"^body\.input\b", "refused-input", "does not take the input"),
)
"""What refusals mean. The rest means what it usually means."""


class AzureInference(RemoteEmbedder):
    """Embeds pictures and texts with a server of these routes. Safe to use from several threads."""

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

        Without a credential, calls go out as the identity that this machine has in Azure, which is asked for a token
        here.

        Args:
            model: one of `MODELS`, or what another server serves; ``+512`` asks it for so many numbers.
            rate: calls a second, by default that of the settings.
            stop: once set, waits are cut short with `Interrupted`.
            ledger: shares the turns of the credential with other processes.
            budget: how many calls may be billed.

        Raises:
            ConfigurationError: a setting is missing or malformed, or the model cannot give so many numbers.
        """
        kind = _kind(model.version)
        known, fixed = known_dimensions(model), settings.azure_inference_dimensions
        dimensions = known or fixed or DIMENSIONS
        self._asked_for = dimensions if kind.dimensions and (known or not fixed) else None
        self._deployment = settings.azure_inference_deployment or model.version
        self._endpoint = _endpoint(settings)
        key = checked_key(settings.azure_inference_credential, "AZURE_INFERENCE_CREDENTIAL")
        rate = checked_rate(settings.azure_inference_rate if rate is None else rate)
        self._key, self._tokens = key, None if key else _tokens(self._endpoint)
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
        limits = Limits(
            max_bytes=5_000_000,
            min_side=1,
            max_side=16_000,
            media_types=frozenset({"image/jpeg", "image/png"}),
            max_pixels=kind.max_pixels,
            urls=False,
        )
        per_call = 1 if kind.one_image else settings.azure_inference_batch
        super().__init__(
            Model(model.name, dimensions),
            limits,
            client,
            rate=rate,
            pictures_per_call=per_call,
            texts_per_call=_TEXTS_PER_CALL,
        )

    def embed_images(self, images: Sequence[ImageInput]) -> list[Outcome]:
        """Embed pictures, as many in a call as `pictures_per_call`.

        Returns:
            As many answers as pictures, in their order: embeddings, or the reasons why not.

        Raises:
            ServiceError: nothing more can be done with this service; its `answered` says what came before.
        """
        send = functools.partial(self._send, "/images/embeddings", "document")
        return in_calls(map(self._picture, images), self.pictures_per_call, send)

    def embed_texts(self, texts: Sequence[str]) -> list[Outcome]:
        """Embed texts, up to 96 in a call.

        Returns:
            As many answers as texts, in their order: embeddings, or the reasons why not.

        Raises:
            ServiceError: nothing more can be done with this service; its `answered` says what came before.
        """
        return in_calls(map(_text, texts), self.texts_per_call, functools.partial(self._send, "/embeddings", "query"))

    def inquire(self) -> str | None:
        """What the endpoint says that it serves, which is not billed; None where it has no such route.

        Raises:
            ServiceError: it refuses the credential, or serves another model.
        """
        try:
            answer = self._signed(functools.partial(self._client.get, "/info", params={"api-version": _API_VERSION}))
        except ContractBroken:  # only serverless deployments have the route
            return None
        served = answer.document.get("model_name") if isinstance(answer, Answer) else None
        if not isinstance(served, str):
            return None
        if not self._is_asked_for(served):
            raise ContractBroken(f"{_NAME} at {self._endpoint} serves {served}, and {self._deployment} was asked for.")
        return f"the endpoint serves {served}"

    def close(self) -> None:
        """Give back connections."""
        super().close()
        if self._tokens is not None:
            self._tokens.close()

    def _picture(self, image: ImageInput) -> Payload | ItemError:
        if image.data is None:
            thing, code = ("videos", "video-not-supported") if image.is_video else ("URLs", "url-not-supported")
            return ItemError(code, f"{_NAME} takes no {thing}. Give the picture itself.")
        if (fault := checked_picture(image.data, self.limits)) is not None:
            return fault
        content = {"image": data_url(image.data)}
        if image.text is not None:
            if self.model.with_text is None:
                return text_not_fused(self.model)
            content["text"] = image.text
        return Payload(content, len(image.data) + len((image.text or "").encode(errors="replace")))

    def _send(self, path: str, input_type: str, contents: Sequence[Any]) -> list[Outcome] | ItemError:
        document: dict[str, Any] = {
            "model": self._deployment,
            "input": list(contents),
            "encoding_format": "float",
            "input_type": input_type,
        }
        if self._asked_for is not None:
            document["dimensions"] = self._asked_for
        post = functools.partial(
            self._client.post, path, params={"api-version": _API_VERSION}, body=json.dumps(document).encode()
        )
        answer = self._signed(post)
        if isinstance(answer, ItemError):
            return answer
        rows, version = answer.document.get("data"), answer.document.get("model")
        pairs = [
            (row.get("index"), _numbers(row.get("embedding"), self.model.dimensions))
            if isinstance(row, dict)
            else (None, None)
            for row in (rows if isinstance(rows, list) else [])
        ]
        if self._is_asked_for(version):
            version = self.model.version
        return read_embeddings(self.model, answer, version=version, rows=pairs, count=len(contents))

    def _signed(self, call: functools.partial[Answer | ItemError]) -> Answer | ItemError:
        # what is not understood is to be refused: were it dropped, the vectors would be of another space
        headers = {"Content-Type": "application/json", "extra-parameters": "error"}
        if self._tokens is None:
            # serverless deployments read the second, Foundry the first
            return call(headers={**headers, "api-key": self._key or "", "Authorization": f"Bearer {self._key}"})
        return with_token(
            self._tokens, self._client, lambda token: call(headers={**headers, "Authorization": f"Bearer {token}"})
        )

    def _is_asked_for(self, served: object) -> bool:
        names = (self.model.version.lower(), self._deployment.lower())
        return isinstance(served, str) and served.lower() in names

    def _classify(self, status: int, codes: tuple[str, ...], message: str, _: Mapping[str, str]) -> Verdict | None:
        role = _ROLE if self._tokens is not None else None
        return azure_verdict(_REFUSALS, status, codes, message, service=_NAME, endpoint=self._endpoint, role=role)


def _kind(version: str) -> _Kind:
    kind = _KINDS.get(version)
    alike = [name for name in _KINDS if name.lower() == version.lower()]
    if kind is None and alike:
        raise ConfigurationError(f"The model is written azure-inference/{alike[0]}: names are told apart by case.")
    return kind or _Kind(range(1, DIMENSIONS + 1))


def known_dimensions(model: Model) -> int | None:
    """How many numbers a model gives; None of other servers' models, where nobody says.

    Raises:
        ConfigurationError: it cannot be asked for so many.
    """
    kind, variant = _kind(model.version), "+".join(model.variants)
    if not variant:
        return DIMENSIONS if model.version in _KINDS else None
    if variant in _ENCODINGS:
        raise ConfigurationError(f"{model.name} cannot be: vectors of {variant} are too coarse; float is asked for.")
    if not variant.isdecimal() or int(variant) not in kind.dimensions:
        choice = f"always gives {DIMENSIONS} numbers"
        if kind.dimensions:
            some = " or ".join(map(str, kind.dimensions)) if model.version in _KINDS else f"1 to {DIMENSIONS}"
            choice = f"can be asked for {some} numbers, written {model.version}+512"
        raise ConfigurationError(f"{model.name} cannot be: {model.version} {choice}.")
    return int(variant)


def _endpoint(settings: Settings) -> str:
    if not (settings.azure_inference_endpoint or "").strip():
        raise ConfigurationError(f"{_NAME} needs AZURE_INFERENCE_ENDPOINT and AZURE_INFERENCE_CREDENTIAL: {_WHERE}")
    endpoint = checked_endpoint(
        settings.azure_inference_endpoint or "",
        "AZURE_INFERENCE_ENDPOINT",
        _EXAMPLE,
        r"/(?:images/embeddings|embeddings|info|chat/completions)\b",
    )
    parts = urlsplit(endpoint)
    is_bare = not parts.path and (parts.hostname or "").endswith(_FOUNDRY)
    return f"{endpoint}/models" if is_bare else endpoint


def _tokens(endpoint: str) -> Tokens:
    scope = _SERVERLESS_SCOPE if (urlsplit(endpoint).hostname or "").endswith(_SERVERLESS) else SCOPE
    try:
        return signed_in(scope, "AZURE_INFERENCE_CREDENTIAL or AZURE_INFERENCE_CREDENTIAL_FILE")
    except ConfigurationError as error:
        raise ConfigurationError(f"{_NAME} needs AZURE_INFERENCE_CREDENTIAL: {_WHERE}\n{error}") from None


def _text(text: str) -> Payload | ItemError:
    if not text.strip():
        return ItemError("empty-text", "The text is empty.")
    if text.lstrip().lower().startswith("data:image/"):
        # it would be embedded letter by letter, without an error
        return ItemError("not-text", "This is a picture written as a URL, not a text. Give it as a picture.")
    return Payload(text, len(text.encode(errors="replace")))


def _numbers(embedding: object, dimensions: int) -> object:
    """A vector as a list of numbers, also where it comes as base64 of packed float32; what is none, as it is.

    Raises:
        ContractBroken: it comes in whole numbers, which are too coarse to be compared with others.
    """
    if isinstance(embedding, str):
        try:
            return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").astype(float).tolist()
        except (binascii.Error, ValueError):
            return embedding
    if isinstance(embedding, list) and any(embedding) and all(type(number) is int for number in embedding):
        signed, packed = min(embedding) < 0, len(embedding) * 8 == dimensions
        name = ("binary" if signed else "ubinary") if packed else ("int8" if signed else "uint8")
        raise ContractBroken(f"{_NAME} answers with vectors of encoding_format {name}, and float was asked for.")
    return embedding
