"""Each embedder against the emulator, through everything that its service is known to refuse with.

What happens, and what the embedder makes of it. Whatever happens, no input but the one at fault is lost, nothing is
asked twice that will be refused twice, and nothing is billed but what was answered.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from lookalike.config import Secret, Settings
from lookalike.embedders import Embedder, open_embedder
from lookalike.emulator import SERVICE_FAULTS, Emulator
from lookalike.errors import ContractBroken, CredentialsRefused, ItemError, ServiceError
from lookalike.types import Embedding, ImageInput
from tests.conftest import settings_for
from tests.integration.loopback import serving

pytestmark = pytest.mark.usefixtures("own_pace")

VISION, INFERENCE, V1 = "azure-vision/2023-04-15", "azure-inference/embed-v-4-0", "dashscope/multimodal-embedding-v1"
QWEN = "dashscope/qwen3-vl-embedding"


def picture(colour: str = "teal", format: str = "JPEG", size: tuple[int, int] = (32, 24)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, format)
    return out.getvalue()


GOOD = ImageInput(data=picture())
JUNK = ImageInput(data=b"junk")
NOWHERE = ImageInput(url="http://127.0.0.1:1/a.jpg")


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


Opened = Callable[..., Embedder]


@pytest.fixture
def opened(emulator: Emulator) -> Iterator[Opened]:
    """Makes embedders over the emulator, and closes them."""
    made: list[Embedder] = []

    def opened(model: str, **changes: Any) -> Embedder:
        settings: Settings = replace(settings_for("", emulator), **changes)
        made.append(open_embedder(model, settings))
        return made[-1]

    yield opened
    for embedder in made:
        embedder.close()


def counted(emulator: Emulator) -> tuple[int, int]:
    """All calls that were answered, and those that were billed."""
    stats = emulator.stats()
    return sum(sum(statuses.values()) for statuses in stats["calls"].values()), stats["billed"]


# -- one input is at fault: the next one is done, and the bad one is not asked again -----------------------------------

ONE_ITEM: list[tuple[str, str | ImageInput, str, bool]] = [
    # A6
    (VISION, JUNK, "unsupported-format", False),
    (VISION, ImageInput(data=picture(size=(5, 5))), "wrong-dimensions", False),
    (VISION, "azure-vision:bytes", "wrong-byte-size", False),
    (VISION, NOWHERE, "url-not-accessible", True),
    (VISION, "azure-vision:words", "refused-text", False),
    (VISION, "azure-vision:NotSupportedImage", "refused-content", False),
    (VISION, "azure-vision:no-vector", "no-vector", True),
    (VISION, "nan", "not-finite", True),
    (VISION, "zero", "zero-vector", True),
    # B4
    (INFERENCE, JUNK, "refused-input", False),
    (INFERENCE, ImageInput(data=picture("red", "BMP")), "refused-input", False),
    (INFERENCE, ImageInput(data=picture(size=(2000, 1001))), "refused-input", False),
    (INFERENCE, "azure-inference:content_filter", "refused-content", False),
    (INFERENCE, "azure-inference:413", "too-many-bytes", False),
    (INFERENCE, "nan", "not-finite", True),
    (INFERENCE, "zero", "zero-vector", True),
    # C3
    (V1, JUNK, "unsupported-format", False),
    (V1, ImageInput(data=picture("red", "GIF")), "unsupported-format", False),
    (V1, ImageInput(url="no url"), "url-not-accessible", True),
    (V1, NOWHERE, "url-not-accessible", True),
    (V1, ImageInput(url=NOWHERE.url, media_type="video/mp4"), "url-not-accessible", True),
    (V1, "dashscope:InputDownloadFailed", "url-not-accessible", True),
    (V1, "dashscope:EmptyInput", "refused-input", False),
    (V1, "dashscope:DataInspectionFailed", "refused-content", False),
    (V1, "dashscope:FaqRuleBlocked", "refused-content", False),
    (V1, "dashscope:CustomRoleBlocked", "refused-content", False),
    (V1, "dashscope:200-DataInspectionFailed", "refused-content", False),
    (V1, "dashscope:TooLarge", "too-many-bytes", False),
    (V1, "nan", "not-finite", True),
    (V1, "zero", "zero-vector", True),
]


@pytest.mark.parametrize(("model", "cause", "code", "retryable"), ONE_ITEM)
def test_one_input_is_at_fault(
    emulator: Emulator, opened: Opened, model: str, cause: str | ImageInput, code: str, retryable: bool
) -> None:
    embedder = opened(model)
    if isinstance(cause, str):
        emulator.meet(cause)
    calls, billed = counted(emulator)
    error, after = [embedder.embed_images([one])[0] for one in (cause if isinstance(cause, ImageInput) else GOOD, GOOD)]
    assert isinstance(error, ItemError)
    assert (error.code, error.retryable) == (code, retryable)
    assert isinstance(after, Embedding)
    assert error.request_id
    assert counted(emulator) == (calls + 2, billed + embedder.usage.calls)
    assert embedder.usage.retries == 0
    assert embedder.usage.calls == (2 if code in ("no-vector", "not-finite", "zero-vector") else 1)


def test_a_url_without_a_length_fails_its_input(opened: Opened) -> None:
    with serving({"/a.jpg": picture()}, sized=False) as url:
        (error,) = opened(V1).embed_images([ImageInput(url=f"{url}/a.jpg")])
    assert isinstance(error, ItemError)
    assert (error.code, error.retryable) == ("url-not-accessible", True)
    assert "Content-Length" in str(error)


# -- nothing more can be done: the run stops at the first call ---------------------------------------------------------

WRONG_KEY = {
    "vision_key": Secret("wrong"),
    "azure_inference_credential": Secret("wrong"),
    "dashscope_api_key": Secret("wrong"),
}
THE_RUN: list[tuple[str, str | dict[str, Any], type[ServiceError], str]] = [
    # A6
    (VISION, "azure-vision:content-type", ContractBroken, "content type"),
    (VISION, "azure-vision:region", ServiceError, "West Europe"),
    (VISION, "azure-vision:feature", ServiceError, "West Europe"),
    ("azure-vision/2031-01-31", {}, ContractBroken, "version"),
    (VISION, "azure-vision:subdomain", CredentialsRefused, "custom subdomain"),
    (VISION, WRONG_KEY, CredentialsRefused, "VISION_KEY"),
    (VISION, "azure-vision:PermissionDenied", CredentialsRefused, "VISION_KEY"),
    (VISION, "azure-vision:quota", CredentialsRefused, "quota"),
    (VISION, "azure-vision:firewall", CredentialsRefused, "Firewall"),
    (VISION, "azure-vision:AuthenticationTypeDisabled", CredentialsRefused, "disabled"),
    (VISION, "azure-vision:Gone", ContractBroken, "deprecated"),
    (VISION, "azure-vision:UnsupportedMediaType", ContractBroken, "media type"),
    (VISION, "wrong-model", ContractBroken, "2022-04-11"),
    (VISION, "wrong-length", ContractBroken, "1023"),
    # B4
    (INFERENCE, "azure-inference:unknown-field", ContractBroken, "not permitted"),
    (INFERENCE, "azure-inference:subdomain", CredentialsRefused, "custom subdomain"),
    (INFERENCE, WRONG_KEY, CredentialsRefused, "AZURE_INFERENCE_CREDENTIAL"),
    (INFERENCE, "azure-inference:403", CredentialsRefused, "data action"),
    ("azure-inference/text-embedding-3-small", {}, ContractBroken, "does not embed images"),
    ("azure-inference/embed-v-9", {}, ContractBroken, "embed-v-9"),
    (INFERENCE, "azure-inference:405", ContractBroken, "another kind of model"),
    (INFERENCE, "azure-inference:410", ContractBroken, "retired"),
    (
        "azure-inference/mine+512",
        {"azure_inference_deployment": "Cohere-embed-v3-english"},
        ContractBroken,
        "body.dimensions",
    ),
    (INFERENCE, "azure-inference:encoding_format", ContractBroken, "body.encoding_format"),
    (INFERENCE, "azure-inference:input_type", ContractBroken, "body.input_type"),
    (INFERENCE, "wrong-model", ContractBroken, "embed-v-4-0"),
    (INFERENCE, "wrong-length", ContractBroken, "1023"),
    # C3
    (QWEN, "dashscope:InvalidParameter", ContractBroken, "dimension"),
    (QWEN, "dashscope:EmptyParameters", ContractBroken, "parameters"),
    (QWEN, "dashscope:EmptyModel", ContractBroken, "model"),
    (QWEN, "dashscope:UnsupportedOperation", ContractBroken, "unsupported"),
    ("dashscope/text-embedding-v4", {}, ContractBroken, "url error"),
    (QWEN, "dashscope:Arrearage", CredentialsRefused, "owes money"),
    (QWEN, "dashscope:Arrearage-403", CredentialsRefused, "owes money"),
    (QWEN, "dashscope:200-Arrearage", CredentialsRefused, "owes money"),
    (QWEN, WRONG_KEY, CredentialsRefused, "DASHSCOPE_API_KEY"),
    (QWEN, "dashscope:AccessDenied", CredentialsRefused, "Access denied"),
    (QWEN, "dashscope:Workspace.AccessDenied", CredentialsRefused, "Workspace"),
    (QWEN, "dashscope:Model.AccessDenied", CredentialsRefused, "Model access"),
    (QWEN, "dashscope:AccessDenied.Unpurchased", CredentialsRefused, "purchase"),
    (QWEN, "dashscope:FreeTierOnly", CredentialsRefused, "free"),
    ("dashscope/qwen9-vl-embedding", {}, ContractBroken, "DASHSCOPE_API_REGION"),
    (QWEN, "dashscope:WorkSpaceNotFound", ContractBroken, "WorkSpace"),
    (QWEN, "dashscope:exhausted", CredentialsRefused, "free"),
    (QWEN, "dashscope:PrepaidBillOverdue", CredentialsRefused, "bill"),
    (QWEN, "dashscope:PostpaidBillOverdue", CredentialsRefused, "bill"),
    (QWEN, "dashscope:CommodityNotPurchased", CredentialsRefused, "purchased"),
    (QWEN, "wrong-length", ContractBroken, "1023"),
]


@pytest.mark.parametrize(("model", "cause", "kind", "named"), THE_RUN)
def test_nothing_more_can_be_done(
    emulator: Emulator,
    opened: Opened,
    model: str,
    cause: str | dict[str, Any],
    kind: type[ServiceError],
    named: str,
) -> None:
    embedder = opened(model, **(cause if isinstance(cause, dict) else {}))
    if isinstance(cause, str):
        emulator.meet(cause)
    calls, billed = counted(emulator)
    with pytest.raises(kind) as caught:
        embedder.embed_images([GOOD, GOOD])
    assert type(caught.value) is kind
    assert named in str(caught.value)
    assert "wrong\n" not in str(caught.value)
    damaged = cause in ("wrong-model", "wrong-length")
    assert counted(emulator) == (calls + 1, billed + damaged)
    assert (embedder.usage.calls, embedder.usage.retries) == (int(damaged), 0)


@pytest.mark.parametrize(
    ("model", "setting"),
    [(VISION, "vision_endpoint"), (INFERENCE, "azure_inference_endpoint"), (QWEN, "dashscope_endpoint")],
)
def test_a_wrong_path_stops_the_run(emulator: Emulator, opened: Opened, model: str, setting: str) -> None:
    elsewhere = {"dashscope_endpoint": f"{emulator.url}api/v2"}.get(setting, f"{emulator.url}elsewhere")
    with pytest.raises(ContractBroken):
        opened(model, **{setting: elsewhere}).embed_images([GOOD])


# -- it passes: the same call is made again until it succeeds ----------------------------------------------------------

PASSING: list[tuple[str, str, float]] = [
    # A6: least seconds that two refusals in a row cost
    *(
        (VISION, f"azure-vision:{kind}", 0)
        for kind in ("408", "FailedToProcess", "Timeout", "StorageException", "502", "504")
    ),
    *((VISION, kind, 0) for kind in ("500", "503", "reset", "truncated-json", "html")),
    (VISION, "429", 2),
    # B4
    *((INFERENCE, kind, 0) for kind in ("500", "503", "reset", "truncated-json", "html")),
    (INFERENCE, "azure-inference:502", 0),
    (INFERENCE, "azure-inference:504", 0),
    (INFERENCE, "429", 2),
    # C3
    *((QWEN, kind, 0) for kind in ("500", "503", "reset", "truncated-json", "html")),
    *(
        (QWEN, f"dashscope:{kind}", 0)
        for kind in (
            "RequestTimeOut",
            "InternalError",
            "InternalError.Timeout",
            "SystemError",
            "ModelServiceFailed",
            "ModelUnavailable",
        )
    ),
    *(
        (QWEN, f"dashscope:{kind}", 3)  # a second, then two
        for kind in (
            "Throttling",
            "LimitRequests",
            "burst",
            "200-Throttling",
            "ServiceOverloaded",
            "ServiceOverloaded-429",
        )
    ),
    (QWEN, "429", 2),
    (QWEN, "dashscope:tokens", 120),
]


@pytest.mark.parametrize(("model", "fault", "seconds"), PASSING)
def test_what_passes_is_waited_out(
    emulator: Emulator, opened: Opened, no_waiting: list[float], model: str, fault: str, seconds: float
) -> None:
    embedder = opened(model)
    _, billed = counted(emulator)
    emulator.meet(fault, fault)
    (embedding,) = embedder.embed_images([GOOD])
    assert isinstance(embedding, Embedding)
    assert embedder.usage.retries == 2
    assert sum(no_waiting) >= seconds
    # an answer that breaks off was billed all the same
    assert counted(emulator)[1] - billed == embedder.usage.calls == (3 if fault == "truncated-json" else 1)


def test_a_quota_that_may_be_either_is_asked_once_more(
    emulator: Emulator, opened: Opened, no_waiting: list[float]
) -> None:
    embedder = opened(QWEN)
    emulator.meet("dashscope:insufficient_quota")
    assert isinstance(embedder.embed_images([GOOD])[0], Embedding)
    assert sum(no_waiting) >= 60
    calls, _ = counted(emulator)
    emulator.meet("dashscope:insufficient_quota", "dashscope:insufficient_quota")
    with pytest.raises(CredentialsRefused, match="quota"):
        embedder.embed_images([GOOD])
    assert counted(emulator)[0] == calls + 2


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("model", [VISION, INFERENCE, QWEN])
def test_a_service_that_never_recovers_loses_no_input(model: str) -> None:
    with Emulator(faults={"503": 1}) as emulator:
        embedder = open_embedder(model, settings_for("", emulator))
        (error,) = embedder.embed_images([GOOD])
        embedder.close()
    assert isinstance(error, ItemError)
    assert (error.code, error.retryable) == ("service-unavailable", True)
    assert embedder.usage.retries >= 7  # eight tries at least


def test_every_fault_of_a_service_stands_in_a_table() -> None:
    named = {cause for _, cause, *_ in (*ONE_ITEM, *THE_RUN, *PASSING) if isinstance(cause, str)}
    assert set(SERVICE_FAULTS) - named == {"dashscope:insufficient_quota"}  # which has a test of its own
