"""What the outside may rely on: names, types, and files that are read by others."""

from __future__ import annotations

import importlib.resources
import re
from pathlib import Path

import pytest
import yaml

import lookalike
from lookalike import ConfigurationError, IngestReport, LookalikeError, Model, Settings
from lookalike.types import ImageInput
from lookalike.uris import path_of, uri_of

REPOSITORY = Path(__file__).parents[2]
VARIABLE = r"\b(?:LOOKALIKE|VISION|AZURE_STORAGE)_[A-Z_]+\b"


def test_the_public_names_are_there_sorted_and_documented() -> None:
    assert lookalike.__all__ == sorted(lookalike.__all__)
    for name in lookalike.__all__:
        assert getattr(lookalike, name).__doc__, name


def test_the_package_is_typed() -> None:
    assert importlib.resources.files("lookalike").joinpath("py.typed").is_file()


def test_every_error_of_ours_has_one_root_and_is_drawn_in_the_tree() -> None:
    from lookalike import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert all(issubclass(kind, LookalikeError) for kind in kinds)
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in kinds)


@pytest.mark.parametrize("name", ["azure-vision/2023-04-15", "local/classic-1", "azure-inference/embed-v-4-0+title"])
def test_names_of_models(name: str) -> None:
    model = Model(name)
    assert f"{model.provider}/{model.version}" == name.partition("+")[0]
    assert str(model) == name


@pytest.mark.parametrize("name", ["", "azure", "azure/", "/x", "a/b/c", "a b/c", "azure-vision/latest", "A/Latest"])
def test_names_that_are_no_models(name: str) -> None:
    with pytest.raises(ConfigurationError):
        Model(name)


@pytest.mark.parametrize("name", ["a.jpg", "ü ä.jpg", "100%.jpg", "a?b#c.jpg", "caf\udce9.jpg", "new\nline.jpg"])
def test_paths_and_uris(name: str, tmp_path: Path) -> None:
    uri = uri_of(tmp_path / name)
    assert uri.isascii()
    assert "?" not in uri
    assert "#" not in uri
    assert path_of(uri) == tmp_path / name
    assert path_of("https://example/a.jpg") is None


def test_an_image_input_is_bytes_or_a_url() -> None:
    for wrong in ({}, {"data": b"x", "url": "https://x"}):
        with pytest.raises(ValueError, match="either"):
            ImageInput(**wrong)  # type: ignore[arg-type]


def test_a_report_starts_at_nothing() -> None:
    assert IngestReport("a/b").found == 0


def test_every_variable_is_in_the_example_and_the_other_way_round() -> None:
    source = "".join(path.read_text() for path in (REPOSITORY / "src" / "lookalike").rglob("*.py"))
    read = set(re.findall(VARIABLE, source)) | {"DATABASE_URL"}
    example = (REPOSITORY / ".env.example").read_text()
    assert read == set(re.findall(VARIABLE, example)) | {"DATABASE_URL"}


def test_the_example_is_valid_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text((REPOSITORY / ".env.example").read_text())
    settings = Settings.from_environment({**lookalike.read_environment(tmp_path / ".env"), "PGHOST": ""})
    assert settings.vision_key is None


def test_the_compose_file_says_what_the_readme_says() -> None:
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    db = compose["services"]["db"]
    assert db["image"].startswith("pgvector/pgvector:")
    assert db["ports"] == ["127.0.0.1:5432:5432"]
    assert db["healthcheck"]["test"][0] == "CMD-SHELL"
    assert set(compose["volumes"]) == {"data"}


def test_the_constraints_hold_names_and_versions_only() -> None:
    for line in (REPOSITORY / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!-]+", line), line
