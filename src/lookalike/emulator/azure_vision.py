"""The multimodal embeddings of Azure AI Vision 4.0, as a client sees them.

What Microsoft documents is followed to the letter. Where nothing is documented (the code of a text that is too long or
of an unknown model version, the status that goes with ``Gone``, the order of the checks), the likeliest was chosen.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from lookalike.emulator import pictures
from lookalike.emulator.recordings import Vectors
from lookalike.emulator.traffic import damaged
from lookalike.emulator.wire import Answer, Request

MAX_BYTES = 20_971_520
MAX_WORDS = 70
MODEL_VERSIONS = ("2023-04-15", "2022-04-11")
"""The first one is what ``latest``, or no version, means."""

_IMAGE = "vectorizeImage"
_TEXT = "vectorizeText"
_API_VERSION = "2024-02-01"
_RETIRED_API_VERSIONS = frozenset(
    {
        "v4.0-preview.1",
        "2022-07-31-preview",
        "2022-10-12-preview",
        "2023-02-01-preview",
        "2023-04-01-preview",
        "2023-07-01-preview",
    }
)
_SIDES = range(11, 16_000)
_GATEWAY_ERRORS = {
    400: ("BadRequest", "The request is badly formed."),
    401: (
        "401",
        "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
        "active subscription and use a correct regional API endpoint for your resource.",
    ),
    404: ("404", "Resource not found"),
    500: ("InternalServerError", "An internal error occurred. Please try again later."),
    503: ("ServiceUnavailable", "The service is temporarily unavailable. Please try again later."),
}

_FAULTS: Mapping[str, tuple[int, str, str]] = {
    "azure-vision:region": (400, "InvalidRequest", "This operation is not enabled in this region."),
    "azure-vision:feature": (400, "InvalidRequest", "The feature is not supported in this region."),
    "azure-vision:content-type": (400, "InvalidRequest", "The provided image content type '' is not supported."),
    "azure-vision:bytes": (
        *(400, "InvalidRequest"),
        f"The image size is not allowed to be zero or larger than {MAX_BYTES} bytes.",
    ),
    "azure-vision:words": (400, "InvalidRequest", f"The text must have 1 to {MAX_WORDS} words."),
    "azure-vision:NotSupportedImage": (400, "NotSupportedImage", "The image is not supported."),
    "azure-vision:subdomain": (
        *(400, "BadRequest"),
        "Please provide a custom subdomain for token authentication, otherwise API key is required.",
    ),
    "azure-vision:PermissionDenied": (401, "PermissionDenied", "Access denied due to invalid subscription key."),
    "azure-vision:quota": (403, "403", "Out of call volume quota. Quota will be replenished in 12 days."),
    "azure-vision:firewall": (403, "403", "Access denied due to Virtual Network/Firewall rules."),
    "azure-vision:AuthenticationTypeDisabled": (
        *(403, "AuthenticationTypeDisabled"),
        "Key based authentication is disabled for this resource.",
    ),
    "azure-vision:408": (408, "Timeout", "The operation timed out."),
    "azure-vision:Gone": (410, "Gone", f"Computer Vision {_API_VERSION} has been deprecated. Please upgrade."),
    "azure-vision:UnsupportedMediaType": (415, "UnsupportedMediaType", "Unsupported media type."),
    "azure-vision:FailedToProcess": (500, "FailedToProcess", "Failed to process image."),
    "azure-vision:Timeout": (500, "Timeout", "Image processing timed out."),
    "azure-vision:StorageException": (500, "StorageException", "Image processing failed due to storage."),
    "azure-vision:502": (502, "BadGateway", "Bad gateway."),
    "azure-vision:504": (504, "GatewayTimeout", "The gateway timed out."),
    "azure-vision:no-vector": (200, "", ""),
}
"""What the service says that no input brings about, or none that a careful client sends."""


class AzureVision:
    """Answers calls of ``vectorizeImage`` and ``vectorizeText``.

    Attributes:
        roots: what its paths begin with.
        operations: the operation behind each method and path.
        faults: what only this service has to say.
        models: names of the models, as recordings name them.
        max_body: the largest request body in bytes; a larger one is not read.
    """

    roots = ("/computervision/",)
    operations: Mapping[str, str] = {
        f"POST /computervision/retrieval:{operation}": operation for operation in (_IMAGE, _TEXT)
    }
    faults = tuple(_FAULTS)
    models = frozenset(f"azure-vision/{version}" for version in MODEL_VERSIONS)
    max_body = MAX_BYTES

    def __init__(self, vectors: Vectors, key: str) -> None:
        self._vectors = vectors
        self._key = key

    def admit(self, request: Request) -> Answer | None:
        """What the gateway refuses before it counts the call: the api-version (404, 410), the key (401)."""
        version = request.query.get("api-version")
        if version in _RETIRED_API_VERSIONS:
            return _error(
                410,
                "Gone",
                f"Computer Vision {version} has been deprecated. Please upgrade to the latest Computer Vision GA "
                "service - https://azure.microsoft.com/en-us/updates?id=475779 ",
            )
        if version != _API_VERSION:
            return self.refuse(404)
        return None if self._knows(request) else self.refuse(401)

    def throttle(self, operation: str, seconds: int) -> Answer:
        """The 429 of a call that would be taken again in `seconds`."""
        name = f"ImageRetrieval_{operation[0].upper()}{operation[1:]}"
        subject = f"Requests to the {name} Operation under Computer Vision API ({_API_VERSION}) have exceeded"
        # A paid resource is measured by the second; only the free tier makes callers wait longer.
        if seconds == 1:
            message = (
                f"{subject} rate limit of your current ComputerVision S1 pricing tier. Please retry after 1 second. "
                "Please contact Azure support service if you would like to further increase the default rate limit."
            )
        else:
            message = (
                f"{subject} call rate limit of your current ComputerVision F0 pricing tier. "
                f"Please retry after {seconds} seconds. To increase your rate limit switch to a paid tier."
            )
        return _error(429, "429", message)

    def refuse(self, status: int, message: str | None = None) -> Answer:
        """An error of the gateway or of the service as a whole, not of the input."""
        code, usual = _GATEWAY_ERRORS.get(status, (str(status), "The request was refused."))
        return _error(status, code, message or usual)

    def meet(self, fault: str) -> Answer:
        """What it answers to a call that meets one of its `faults`."""
        status, code, message = _FAULTS[fault]
        if status == 200:
            return Answer(200, b'{"modelVersion":"2023-04-15"}', headers=(_request_id(),), billed=True)
        return _error(status, code, message)

    def answer(self, operation: str, request: Request, fault: str | None) -> Answer:
        """Check the input of an admitted call (400) and answer it (200).

        Args:
            fault: how to damage a 200: ``wrong-model``, ``wrong-length``, ``nan`` or ``zero``. Others leave it whole.
        """
        try:
            # The order is that of the service: content type, model version, then the input itself.
            is_json = _checked_content_type(operation, request)
            version = _checked_model_version(request)
            data = _text(request) if operation == _TEXT else _picture(request, is_json)
        except _Refused as refused:
            return refused.answer
        if fault == "wrong-model":
            version = next(other for other in MODEL_VERSIONS if other != version)
        numbers = damaged(self._vectors.numbers(data, f"azure-vision/{version}"), fault)
        body = f'{{"modelVersion":"{version}","vector":[{",".join(numbers)}]}}'
        return Answer(200, body.encode(), headers=(_request_id(),), billed=True)

    def _knows(self, request: Request) -> bool:
        key = request.headers.get("Ocp-Apim-Subscription-Key")
        if key is not None:
            return key == self._key
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and bool(token.strip())


class _Refused(Exception):
    """The input cannot be embedded."""

    def __init__(self, message: str, inner: str | None = None) -> None:
        self.answer = _error(400, "InvalidRequest", message, inner)
        super().__init__(message)


def _checked_content_type(operation: str, request: Request) -> bool:
    """Whether the body is JSON; else it is a picture."""
    given = request.headers.get("Content-Type", "")
    media_type = given.partition(";")[0].strip().lower()
    if media_type == "application/json":
        return True
    if operation == _IMAGE and media_type == "application/octet-stream":
        return False
    raise _Refused(f"The provided image content type '{given}' is not supported.")


def _checked_model_version(request: Request) -> str:
    version = request.query.get("model-version", "latest")
    if version == "latest":
        return MODEL_VERSIONS[0]
    if version not in MODEL_VERSIONS:
        raise _Refused(f"The model version '{version}' is not supported.", "BadArgument")
    return version


def _text(request: Request) -> str:
    text = _json_field(request.body, "text") if request.body is not None else ""
    words = len(text.split())
    if not 1 <= words <= MAX_WORDS:
        raise _Refused(f"The text must have 1 to {MAX_WORDS} words.", "BadArgument")
    return text


def _picture(request: Request, is_json: bool) -> bytes:
    data = request.body
    if is_json and data:
        try:
            data = pictures.fetch(_json_field(data, "url"), MAX_BYTES)
        except pictures.NotAccessible:
            raise _Refused("The provided image url is not accessible.") from None
    if data is None or not 0 < len(data) <= MAX_BYTES:
        raise _Refused(f"The image size is not allowed to be zero or larger than {MAX_BYTES} bytes.")
    try:
        width, height = pictures.dimensions(data)
    except pictures.NotAPicture:
        raise _Refused("Image format is not valid.", "InvalidImageFormat") from None
    except pictures.TooManyPixels:
        width = height = _SIDES.stop
    if width not in _SIDES or height not in _SIDES:
        raise _Refused(
            f"The image dimension is not allowed to be smaller than {_SIDES.start - 1} and larger than {_SIDES.stop}.",
            "InvalidImageSize",
        )
    return data


def _json_field(body: bytes, name: str) -> str:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, str):
        raise _Refused(f"The request body must be a JSON object with a string '{name}'.", "BadArgument")
    return value


def _request_id() -> tuple[str, str]:
    return "apim-request-id", str(uuid.uuid4())


def _error(status: int, code: str, message: str, inner: str | None = None) -> Answer:
    error: dict[str, Any] = {"code": code, "message": message}
    if inner is not None:
        error["innererror"] = {"code": inner, "message": message}
    return Answer(status, json.dumps({"error": error}).encode(), headers=(("x-ms-error-code", code), _request_id()))
