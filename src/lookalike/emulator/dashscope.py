"""DashScope's multimodal embeddings (Alibaba Cloud Model Studio), as a client sees them.

The pages contradict each other on limits, and say little of the words of an error. The newer page was followed, and
codes are those of its tables.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lookalike.emulator import pictures
from lookalike.emulator.recordings import Vectors
from lookalike.emulator.traffic import damaged
from lookalike.emulator.wire import Answer, Request

_OPERATION = "multimodalEmbedding"
_MB = 1 << 20
_BEIJING, _SINGAPORE = "cn-beijing", "ap-southeast-1"
_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]+;base64,(?P<data>[A-Za-z0-9+/\s]+={0,2}\s*)", re.IGNORECASE)
_MODALITIES = ("text", "image", "video", "multi_images")
_PARAMETERS = frozenset(
    {"dimension", "output_type", "fps", "instruct", "enable_fusion", "res_level", "max_video_frames", "auto_truncation"}
)
_OLD_PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"BM")
_NEW_PICTURES = (*_OLD_PICTURES, b"RIFF", b"II*\0", b"MM\0*")
_VIDEOS = re.compile(rb"(?s)....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI |\x00\x00\x01[\xba\xb3]|FLV")
_IMAGE_TOKENS = (127, 402, 578, 1026)
"""Of one picture or frame, by ``res_level``."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a model takes and gives.

    Attributes:
        dimensions: the first is what it gives unasked; one alone cannot be asked for.
        image, video: bytes that are the most.
        most: how many contents of each kind one call may hold.
        fused: whether it makes one vector of all contents, whatever is asked.
        usage: which form its usage has.
    """

    dimensions: tuple[int, ...]
    regions: tuple[str, ...]
    image: int
    video: int
    most: Mapping[str, int]
    usage: str
    fused: bool = False
    formats: tuple[bytes, ...] = _OLD_PICTURES

    @property
    def is_snapshot(self) -> bool:
        return self.usage == "tongyi" and len(self.dimensions) > 1


_BOTH = (_BEIJING, _SINGAPORE)
_SNAPSHOT = {"contents": 20, "image": 64, "video": 8, "multi_images": 0}
_KINDS: Mapping[str, _Kind] = {
    "multimodal-embedding-v1": _Kind(
        (1024,), (_BEIJING,), 3 * _MB, 10 * _MB, {"contents": 20, "image": 1, "video": 1, "multi_images": 0}, "v1"
    ),
    "tongyi-embedding-vision-plus": _Kind((1152,), _BOTH, 3 * _MB, 10 * _MB, {"multi_images": 8}, "tongyi"),
    "tongyi-embedding-vision-flash": _Kind((768,), _BOTH, 3 * _MB, 10 * _MB, {"multi_images": 8}, "tongyi"),
    "tongyi-embedding-vision-plus-2026-03-06": _Kind(
        (1152, 1024, 512, 256, 128, 64), (_BEIJING,), 10 * _MB, 50 * _MB, _SNAPSHOT, "tongyi"
    ),
    "tongyi-embedding-vision-flash-2026-03-06": _Kind(
        (768, 512, 256, 128, 64), (_BEIJING,), 10 * _MB, 50 * _MB, _SNAPSHOT, "tongyi"
    ),
    "qwen3-vl-embedding": _Kind(
        (2560, 2048, 1536, 1024, 768, 512, 256),
        (_BEIJING,),
        10 * _MB,
        50 * _MB,
        {"contents": 20, "image": 5, "video": 1, "multi_images": 0},
        "qwen3",
        formats=_NEW_PICTURES,
    ),
    "qwen2.5-vl-embedding": _Kind(
        (1024, 2048, 768, 512),
        (_BEIJING,),
        5 * _MB,
        50 * _MB,
        {"text": 1, "image": 1, "video": 1, "multi_images": 0},
        "qwen2.5",
        fused=True,
        formats=_NEW_PICTURES,
    ),
}
_TEXT_MODELS = ("text-embedding-v3", "text-embedding-v4")

_QUOTA = "Throttling.AllocationQuota"
_FAULTS: Mapping[str, tuple[int, str, str]] = {
    f"dashscope:{kind}": said
    for kind, said in {
        "InvalidParameter": (400, "InvalidParameter", "The parameter dimension is not supported by the model."),
        "EmptyInput": (400, "BadRequest.EmptyInput", 'Required parameter "input" missing from request.'),
        "EmptyParameters": (400, "BadRequest.EmptyParameters", 'Required parameter "parameters" missing from request.'),
        "EmptyModel": (400, "BadRequest.EmptyModel", 'Required parameter "model" missing from request.'),
        "UnsupportedOperation": (400, "UnsupportedOperation", "The operation is unsupported on the referee object."),
        "DataInspectionFailed": (400, "DataInspectionFailed", "Input data may contain inappropriate content."),
        "FaqRuleBlocked": (400, "FaqRuleBlocked", "Input or output data is blocked by faq rule."),
        "CustomRoleBlocked": (400, "CustomRoleBlocked", "Input or output data may contain inappropriate content."),
        "Arrearage": (400, "Arrearage", "Access denied, please make sure your account is in good standing."),
        "Arrearage-403": (403, "Arrearage", "Access denied, please make sure your account is in good standing."),
        "AccessDenied": (403, "AccessDenied", "Access denied."),
        "Workspace.AccessDenied": (403, "Workspace.AccessDenied", "Workspace access denied."),
        "Model.AccessDenied": (403, "Model.AccessDenied", "Model access denied."),
        "AccessDenied.Unpurchased": (403, "AccessDenied.Unpurchased", "Access to model denied. Please purchase it."),
        "FreeTierOnly": (403, "AllocationQuota.FreeTierOnly", "The free tier of the model has been exhausted."),
        "WorkSpaceNotFound": (404, "WorkSpaceNotFound", "WorkSpace can not be found."),
        "RequestTimeOut": (408, "RequestTimeOut", "Request timed out, please try again later."),
        "TooLarge": (413, "BadRequest.TooLarge", "Payload too large."),
        "InputDownloadFailed": (415, "InputDownloadFailed", "Failed to download the input file."),
        "Throttling": (429, "Throttling", "Requests throttling triggered."),
        "LimitRequests": (429, "LimitRequests", "You exceeded your current requests list."),
        "burst": (429, "Throttling", "Request rate increased too quickly."),
        "tokens": (429, _QUOTA, "Allocated quota exceeded, please increase your quota limit."),
        "exhausted": (429, _QUOTA, "Free allocated quota exceeded."),
        "PrepaidBillOverdue": (429, "PrepaidBillOverdue", "The prepaid bill is overdue."),
        "PostpaidBillOverdue": (429, "PostpaidBillOverdue", "The postpaid bill is overdue."),
        "CommodityNotPurchased": (429, "CommodityNotPurchased", "Commodity has not purchased yet."),
        "insufficient_quota": (429, "insufficient_quota", "You exceeded your current quota."),
        "InternalError": (500, "InternalError", "An internal error has occurred, please try again later."),
        "InternalError.Timeout": (500, "InternalError.Timeout", "An internal timeout error has occurred."),
        "SystemError": (500, "SystemError", "An system error has occurred, please try again later."),
        "ModelServiceFailed": (500, "ModelServiceFailed", "Failed to request model service."),
        "ModelUnavailable": (503, "ModelUnavailable", "Model is unavailable, please try again later."),
        "ServiceOverloaded": (503, "Throttling.ServiceOverloaded", "Too many requests. Your requests are throttled."),
        "ServiceOverloaded-429": (429, "Throttling.ServiceOverloaded", "Too many requests are being processed."),
        "200-DataInspectionFailed": (200, "DataInspectionFailed", "Input data may contain inappropriate content."),
        "200-Throttling": (200, "Throttling.RateQuota", "Requests rate limit exceeded, please try again later."),
        "200-Arrearage": (200, "Arrearage", "Access denied, please make sure your account is in good standing."),
    }.items()
}
"""What the service says that no input brings about, or none that a careful client sends. Some errors come with status
200."""


class DashScope:
    """Answers calls of the multimodal embedding.

    Attributes:
        roots: what its paths begin with.
        operations: the operation behind each method and path.
        faults: what only this service has to say.
        models: names of the models, as recordings name them.
        max_body: the largest request body in bytes; a larger one is not read.
    """

    roots = ("/api/",)
    operations: Mapping[str, str] = {
        "POST /api/v1/services/embeddings/multimodal-embedding/multimodal-embedding": _OPERATION
    }
    faults = tuple(_FAULTS)
    models = frozenset(f"dashscope/{name}" for name in _KINDS)
    max_body = 96 * _MB

    def __init__(self, vectors: Vectors, key: str, region: str) -> None:
        self._vectors = vectors
        self._key = key
        self._region = region

    def admit(self, request: Request) -> Answer | None:
        """What is refused before the call is counted: the key (401)."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        return None if scheme.lower() == "bearer" and key.strip() == self._key else self.refuse(401)

    def throttle(self, _operation: str, _seconds: int) -> Answer:
        """The 429 of a call beyond the rate limit; it does not say when to come back."""
        return _error(429, "Throttling.RateQuota", "Requests rate limit exceeded, please try again later.")

    def refuse(self, status: int, message: str | None = None) -> Answer:
        """An error of the service as a whole, not of the input."""
        usual = {
            401: ("InvalidApiKey", "Invalid API-key provided."),
            404: ("NotFound", "The requested path does not exist."),
            500: ("InternalError", "An internal error has occurred, please try again later."),
            503: ("ModelUnavailable", "Model is unavailable, please try again later."),
        }
        code, words = usual.get(status, ("InvalidParameter", "The request is badly formed."))
        return _error(status, code, message or words)

    def meet(self, fault: str) -> Answer:
        """What it answers to a call that meets one of its `faults`."""
        return _error(*_FAULTS[fault])

    def answer(self, _operation: str, request: Request, fault: str | None) -> Answer:
        """Check the input of an admitted call (400, 404, 413, 415) and answer it (200).

        Args:
            fault: how to damage a 200: ``wrong-length``, ``nan``, ``zero``, or ``wrong-model``, which shows nowhere, as
                answers do not name the model. Others leave it whole.
        """
        try:
            if request.body is None:
                raise _Refused(413, "BadRequest.TooLarge", "Payload too large.")
            document = _document(request.body)
            name = self._model(document)
            kind = _KINDS[name]
            parameters = _parameters(document, name)
            contents = _contents(document, kind)
        except _Refused as refused:
            return refused.answer
        dimensions = parameters.get("dimension", kind.dimensions[0])
        space = "dashscope/" + (next(other for other in _KINDS if other != name) if fault == "wrong-model" else name)
        together = kind.fused or parameters.get("enable_fusion") is True
        if together:
            contents = [[part for content in contents for part in content]]
        rows = []
        for index, parts in enumerate(contents):
            numbers = self._vectors.fused([data for _, data in parts], space, dimensions)
            vector = ",".join(damaged(numbers, fault))
            rows.append(f'{{"index":{index},"embedding":[{vector}],"type":"{_type(parts, kind, together)}"}}')
        usage = _usage(kind, [part for parts in contents for part in parts], parameters.get("res_level", 1))
        body = (
            f'{{"output":{{"embeddings":[{",".join(rows)}]}},"usage":{json.dumps(usage)},'
            f'"request_id":"{uuid.uuid4()}"}}'
        )
        return Answer(200, body.encode(), billed=True)

    def _model(self, document: Mapping[str, Any]) -> str:
        name = document.get("model")
        if not name:
            raise _Refused(400, "BadRequest.EmptyModel", 'Required parameter "model" missing from request.')
        if name in _TEXT_MODELS:
            raise _Refused(400, "InvalidParameter", "url error, please check url！")
        if name not in _KINDS or self._region not in _KINDS[str(name)].regions:
            raise _Refused(404, "ModelNotFound", f"Model can not be found: {str(name)[:80]}")
        return str(name)


class _Refused(Exception):
    """The call cannot be answered."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.answer = _error(status, code, message)
        super().__init__(message)


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise _Refused(400, "InvalidParameter", "The request body is not valid JSON.")
    return document


def _parameters(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    kind = _KINDS[name]
    parameters = document.get("parameters") or {}
    if not isinstance(parameters, dict) or parameters.keys() - _PARAMETERS:
        raise _wrong("parameters", "holds something that is no parameter")
    if "dimension" in parameters:
        if len(kind.dimensions) == 1:
            raise _wrong("dimension", f"is not supported by the model {name}")
        if parameters["dimension"] not in kind.dimensions:
            raise _wrong("dimension", f"must be one of {list(kind.dimensions)}")
    if parameters.get("output_type", "dense") != "dense":
        raise _wrong("output_type", "must be dense")
    fps = parameters.get("fps", 1.0)
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 <= fps <= 1:
        raise _wrong("fps", "must be in [0, 1]")
    if "enable_fusion" in parameters and (kind.usage != "qwen3" or not isinstance(parameters["enable_fusion"], bool)):
        raise _wrong("enable_fusion", f"is not supported by the model {name}")
    for parameter, most in (("res_level", 3), ("max_video_frames", 64)):
        if parameter in parameters and (not kind.is_snapshot or parameters[parameter] not in range(most + 1)):
            raise _wrong(parameter, f"is not supported by the model {name}")
    return parameters


def _contents(document: Mapping[str, Any], kind: _Kind) -> list[list[tuple[str, bytes | str]]]:
    """The parts of each content: its modality, with a text or with the bytes that make its vector."""
    given = document.get("input")
    contents = given.get("contents") if isinstance(given, dict) else None
    if not isinstance(contents, list) or not contents:
        raise _Refused(400, "BadRequest.EmptyInput", 'Required parameter "input.contents" missing from request.')
    if len(contents) > kind.most.get("contents", len(contents)):
        raise _wrong("contents", f"must have at most {kind.most['contents']} elements")
    parts = [_parts(content, kind) for content in contents]
    for modality, count in Counter(modality for content in parts for modality, _ in content).items():
        if count > kind.most.get(modality, count):
            raise _wrong("contents", f"must have at most {kind.most[modality]} of type {modality}")
    return parts


def _parts(content: object, kind: _Kind) -> list[tuple[str, bytes | str]]:
    if isinstance(content, str):
        content = {"text": content}
    given = {name: value for name, value in content.items() if name != "factor"} if isinstance(content, dict) else {}
    if not given or given.keys() - set(_MODALITIES):
        raise _wrong("contents", "must hold text, image, video or multi_images")
    if len(given) > 1 and not kind.is_snapshot:
        raise _wrong("contents", "must hold one type in each element")
    parts: list[tuple[str, bytes | str]] = []
    for modality, value in given.items():
        if kind.most.get(modality, 1) == 0:
            raise _wrong(modality, "is not supported by the model")
        if modality == "multi_images":
            if not isinstance(value, list) or not 1 <= len(value) <= kind.most[modality]:
                raise _wrong(modality, f"must be a list of 1 to {kind.most[modality]} images")
            parts += [(modality, _image(one, kind)) for one in value]
        elif not isinstance(value, str) or not value.strip():
            raise _wrong(modality, "must be a string that is not empty")
        elif modality == "text":
            parts.append((modality, value))
        else:
            parts.append((modality, _image(value, kind) if modality == "image" else _video(value, kind)))
    return parts


def _image(value: object, kind: _Kind) -> bytes:
    match = _DATA_URL.fullmatch(value) if isinstance(value, str) else None
    if match is not None:
        try:
            data = base64.b64decode(match["data"], validate=True)
        except binascii.Error:
            raise _wrong("image", "cannot be decoded") from None
    else:
        data = _fetched(value, kind.image)
    if len(data) > kind.image:
        raise _Refused(413, "BadRequest.TooLarge", f"The image is larger than {kind.image // _MB} MB.")
    try:
        pictures.dimensions(data)
    except pictures.TooManyPixels:
        raise _wrong("image", "has too many pixels") from None
    except pictures.NotAPicture:
        data = b""
    if not data.startswith(kind.formats):
        raise _Refused(415, "UnsupportedFileFormat", "The file format of the image is not supported.")
    return data


def _video(value: str, kind: _Kind) -> bytes:
    if value.startswith("data:"):
        raise _Refused(400, "InvalidURL", "The video must be a public URL.")
    data = _fetched(value, kind.video)
    if len(data) > kind.video:
        raise _Refused(413, "BadRequest.TooLarge", f"The video is larger than {kind.video // _MB} MB.")
    if not _VIDEOS.match(data):
        raise _Refused(415, "UnsupportedFileFormat", "The file format of the video is not supported.")
    return data


def _fetched(url: object, limit: int) -> bytes:
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise _Refused(400, "InvalidURL", "The provided URL does not appear to be valid.")
    try:
        return pictures.fetch(url, limit, sized=True)
    except pictures.NotSized:
        raise _Refused(400, "InternalError.Algo", "Missing Content-Length of multimodal url.") from None
    except pictures.NotAccessible:
        raise _Refused(415, "InputDownloadFailed", "Failed to download the input file.") from None


def _type(parts: list[tuple[str, bytes | str]], kind: _Kind, together: bool) -> str:
    if together:
        return "fusion"
    if kind.usage == "qwen3":
        return "vl"
    return "fused" if len({modality for modality, _ in parts}) > 1 else parts[0][0]


def _usage(kind: _Kind, parts: list[tuple[str, bytes | str]], res_level: int) -> dict[str, Any]:
    text = sum(len(data.split()) + 1 for _, data in parts if isinstance(data, str))
    frames = sum(8 if modality == "video" else 1 for modality, data in parts if isinstance(data, bytes))
    images = frames * (_IMAGE_TOKENS[res_level] if kind.usage == "tongyi" else 620)
    match kind.usage:
        case "v1":
            count = sum(modality == "image" for modality, _ in parts)
            videos = sum(modality == "video" for modality, _ in parts)
            return {"input_tokens": text, "image_tokens": images, "image_count": count, "duration": 8 * videos}
        case "tongyi":
            details = {"image_tokens": images, "text_tokens": text}
            total = text + images
            return {
                "input_tokens": total,
                "input_tokens_details": details,
                "output_tokens": 1,
                "total_tokens": total + 1,
            }
        case "qwen3":
            return {"input_tokens": text, "image_tokens": images, "total_tokens": text + images}
        case _:
            return {"input_tokens": text, "image_tokens": images}


def _wrong(parameter: str, what: str) -> _Refused:
    return _Refused(400, "InvalidParameter", f"The parameter {parameter} {what}.")


def _error(status: int, code: str, message: str) -> Answer:
    return Answer(status, json.dumps({"code": code, "message": message, "request_id": str(uuid.uuid4())}).encode())
