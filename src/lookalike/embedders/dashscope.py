"""DashScope (Alibaba Cloud Model Studio), multimodal embeddings: the wire format, and what each model accepts.

https://help.aliyun.com/document_detail/2712452.html
"""

from __future__ import annotations

import functools
import json
import logging
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lookalike.config import Settings
from lookalike.embedders.http import Client, Retry, Verdict, read_embeddings
from lookalike.embedders.remote import (
    NOT_ACCESSIBLE,
    Outcome,
    Payload,
    RemoteEmbedder,
    checked_endpoint,
    checked_key,
    checked_picture,
    checked_rate,
    data_url,
    in_calls,
    text_not_fused,
)
from lookalike.embedders.terms import Budget, Ledger, Patience
from lookalike.errors import ConfigurationError, ContractBroken, CredentialsRefused, ItemError, ServiceError
from lookalike.types import DIMENSIONS, ImageInput, Limits, Model

_NAME = "DashScope"
_PATH = "/services/embeddings/multimodal-embedding/multimodal-embedding"
_MB = 1 << 20
_WHERE = (
    "make one in the Model Studio console under 'API-KEY', of the region that you call, or see docs/dashscope.md. "
    "No account yet? `lookalike demo` needs none."
)
_MINUTE = 60.0
_SIMPLE = frozenset({"image/jpeg", "image/png", "image/bmp"})
_PIECE = re.compile(r"[A-Za-z]+|\d+|\s+|.", re.DOTALL)

_log = logging.getLogger("lookalike.embedders")


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a model takes and gives.

    Attributes:
        dimensions: that it can give, the one that is used first; those above 1024 cannot be stored.
        chosen: whether one of them can be asked for.
        image, video: the most bytes of one.
        pictures, texts: the most in one call.
        calls: a minute, per account and model.
        tokens: the most in one text.
        fuses: whether a picture and a text become one vector: where they are all that a ``call`` holds, where they
            stand in one ``content`` of it, or never.
    """

    dimensions: tuple[int, ...] = (DIMENSIONS,)
    chosen: bool = True
    image: int = 3 * _MB
    video: int = 10 * _MB
    media_types: frozenset[str] = _SIMPLE
    pictures: int = 1
    texts: int = 1
    calls: int = 120
    tokens: int = 512
    fuses: Literal["call", "content"] | None = None
    parameters: tuple[tuple[str, Any], ...] = ()


_MORE = _SIMPLE | {"image/webp", "image/tiff"}
_SNAPSHOT = functools.partial(
    _Kind, image=5 * _MB, video=50 * _MB, pictures=20, texts=20, calls=600, tokens=1024, fuses="content"
)
_KINDS = {
    "multimodal-embedding-v1": _Kind(chosen=False, texts=20),
    "qwen2.5-vl-embedding": _Kind(
        (1024, 768, 512), image=5 * _MB, video=50 * _MB, media_types=_MORE, calls=1200, tokens=32_000, fuses="call"
    ),
    "qwen3-vl-embedding": _Kind(
        (1024, 768, 512, 256),
        image=10 * _MB,
        video=50 * _MB,
        media_types=_MORE,
        pictures=5,
        texts=20,
        calls=1200,
        tokens=32_000,
        fuses="call",
        parameters=(("enable_fusion", False),),  # else what stands in one call might become one vector
    ),
    "tongyi-embedding-vision-plus-2026-03-06": _SNAPSHOT((1024, 512, 256, 128, 64)),
    "tongyi-embedding-vision-flash-2026-03-06": _SNAPSHOT((768, 512, 256, 128, 64)),
    "tongyi-embedding-vision-flash": _Kind((768,), chosen=False, texts=20, calls=600, tokens=1024),
    "tongyi-embedding-vision-plus": _Kind((1152,), chosen=False, texts=20, calls=600, tokens=1024),
}
MODELS = tuple(f"dashscope/{name}" for name, kind in _KINDS.items() if kind.dimensions[0] <= DIMENSIONS)
"""Those that give at most 1024 numbers."""

FUSING = tuple(name for name in MODELS if _KINDS[name.partition("/")[2]].fuses)
"""Those of them that can make one vector of a picture and a text."""

_UNFIT = "does not take what Lookalike sends"
_ITEM = r"\b(images?|pictures?|videos?|texts?|contents?|input|urls?|file|format|resolution|download\w*)\b"
_REFUSALS: tuple[tuple[str, str, str | type[ServiceError], str], ...] = (
    (
        "DataInspectionFailed|FaqRuleBlocked|CustomRoleBlocked",
        "",
        "refused-content",
        "refuses the input for what it holds",
    ),
    ("Arrearage", "", CredentialsRefused, "refuses calls, as the account owes money"),
    ("InvalidApiKey", "", CredentialsRefused, f"refuses DASHSCOPE_API_KEY: {_WHERE}"),
    ("AllocationQuota.FreeTierOnly", "", CredentialsRefused, "has no free calls left for this model"),
    (r"(.*\.)?AccessDenied(\..*)?", "", CredentialsRefused, "denies this key the model or the workspace"),
    (
        "(Prepaid|Postpaid)BillOverdue|CommodityNotPurchased",
        "",
        CredentialsRefused,
        "refuses calls until a bill is paid or the model bought",
    ),
    (
        "ModelNotFound|WorkSpaceNotFound",
        "",
        ContractBroken,
        "does not have the model or the workspace in this region; DASHSCOPE_API_REGION chooses another",
    ),
    ("BadRequest.TooLarge", "", "too-many-bytes", "does not take so many bytes"),
    ("UnsupportedFileFormat", "", "unsupported-format", "does not take the format"),
    ("InputDownloadFailed|InvalidURL", "", NOT_ACCESSIBLE, "cannot fetch the URL"),
    ("InternalError.Algo.*", "Content-Length|download", NOT_ACCESSIBLE, "cannot fetch the URL"),
    ("BadRequest.EmptyInput", "", "refused-input", "finds nothing in the input"),
    ("BadRequest.Empty.*|UnsupportedOperation", "", ContractBroken, _UNFIT),
    ("InvalidParameter|InternalError.Algo.*", "^url error", ContractBroken, "takes no pictures with this model"),
    (
        "InvalidParameter|InternalError.Algo.*",
        r"\b(dimension|output_type|enable_fusion|fps|res_level|instruct|max_video_frames|parameters)\b",
        ContractBroken,
        "does not honour a parameter",
    ),
    ("InvalidParameter|InternalError.Algo.*", _ITEM, "refused-input", "does not take the input"),
    ("InvalidParameter", r"\bmodel\b", ContractBroken, _UNFIT),
)
"""What refusals mean, whatever the status that they come with: code, what is found in the message, and an item's code
or the error that stops the run."""

_PASSING = re.compile(r"InternalError(\..*)?|SystemError|ModelServiceFailed|ModelUnavailable|RequestTimeOut")
_THROTTLED = re.compile(r"Throttling(\..*)?|LimitRequests")


class DashScope(RemoteEmbedder):
    """Embeds pictures, videos by their URLs, and texts with DashScope. Safe to use from several threads."""

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

        Args:
            model: one of `MODELS`, or a later one; ``+512`` asks for so many numbers.
            rate: calls a second, by default that of the settings, else what the service grants the model.
            stop: once set, waits are cut short with `Interrupted`.
            ledger: shares the turns of the account with other processes.
            budget: how many calls may be billed.

        Raises:
            ConfigurationError: a setting is missing or malformed, or the model's vectors cannot be stored.
        """
        self._kind = _KINDS.get(model.version, _Kind())
        dimensions = known_dimensions(model)
        self._parameters = dict(self._kind.parameters)
        if self._kind.chosen:
            self._parameters["dimension"] = dimensions
        key = checked_key(settings.dashscope_api_key, "DASHSCOPE_API_KEY")
        if key is None:
            raise ConfigurationError(f"{_NAME} needs DASHSCOPE_API_KEY: {_WHERE}")
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._endpoint = checked_endpoint(
            settings.dashscope_endpoint,
            "DASHSCOPE_HTTP_BASE_URL",
            "It reads https://dashscope.aliyuncs.com/api/v1",
            "/services",
        )
        granted = settings.dashscope_rate or self._kind.calls / _MINUTE
        rate = checked_rate(granted if rate is None else rate)
        client = Client(
            _NAME,
            self._endpoint,
            key,
            self._classify,
            rate=rate,
            patience=patience,
            stop=stop,
            ledger=ledger,
            budget=budget,
            # the service counts the calls of all keys of an account, for each model by itself
            account=f"{settings.dashscope_account}\n{model.version}",
        )
        limits = Limits(
            max_bytes=self._kind.image,
            min_side=1,
            max_side=16_000,
            media_types=self._kind.media_types,
            max_video_bytes=self._kind.video,
        )
        per_call = min(self._kind.pictures, settings.dashscope_batch or self._kind.pictures)
        if model.with_text is not None and self._kind.fuses == "call":
            per_call = 1
        super().__init__(
            Model(model.name, dimensions),
            limits,
            client,
            rate=rate,
            pictures_per_call=per_call,
            texts_per_call=self._kind.texts,
        )

    def embed_images(self, images: Sequence[ImageInput]) -> list[Outcome]:
        """Embed pictures, as many in a call as `pictures_per_call`, and videos, one in a call.

        Returns:
            As many answers as pictures, in their order: embeddings, or the reasons why not.

        Raises:
            ServiceError: nothing more can be done with this service; its `answered` says what came before.
        """
        return in_calls(map(self._picture, images), self.pictures_per_call, self._send)

    def embed_texts(self, texts: Sequence[str]) -> list[Outcome]:
        """Embed texts, up to 20 in a call where the model takes so many. What is too long is cut.

        Returns:
            As many answers as texts, in their order: embeddings, or the reasons why not.

        Raises:
            ServiceError: nothing more can be done with this service; its `answered` says what came before.
        """
        return in_calls(map(self._text, texts), self.texts_per_call, self._send)

    def _picture(self, image: ImageInput) -> Payload | ItemError:
        if image.is_video and image.url is None:
            return ItemError("video-not-supported", f"{_NAME} takes videos by their URLs only.")
        if image.data is not None and (fault := checked_picture(image.data, self.limits)) is not None:
            return fault
        shown = {"video" if image.is_video else "image": image.url if image.data is None else data_url(image.data)}
        size = len(image.data or image.url or "")
        if image.text is None:
            return Payload(shown, size, alone=image.is_video)
        if self.model.with_text is None:
            return text_not_fused(self.model)
        said = {"text": self._read_of(image.text)}
        size += len(said["text"].encode(errors="replace"))
        if self._kind.fuses == "content":
            return Payload(said | shown, size, alone=image.is_video)
        return Payload([said, shown], size, alone=True)

    def _text(self, text: str) -> Payload | ItemError:
        if not text.strip():
            return ItemError("empty-text", "The text is empty.")
        taken = self._read_of(text)
        return Payload({"text": taken}, len(taken.encode(errors="replace")))

    def _read_of(self, text: str) -> str:
        """As much of a text as the model reads."""
        taken = _beginning(text, self._kind.tokens)
        if len(taken) < len(text):
            _log.warning("%s reads the first %d characters of a text of %d", self.model, len(taken), len(text))
        return taken

    def _send(self, contents: Sequence[Any]) -> list[Outcome] | ItemError:
        parameters = dict(self._parameters)
        inputs, together = list(contents), isinstance(contents[0], list)
        if together:  # all of the call becomes one vector
            (inputs,) = inputs
            parameters |= {"enable_fusion": True} if "enable_fusion" in parameters else {}
        document: dict[str, Any] = {"model": self.model.version, "input": {"contents": inputs}}
        if parameters:
            document["parameters"] = parameters
        answer = self._client.post(_PATH, headers=self._headers, body=json.dumps(document).encode())
        if isinstance(answer, ItemError):
            return answer
        output = answer.document.get("output")
        rows = output.get("embeddings") if isinstance(output, dict) else None
        pairs = [
            (row.get("index"), row.get("embedding")) if isinstance(row, dict) else (None, None)
            for row in (rows if isinstance(rows, list) else [])
        ]
        # answers do not say which model they come from
        return read_embeddings(self.model, answer, version=self.model.version, rows=pairs, count=len(contents))

    def _classify(self, status: int, codes: tuple[str, ...], message: str, _: Mapping[str, str]) -> Verdict | None:
        code, said = codes[0], f"{_NAME} at {self._endpoint}"
        if code == "Throttling.AllocationQuota":
            if re.search(r"\bfree\b", message, re.IGNORECASE):
                return CredentialsRefused(f"{said} has given all that is free of this model. It says: {message}")
            return Retry("rate-limited", f"it answered {code}: {message}", throttled=True, wait=_MINUTE)
        if code == "insufficient_quota":  # the tokens of a minute, or all there are: it does not say which
            spent = CredentialsRefused(f"{said} has no quota left. It says: {message}")
            return Retry("rate-limited", f"it answered {code}: {message}", True, _MINUTE, otherwise=spent)
        if (status in (200, 408) or status >= 500) and _PASSING.fullmatch(code):
            return Retry("service-unavailable", f"it answered {status} {code}: {message}")
        for pattern, words, kind, meaning in _REFUSALS:
            if not re.fullmatch(pattern, code, re.IGNORECASE) or not re.search(words, message, re.IGNORECASE):
                continue
            if isinstance(kind, str):
                return ItemError(kind, f"{_NAME} {meaning}: {message}", retryable=kind == NOT_ACCESSIBLE)
            return kind(f"{said} {meaning}. It says: {message}")
        if _THROTTLED.fullmatch(code):
            return Retry("rate-limited", f"it answered {status} {code}: {message}", throttled=True)
        if status in (401, 403):
            return CredentialsRefused(f"{said} refuses calls ({status} {code}). It says: {message}")
        if status in (404, 405):
            return ContractBroken(f"{said} does not have this route ({status} {code}). It says: {message}")
        return None


def known_dimensions(model: Model) -> int:
    """How many numbers a model gives.

    Raises:
        ConfigurationError: more than can be stored, or it cannot be asked for so many.
    """
    kind = _KINDS.get(model.version, _Kind())
    fitting = f"Those that fit are {', '.join(MODELS)}."
    first = kind.dimensions[0]
    if first > DIMENSIONS:
        raise ConfigurationError(
            f"{model.name} gives {first:,} numbers, and {DIMENSIONS:,} are the most that a stored vector has. {fitting}"
        )
    variants = model.variants
    if not variants:
        return first
    if "multi_images" in variants:
        raise ConfigurationError(
            f"{model.name} cannot be: multi_images makes one vector of several pictures, and every picture has its own "
            f"here. {fitting}"
        )
    number = int(variants[0]) if len(variants) == 1 and variants[0].isdecimal() else 0
    possible = kind.dimensions if model.version in _KINDS else range(1, DIMENSIONS + 1)
    if not kind.chosen or number not in possible:
        choice = " or ".join(map(str, kind.dimensions))
        raise ConfigurationError(f"{model.name} cannot be: {model.version} gives {choice} numbers. {fitting}")
    return number


def _beginning(text: str, tokens: int) -> str:
    """As much of a text as surely has no more tokens: one for three letters of an ASCII word, one for anything else."""
    left = tokens
    for match in _PIECE.finditer(text):
        piece = match[0]
        if piece.isspace():
            continue
        needed = -(-len(piece) // 3)
        if needed > left:
            return text[: match.start() + 3 * left].rstrip()
        left -= needed
    return text
