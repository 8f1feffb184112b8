from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict

from lookalike.errors import ConfigurationError
from lookalike.store.dsn import is_transaction_pooler, libpq_dsn, url_of

PLAIN = {"user": "ann", "password": "pw", "host": "db.example", "port": "5433", "dbname": "shop"}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:pw@db.example:5433/shop",
        "postgres://ann:pw@db.example:5433/shop",
        "POSTGRES://ann:pw@db.example:5433/shop",
        "postgresql+psycopg://ann:pw@db.example:5433/shop",
        "postgresql+psycopg2://ann:pw@db.example:5433/shop",
        "postgresql+asyncpg://ann:pw@db.example:5433/shop?prepared_statement_cache_size=0",
        "postgres+asyncpg://ann:pw@db.example:5433/shop",
        "psql://ann:pw@db.example:5433/shop",
        "pgsql://ann:pw@db.example:5433/shop",
        "postgresql://ann:pw@db.example:5433/shop?schema=public&pgbouncer=true&connection_limit=5",
        "jdbc:postgresql://db.example:5433/shop?user=ann&password=pw",
        "postgresql://db.example:5433/shop?username=ann&password=pw",
        "host=db.example port=5433 dbname=shop user=ann password=pw",
        '  "postgresql://ann:pw@db.example:5433/shop"\n',
    ],
)
def test_every_spelling_means_the_same_server(url: str) -> None:
    assert conninfo_to_dict(libpq_dsn(url)) == PLAIN


@pytest.mark.parametrize("password", ["a/b", "a#b", "a?b", "a@b", "a:b", "100%", "p%40ss", "ü [x]"])
def test_a_password_may_be_pasted_as_it_is(password: str) -> None:
    found = conninfo_to_dict(libpq_dsn(f"postgresql://ann:{password}@db.example/shop"))

    assert found["password"] == password.replace("%40", "@")
    assert found["host"] == "db.example"


@pytest.mark.parametrize(("given", "meant"), [("true", "require"), ("require", "require"), ("false", "disable")])
def test_ssl_of_other_drivers_is_sslmode(given: str, meant: str) -> None:
    assert conninfo_to_dict(libpq_dsn(f"postgresql://db.example/shop?ssl={given}"))["sslmode"] == meant


def test_a_socket_folder_survives_the_round_trip() -> None:
    dsn = libpq_dsn("postgresql://ann@/shop?host=/run/my%20socket")
    assert conninfo_to_dict(dsn)["host"] == "/run/my socket"
    assert conninfo_to_dict(libpq_dsn(url_of(dsn, secrets=True))) == conninfo_to_dict(dsn)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:p%2F%40w@db.example:5433/shop?sslmode=require",
        "host=a,b port=1,2 user=ann password='p w' dbname=shop",
        "postgresql://ann:pw@[::1]:5433/shop",
        "dbname=shop",
    ],
)
def test_a_url_says_all_that_the_dsn_says(url: str) -> None:
    dsn = libpq_dsn(url)
    assert conninfo_to_dict(libpq_dsn(url_of(dsn, secrets=True))) == conninfo_to_dict(dsn)


def test_a_place_shows_no_password() -> None:
    place = url_of(libpq_dsn("postgresql://ann:hidden@db.example/shop?sslpassword=hidden"), secrets=False)
    assert place == "postgresql://ann@db.example/shop"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://ann:hidden@db/shop",
        "postgresql://ann:hidden@db:port/shop?x=1",
        "hidden",
        "host=a hidden",
        "postgresql://ann:hidden@[db/shop",
        "postgresql://ann:hidden@[db]/shop",
        "postgresql://ann:hidden@db/%de",
        "postgresql://ann:hidden@db/\udcde",
        "host=\udcde password=hidden",
    ],
)
def test_nonsense_is_explained_without_repeating_the_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="postgresql://user:password@host:5432/database") as caught:
        libpq_dsn(url)
    assert "ann:hidden" not in str(caught.value)


def test_the_port_of_pgbouncer_is_known() -> None:
    assert is_transaction_pooler("host=db port=6432")
    assert not is_transaction_pooler("host=db port=5432")


def test_quotes_around_a_value_are_its_own() -> None:
    found = conninfo_to_dict(libpq_dsn("host='h' dbname='a b'"))
    assert found == {"host": "h", "dbname": "a b"}


@pytest.mark.parametrize(
    ("url", "key", "value"),
    [
        ("jdbc:postgresql://h.example/db?user=me&password=p@ssWORD", "password", "p@ssWORD"),
        ("postgresql://h.example/db?application_name=me@corp", "application_name", "me@corp"),
        ("postgresql://me:p?x@h.example/db?sslmode=require", "password", "p?x"),
    ],
)
def test_an_at_sign_anywhere(url: str, key: str, value: str) -> None:
    found = conninfo_to_dict(libpq_dsn(url))
    assert (found["host"], found[key]) == ("h.example", value)


def test_a_badly_quoted_password_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        libpq_dsn("host=h password=my secret")
    assert "secret" not in str(caught.value)
