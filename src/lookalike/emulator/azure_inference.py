"""The embedding routes of Azure AI Model Inference, api-version 2024-05-01-preview, as a client sees them.

A Foundry resource has them below ``/models``, a serverless deployment at its root and ``/info`` beside them. What the
reference leaves open (which of its two forms of error a fault has, the order of the checks) was chosen so that a client
meets both forms.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.emulator import pictures
from lookalike.emulator.recordings import Vectors
from lookalike.emulator.traffic import damaged
from lookalike.emulator.wire import Answer, Request

_API_VERSION = "2024-05-01-preview"
_IMAGES, _TEXTS, _INFO = "imageEmbeddings", "embeddings", "info"
_FIELDS = frozenset({"model", "input", "dimensions", "encoding_format", "input_type"})
_ENCODINGS = ("float", "base64", "int8", "uint8", "binary", "ubinary")
_INPUT_TYPES = ("text", "query", "document")
_MAX_IMAGE = 5_000_000
_MAX_PIXELS = 2_000_000
_MAX_TEXTS = 96
_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]+;base64,(?P<data>[A-Za-z0-9+/\s]+={0,2}\s*)", re.IGNORECASE)
_IMAGE_TOKENS = 1000


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a model can do; the first of its dimensions is what it gives unasked."""

    dimensions: tuple[int, ...]
    images: int
    pixels: int | None = None


_KINDS = {
    "Cohere-embed-v3-english": _Kind((1024,), images=1),
    "Cohere-embed-v3-multilingual": _Kind((1024,), images=1),
    "embed-v-4-0": _Kind((1536, 256, 512, 1024), images=96, pixels=_MAX_PIXELS),
    "text-embedding-3-small": _Kind((1536, 512, 1024), images=0),
}
_DEPLOYED = "Cohere-embed-v3-english"
"""What stands behind the serverless endpoint, where a call names no model."""

_FAULTS: Mapping[str, tuple[int, str, str]] = {
    "azure-inference:unknown-field": (400, "invalid_parameter", "Extra inputs are not permitted: truncate."),
    "azure-inference:encoding_format": (
        422,
        "parameter_not_supported",
        "One of the parameters contain invalid values.",
    ),
    "azure-inference:input_type": (422, "parameter_not_supported", "One of the parameters contain invalid values."),
    "azure-inference:content_filter": (400, "content_filter", "The input was filtered by the content policy."),
    "azure-inference:subdomain": (
        *(400, "BadRequest"),
        "Please provide a custom subdomain for token authentication, otherwise API key is required.",
    ),
    "azure-inference:403": (403, "PermissionDenied", "The principal lacks the required data action."),
    "azure-inference:405": (405, "MethodNotAllowed", "The route is not supported by this endpoint."),
    "azure-inference:410": (410, "Gone", "The Azure AI Model Inference API has been retired."),
    "azure-inference:413": (413, "RequestEntityTooLarge", "The request body is too large."),
    "azure-inference:502": (502, "BadGateway", "Bad gateway."),
    "azure-inference:504": (504, "GatewayTimeout", "The gateway timed out."),
}
"""What the service says that no input brings about, or none that a careful client sends."""


class AzureInference:
    """Answers calls of ``images/embeddings``, ``embeddings`` and ``info``.

    Attributes:
        roots: what its paths begin with.
        operations: the operation behind each method and path.
        faults: what only this service has to say.
        models: names of the models, as recordings name them.
        max_body: the largest request body in bytes; a larger one is not read.
    """

    roots = ("/models", "/images/embeddings", "/embeddings", "/info")
    operations: Mapping[str, str] = {
        "POST /models/images/embeddings": _IMAGES,
        "POST /images/embeddings": _IMAGES,
        "POST /models/embeddings": _TEXTS,
        "POST /embeddings": _TEXTS,
        "GET /info": _INFO,
    }
    faults = tuple(_FAULTS)
    models = frozenset(f"azure-inference/{name}" for name, kind in _KINDS.items() if kind.images)
    max_body = 32 << 20

    def __init__(self, vectors: Vectors, key: str) -> None:
        self._vectors = vectors
        self._key = key

    def admit(self, request: Request) -> Answer | None:
        """What the gateway refuses before it counts the call: the api-version (400), the key (401)."""
        if request.query.get("api-version") != _API_VERSION:
            return _nested(400, "BadRequest", f"API version not supported; it is {_API_VERSION}.")
        return None if self._knows(request) else self.refuse(401)

    def throttle(self, _operation: str, seconds: int) -> Answer:
        """The 429 of a call that would be taken again in `seconds`."""
        return _nested(429, "too_many_requests", f"Rate limit is exceeded. Try again in {seconds} seconds.")

    def refuse(self, status: int, message: str | None = None) -> Answer:
        """An error of the gateway or of the service as a whole, not of the input."""
        usual = {
            401: ("Unauthorized", "Access token is missing, invalid, audience is incorrect, or have expired."),
            404: ("NotFound", "Resource not found"),
            500: ("InternalServerError", "An internal error occurred. Please try again later."),
            503: ("ServiceUnavailable", "The service is temporarily unavailable. Please try again later."),
        }
        code, words = usual.get(status, (str(status), "The request was refused."))
        return _nested(status, code, message or words)

    def meet(self, fault: str) -> Answer:
        """What it answers to a call that meets one of its `faults`."""
        status, code, message = _FAULTS[fault]
        if code in ("content_filter", "invalid_parameter", "parameter_not_supported"):
            named = fault.partition(":")[2]
            return _flat(status, code, message, {"loc": ["body", named], "input": ""} if status == 422 else None)
        return _nested(status, code, message)

    def answer(self, operation: str, request: Request, fault: str | None) -> Answer:
        """Check the input of an admitted call (400, 404, 413, 422) and answer it (200).

        Args:
            fault: how to damage a 200: ``wrong-model``, ``wrong-length``, ``nan`` or ``zero``. Others leave it whole.
        """
        if operation == _INFO:
            kind = {"model_name": _DEPLOYED, "model_type": "embeddings", "model_provider_name": "Cohere"}
            return Answer(200, json.dumps(kind).encode(), headers=(_request_id(),))
        if request.body is None:
            return _nested(413, "RequestEntityTooLarge", f"The body has more than {self.max_body} bytes.")
        try:
            document = _document(request)
            name = _model(document, request)
            inputs = document.get("input")
            if not isinstance(inputs, list) or not inputs:
                raise _Refused(422, ["body", "input"], "The input must be a list that is not empty.", inputs)
            parts = _images(inputs, name) if operation == _IMAGES else _texts(inputs)
            dimensions, encoding = _parameters(document, name)
        except _Refused as refused:
            return refused.answer
        vectors = [self._vectors.fused(part, f"azure-inference/{name}", dimensions) for part in parts]
        tokens = sum(_tokens(thing) for part in parts for thing in part)
        rows = (
            f'{{"index":{index},"object":"embedding","embedding":{_encoded(damaged(vector, fault), encoding)}}}'
            for index, vector in enumerate(vectors)
        )
        told = next(other for other in _KINDS if other != name) if fault == "wrong-model" else name
        usage = {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}
        body = (
            f'{{"id":"{uuid.uuid4()}","object":"list","model":{json.dumps(told)},'
            f'"data":[{",".join(rows)}],"usage":{json.dumps(usage)}}}'
        )
        return Answer(200, body.encode(), headers=(_request_id(),), billed=True)

    def _knows(self, request: Request) -> bool:
        key = request.headers.get("api-key")
        if key is not None:
            return key == self._key
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and bool(token.strip())


class _Refused(Exception):
    """The call cannot be answered."""

    def __init__(self, status: int, place: Sequence[str | int], message: str, given: object, code: str = "") -> None:
        # the reference has one object there, and samples that go over a list of them
        detail: Any = {"loc": list(place), "input": str(given)[:80]}
        if "input" in place:
            detail = [{"loc": list(place), "value": str(given)[:80], "message": message}]
        self.answer = _flat(status, code or "parameter_not_supported", message, detail)
        super().__init__(message)


def _document(request: Request) -> dict[str, Any]:
    try:
        document = json.loads(request.body or b"")
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise _Refused(400, ["body"], "The body must be a JSON object.", "", "invalid_request")
    manner = request.headers.get("extra-parameters", "error")
    if manner not in ("error", "drop", "pass-through"):
        raise _Refused(400, ["header", "extra-parameters"], "It is error, drop or pass-through.", manner, "BadRequest")
    extra = sorted(document.keys() - _FIELDS)
    if extra and manner == "error":
        message = f"Extra inputs are not permitted: {', '.join(extra)}."
        raise _Refused(400, ["body", extra[0]], message, document[extra[0]], "invalid_parameter")
    if manner == "pass-through" and "output_dimension" in document:  # Cohere's own name for it
        document.setdefault("dimensions", document["output_dimension"])
    return document


def _model(document: Mapping[str, Any], request: Request) -> str:
    name = document.get("model")
    if name is None and not request.path.startswith("/models"):
        return _DEPLOYED
    if name is None:
        raise _Refused(400, ["body", "model"], "No model specified in request.", None, "no_model_name")
    known = next((known for known in _KINDS if known.lower() == str(name).lower()), None)
    if known is None:
        raise _Refused(404, ["body", "model"], f"Unknown model: {name}", name, "unknown_model")
    return known


def _images(inputs: list[Any], name: str) -> list[list[bytes | str]]:
    kind = _KINDS[name]
    if not kind.images:
        raise _Refused(
            404, ["body", "model"], f"The model {name} does not embed images.", name, "modality_not_supported"
        )
    if len(inputs) > kind.images:
        message = f"The model {name} takes {kind.images} image(s) per call."
        raise _Refused(422, ["body", "input"], message, len(inputs))
    parts: list[list[bytes | str]] = []
    for index, element in enumerate(inputs):
        place: list[str | int] = ["body", "input", index, "image"]
        image = element.get("image") if isinstance(element, dict) else None
        match = _DATA_URL.fullmatch(image) if isinstance(image, str) else None
        if match is None or element.keys() - {"image", "text"}:
            raise _Refused(422, place, "An image is a data URL: data:image/{format};base64,{data}.", element)
        try:
            data = base64.b64decode(match["data"], validate=True)
            width, height = pictures.dimensions(data)
        except (binascii.Error, pictures.NotAPicture):
            raise _Refused(422, place, "The image cannot be decoded.", image) from None
        except pictures.TooManyPixels:
            raise _Refused(422, place, "The image has too many pixels.", image) from None
        if not data.startswith((b"\xff\xd8\xff", b"\x89PNG")):
            raise _Refused(422, place, "The image must be JPEG or PNG.", image)
        if len(data) > _MAX_IMAGE:
            raise _Refused(422, place, f"The image is larger than {_MAX_IMAGE} bytes.", image)
        if kind.pixels is not None and width * height > kind.pixels:
            raise _Refused(422, place, f"The image has more than {kind.pixels} pixels.", image)
        text = element.get("text")
        if text is not None and not isinstance(text, str):
            raise _Refused(422, [*place[:3], "text"], "The text of an image is a string.", text)
        parts.append([data, text] if text else [data])
    return parts


def _texts(inputs: list[Any]) -> list[list[bytes | str]]:
    if len(inputs) > _MAX_TEXTS:
        raise _Refused(422, ["body", "input"], f"At most {_MAX_TEXTS} texts are taken per call.", len(inputs))
    for index, text in enumerate(inputs):
        if not isinstance(text, str) or not text.strip():
            raise _Refused(422, ["body", "input", index], "A text is a string that is not empty.", text)
    return [[text] for text in inputs]


def _parameters(document: Mapping[str, Any], name: str) -> tuple[int, str]:
    choice = _KINDS[name].dimensions
    dimensions = document.get("dimensions", choice[0])
    if type(dimensions) is not int or dimensions not in choice:
        raise _Refused(422, ["body", "dimensions"], "One of the parameters contain invalid values.", dimensions)
    encoding = document.get("encoding_format", "float")
    if encoding not in _ENCODINGS:
        raise _Refused(422, ["body", "encoding_format"], "One of the parameters contain invalid values.", encoding)
    input_type = document.get("input_type", "text")
    if input_type not in _INPUT_TYPES:
        raise _Refused(422, ["body", "input_type"], "One of the parameters contain invalid values.", input_type)
    return dimensions, encoding


def _tokens(thing: bytes | str) -> int:
    return _IMAGE_TOKENS if isinstance(thing, bytes) else len(thing.split()) + 2


def _encoded(numbers: tuple[str, ...], encoding: str) -> str:
    """A vector as the body has it: numbers, or one string."""
    if encoding == "float":
        return f"[{','.join(numbers)}]"
    vector = np.array(numbers, np.float32)
    if encoding == "base64":
        return json.dumps(base64.b64encode(vector.astype("<f4").tobytes()).decode())
    whole: npt.NDArray[np.integer[Any]]
    if encoding in ("binary", "ubinary"):
        whole = np.packbits(vector > 0)
        if encoding == "binary":
            whole = (whole.astype(np.int16) - 128).astype(np.int8)
    else:
        whole = np.rint(vector / np.abs(vector).max() * 127).astype(np.int16)
        if encoding == "uint8":
            whole = whole + 128
    return json.dumps(whole.tolist())


def _request_id() -> tuple[str, str]:
    return "apim-request-id", str(uuid.uuid4())


def _nested(status: int, code: str, message: str) -> Answer:
    error: dict[str, Any] = {
        "code": code,
        "message": message,
        "target": None,
        "details": [],
        "innererror": {"code": code},
    }
    return _refusal(status, code, {"error": error})


def _flat(status: int, code: str, message: str, detail: Any = None) -> Answer:
    return _refusal(status, code, {"status": status, "code": code, "message": message, "detail": detail})


def _refusal(status: int, code: str, body: Mapping[str, Any]) -> Answer:
    return Answer(status, json.dumps(body).encode(), headers=(("x-ms-error-code", code), _request_id()))
