from __future__ import annotations

import os
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from lookalike import ConfigurationError, Settings, read_environment
from lookalike.store.dsn import libpq_dsn


def test_the_database_is_named_by_ours_then_anybodys_then_libpqs_variables() -> None:
    all_three = {"LOOKALIKE_DATABASE_URL": "postgresql://a/x", "DATABASE_URL": "postgresql://b/x", "PGHOST": "c"}
    assert Settings.from_environment(all_three).database_url == "postgresql://a/x"
    del all_three["LOOKALIKE_DATABASE_URL"]
    assert Settings.from_environment(all_three).database_url == "postgresql://b/x"
    del all_three["DATABASE_URL"]
    assert Settings.from_environment(all_three).database_url == "host='c'"


def test_libpqs_variables_are_taken_along_with_odd_passwords() -> None:
    settings = Settings.from_environment({"PGHOST": "h", "PGPASSWORD": "it's \\ odd", "PGUSER": "u"})
    assert conninfo_to_dict(str(settings.database_url)) == {"host": "h", "user": "u", "password": "it's \\ odd"}


def test_nothing_named_means_the_private_server() -> None:
    settings = Settings.from_environment({"PGUSER": "somebody", "DATABASE_URL": "  "})
    assert settings.database_url is None
    assert not settings.home_chosen


def test_a_home_is_absolute_and_counts_as_chosen() -> None:
    settings = Settings.from_environment({"LOOKALIKE_HOME": "here"})
    assert settings.home == Path.cwd() / "here"
    assert settings.home_chosen


@pytest.mark.parametrize("text", ["fast", "0", "-3", "inf", "nan"])
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="VISION_RATE"):
        Settings.from_environment({"VISION_RATE": text})


def test_a_pooler_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="LOOKALIKE_POOLER"):
        Settings.from_environment({"LOOKALIKE_POOLER": "statement"})
    assert Settings.from_environment({"LOOKALIKE_POOLER": "Transaction"}).transaction_pooler


def test_no_secret_shows_in_the_repr() -> None:
    settings = Settings.from_environment(
        {"DATABASE_URL": "postgresql://u:hidden@h/d", "VISION_KEY": "hidden", "VISION_ENDPOINT": "https://x"}
    )
    assert "hidden" not in repr(settings)
    assert settings.vision_key == "hidden"


def test_dotenv_lies_under_the_environment_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("VISION_KEY=from-file\nVISION_ENDPOINT='https://file'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VISION_KEY", "from-environment")
    before = dict(os.environ)

    environment = read_environment()

    assert environment["VISION_KEY"] == "from-environment"
    assert environment["VISION_ENDPOINT"] == "https://file"
    assert dict(os.environ) == before


def test_libpqs_variables_reach_libpq() -> None:
    settings = Settings.from_environment({"PGHOST": "localhost", "PGDATABASE": "x"})
    assert conninfo_to_dict(libpq_dsn(str(settings.database_url))) == {"host": "localhost", "dbname": "x"}


def test_a_dotenv_that_is_no_text_is_explained(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"VISION_KEY=\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"\.env"):
        read_environment(tmp_path / ".env")


def test_a_home_of_nobody_is_explained() -> None:
    with pytest.raises(ConfigurationError, match="LOOKALIKE_HOME"):
        Settings.from_environment({"LOOKALIKE_HOME": "~no-such-user-here/x"})


def test_a_key_may_lie_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("hidden\n")
    settings = Settings.from_environment({"VISION_KEY_FILE": str(path)})
    assert settings.vision_key == "hidden"
    assert "hidden" not in repr(settings)
    assert Settings.from_environment({"VISION_KEY": "k", "VISION_KEY_FILE": str(path)}).vision_key == "k"
    for wrong in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigurationError, match="VISION_KEY_FILE"):
            Settings.from_environment({"VISION_KEY_FILE": str(wrong)})
    path.write_text("\n")
    with pytest.raises(ConfigurationError, match="empty"):
        Settings.from_environment({"VISION_KEY_FILE": str(path)})
