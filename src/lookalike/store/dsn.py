"""Every spelling of a PostgreSQL URL, turned into what libpq understands."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from lookalike.errors import ConfigurationError

_SCHEMES = {"postgres", "postgresql", "psql", "pgsql", "postgis"}
_NOT_LIBPQ = {
    # options of other drivers and of ORMs, which say nothing about the server
    *("schema", "pgbouncer", "connection_limit", "pool_timeout", "pool_size", "max_overflow", "statement_cache_size"),
    *("prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback", "conn_max_age", "prepare"),
}
_RENAMED = {"ssl": "sslmode", "timeout": "connect_timeout", "database": "dbname", "username": "user"}
_SSL_WORDS = {"true": "require", "1": "require", "false": "disable", "0": "disable"}


_READS = "It reads postgresql://user:password@host:5432/database"
_NO_TEXT = f"The database URL holds something that is no text in UTF-8. {_READS}"


def libpq_dsn(url: str) -> str:
    """A libpq connection string for `url`.

    Understands ``postgres://`` and ``postgresql://``, with any ``+driver``, ``jdbc:`` URLs, other drivers' options
    (``?ssl=true``), and ``key=value`` strings. A bare ``?`` of an ORM's own options is left out.

    Raises:
        ConfigurationError: it is none of these; the message does not repeat it, as it may hold a password.
    """
    text = url.strip()
    if text.encode("utf-8", "replace").decode() != text:
        raise ConfigurationError(_NO_TEXT)
    if text[:1] in ("'", '"') and text[:1] == text[-1:]:
        text = text[1:-1]
    if "://" not in text:
        return _checked(text, "a list of key=value pairs")
    scheme, _, rest = text.removeprefix("jdbc:").partition("://")
    name, _, _driver = scheme.lower().partition("+")
    if name not in _SCHEMES:
        raise ConfigurationError(f"The database URL starts with {scheme}://, which is not PostgreSQL. {_READS}")
    try:
        parts = urlsplit(f"postgresql://{_quote_password(rest)}")
    except ValueError:  # what is between brackets is no address
        raise ConfigurationError(f"The database URL cannot be read as a URL: its host is none. {_READS}") from None
    query = [
        (_RENAMED.get(key, key), _SSL_WORDS.get(value.lower(), value) if key == "ssl" else value)
        for key, value in parse_qsl(parts.query, keep_blank_values=True)
        if key not in _NOT_LIBPQ
    ]
    options = f"?{urlencode(query, quote_via=quote)}" if query else ""
    return _checked(f"postgresql://{parts.netloc}{parts.path}{options}", "a URL")


def is_transaction_pooler(dsn: str) -> bool:
    """Whether the port is PgBouncer's usual one, behind which prepared statements may meet another session."""
    return str(conninfo_to_dict(dsn).get("port", "")) == "6432"


def url_of(dsn: str, *, secrets: bool) -> str:
    """A connection string as one URL that libpq reads; without `secrets` it is fit for logs and reports."""
    given = {key: str(value) for key, value in conninfo_to_dict(dsn).items() if value is not None}
    user, password = given.pop("user", ""), given.pop("password", "")
    host, port, database = given.pop("host", ""), given.pop("port", ""), given.pop("dbname", "")
    credentials = quote(user, safe="") + (f":{quote(password, safe='')}" if password and secrets else "")
    if host.startswith("/") or "," in host:
        # a folder of sockets, or several hosts, fit nowhere but among the options
        given = {"host": host, **({"port": port} if port else {}), **given}
        host = port = ""
    place = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    options = given if secrets else {key: value for key, value in given.items() if key in ("host", "port", "service")}
    query = f"?{urlencode(options, quote_via=quote)}" if options else ""
    return f"postgresql://{credentials}{'@' if credentials else ''}{place}/{quote(database, safe='')}{query}"


def _checked(text: str, what: str) -> str:
    try:
        dsn = make_conninfo(text)
        conninfo_to_dict(dsn)
        return dsn
    except UnicodeError:
        raise ConfigurationError(_NO_TEXT) from None
    except psycopg.ProgrammingError as error:
        # what libpq quotes is a piece of what it was given, and that piece may be the password
        reason = re.sub(r'"[^"]*"', "…", str(error).strip())
        raise ConfigurationError(f"The database URL cannot be read as {what}: {reason}. {_READS}") from None


def _quote_password(rest: str) -> str:
    """Percent-encode user and password, which get pasted as they are, with ``/``, ``#``, ``?`` or ``@`` in them."""
    before_options = re.split(r"\?\w+=", rest, maxsplit=1)[0]
    head, at, _ = before_options.rpartition("@")
    if not at:
        return rest
    user, colon, password = head.partition(":")
    return f"{_requote(user)}{colon}{_requote(password)}{rest[len(head) :]}"


def _requote(text: str) -> str:
    intact = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text)
    return quote(unquote(intact), safe="")
