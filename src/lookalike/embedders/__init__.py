"""Embedders ask a provider for embeddings. One file per provider; what they share lies in `http`.

Adding one: a class with the attributes of `Embedder` in a file of its own, and a line in `open_embedder`.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Sequence
from typing import Protocol

from lookalike.config import Settings
from lookalike.embedders.terms import BATCH, Budget, Ledger, Patience
from lookalike.errors import ConfigurationError, ItemError
from lookalike.types import DIMENSIONS, Embedding, ImageInput, Limits, Model, Usage

__all__ = ["Budget", "Embedder", "dimensions_of", "doubt_about", "open_embedder"]


class Embedder(Protocol):
    """Turns pictures and texts into vectors of one model. Safe to use from several threads."""

    @property
    def model(self) -> Model:
        """The vector space of everything this embedder gives; never 'latest'."""

    @property
    def limits(self) -> Limits:
        """What the model accepts."""

    @property
    def concurrency(self) -> int:
        """How many calls are worth having under way at once."""

    @property
    def pictures_per_call(self) -> int:
        """How many pictures are worth giving to `embed_images` at once: as many as one call may hold."""

    @property
    def texts_per_call(self) -> int:
        """How many texts are worth giving to `embed_texts` at once: as many as one call may hold."""

    @property
    def rate(self) -> float | None:
        """Calls a second that are allowed, None where nothing limits them."""

    @property
    def usage(self) -> Usage:
        """What has been spent through this embedder so far."""

    @property
    def notice(self) -> str | None:
        """What everybody who uses this model should be told, or None."""

    def embed_images(self, images: Sequence[ImageInput]) -> list[Embedding | ItemError]:
        """Embed pictures: as many answers as pictures, in their order, each an embedding or the reason why not.

        A video is given as an `ImageInput` with its URL and media type, to models whose limits take any; a text with
        it or with a picture to models with `Model.with_text`, which make one vector of both.

        Raises:
            ServiceError: nothing more can be done with this service; its `answered` says what came before.
        """

    def embed_texts(self, texts: Sequence[str]) -> list[Embedding | ItemError]:
        """Embed texts: as many answers as texts, in their order, each an embedding or the reason why not.

        Raises:
            ServiceError: nothing more can be done with this service.
        """

    def inquire(self) -> str | None:
        """What the service says of itself, in a sentence, where asking costs nothing; None where it cannot be asked.

        Raises:
            ServiceError: it refuses us, or serves another model.
        """

    def close(self) -> None:
        """Give back connections."""


_ENGLISH_ONLY = {
    "azure-vision/2022-04-11": "azure-vision/2023-04-15 reads 102 languages.",
    "azure-inference/Cohere-embed-v3-english": "azure-inference/Cohere-embed-v3-multilingual reads others, too.",
}
"""Models that read no other language, and what does."""


def doubt_about(model: str, text: str) -> str | None:
    """Why the model of that name may not understand a text, although it will give a vector for it; None if it may."""
    if model in _ENGLISH_ONLY and any(
        character.isalpha() and not unicodedata.name(character, "LATIN").startswith("LATIN") for character in text
    ):
        return (
            f"{model} reads English only, and {text!r} is written in another script: what it finds may have nothing "
            f"to do with it. {_ENGLISH_ONLY[model]}"
        )
    return None


def dimensions_of(model: Model) -> int | None:
    """How many numbers the vectors of a model have; None where that is not known here.

    Raises:
        ConfigurationError: the provider has no such model, or its vectors cannot be stored.
    """
    match model.provider:
        case "azure-vision" | "local":
            return DIMENSIONS
        case "azure-inference":
            from lookalike.embedders.azure_inference import known_dimensions

            return known_dimensions(model)
        case "dashscope":
            from lookalike.embedders.dashscope import known_dimensions

            return known_dimensions(model)
        case _:
            return None


def models_with_text() -> tuple[str, ...]:
    """The names of the models that can make one vector of a picture and a text."""
    from lookalike.embedders import azure_inference, dashscope

    return (*azure_inference.FUSING, *dashscope.FUSING)


def open_embedder(
    name: str,
    settings: Settings,
    *,
    patience: Patience = BATCH,
    rate: float | None = None,
    stop: threading.Event | None = None,
    ledger: Ledger | None = None,
    budget: Budget | None = None,
) -> Embedder:
    """Make the embedder of the model `name`.

    Args:
        patience: how long to go on when the service falters.
        rate: calls a second, where the one of the settings does not fit.
        stop: once set, waits are cut short with `Interrupted`.
        ledger: shares the turns at the service with other processes.
        budget: how many calls may be billed.

    Raises:
        ConfigurationError: no provider of that name, a setting that it needs is missing, or the model is to embed
            pictures together with texts and cannot.
    """
    model = Model(name)
    if model.with_text is not None and (plain := f"{model.provider}/{model.version}") not in models_with_text():
        raise ConfigurationError(
            f"{plain} does not make one vector of a picture and a text. Leave --with-text out, or name one of those "
            f"that do with --model: {', '.join(models_with_text())}."
        )
    match model.provider:
        case "azure-vision":
            from lookalike.embedders.azure_vision import AzureVision

            return AzureVision(model, settings, patience=patience, rate=rate, stop=stop, ledger=ledger, budget=budget)
        case "azure-inference":
            from lookalike.embedders.azure_inference import AzureInference

            return AzureInference(
                model, settings, patience=patience, rate=rate, stop=stop, ledger=ledger, budget=budget
            )
        case "dashscope":
            from lookalike.embedders.dashscope import DashScope

            return DashScope(model, settings, patience=patience, rate=rate, stop=stop, ledger=ledger, budget=budget)
        case "local":
            from lookalike.embedders.local import LocalDescriptor

            return LocalDescriptor(model)
        case provider:
            raise ConfigurationError(
                f"{name}: there is no provider {provider!r}. The providers are azure-vision "
                "(azure-vision/2023-04-15, azure-vision/2022-04-11), azure-inference (azure-inference/embed-v-4-0 …), "
                "dashscope (dashscope/qwen3-vl-embedding …) and local (local/classic-1)."
            )
