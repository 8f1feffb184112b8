"""Settings, read once from the environment.

The library reads what it is given and nothing else; the CLI and the scripts add a ``.env`` file with
`read_environment`. ``os.environ`` is never changed, and a secret never shows in a ``repr``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dotenv import dotenv_values

from lookalike.errors import ConfigurationError
from lookalike.types import DIMENSIONS, Model, Price

DEFAULT_MODEL = "azure-vision/2023-04-15"
"""The model of a command that names none, in a database that has none yet."""

AZURE_VISION_RATE = 10.0
"""Calls a second that Azure grants a paid resource (S1); the free tier F0 grants 20 a minute."""

AZURE_INFERENCE_RATE = 10.0
"""Calls a second, as Microsoft names no limit: a service that allows fewer says so, and is waited for."""

DASHSCOPE_ENDPOINT = "https://dashscope.aliyuncs.com/api/v1"
"""In Beijing, where all models are."""

PRICES = {
    "azure-vision": Price(0.10),
    "azure-inference/Cohere-embed-v3-english": Price(0.0001, "USD", "tokens"),
    "azure-inference/Cohere-embed-v3-multilingual": Price(0.0001, "USD", "tokens"),
    "dashscope/multimodal-embedding-v1": Price(0.0009, "CNY", "tokens"),
    "dashscope/qwen2.5-vl-embedding": Price(0.0018, "CNY", "tokens"),
    "dashscope/qwen3-vl-embedding": Price(0.0018, "CNY", "tokens"),
    "dashscope/tongyi-embedding-vision-plus-2026-03-06": Price(0.0005, "CNY", "tokens"),
    "dashscope/tongyi-embedding-vision-flash-2026-03-06": Price(0.00015, "CNY", "tokens"),
    "dashscope/tongyi-embedding-vision-flash": Price(0.00015, "CNY", "tokens"),
    "local": Price(0.0),
}
"""What is assumed where ``LOOKALIKE_PRICES`` says nothing. Providers change their prices, and grant discounts."""

_TIERS = {"F0": 20 / 60, "S0": AZURE_VISION_RATE, "S1": AZURE_VISION_RATE}
"""Calls a second that Azure grants a resource of each tier."""

_PRICE = re.compile(
    r"(?P<model>[^=\s]+)\s*=\s*(?P<amount>\d+(\.\d+)?)\s*(?P<currency>[^\d\s/]*)\s*(/\s*(?P<unit>calls|tokens))?"
)

_REGION = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)
_WORKSPACE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.IGNORECASE)

_LIBPQ_SERVER = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE")

DATABASE_VARIABLES = ("LOOKALIKE_DATABASE_URL", "DATABASE_URL", *_LIBPQ_SERVER)
"""Any of these names a database; without them all, the embedded server is used."""

_LIBPQ_VARIABLES = {
    "PGHOST": "host",
    "PGHOSTADDR": "hostaddr",
    "PGPORT": "port",
    "PGDATABASE": "dbname",
    "PGUSER": "user",
    "PGPASSWORD": "password",
    "PGPASSFILE": "passfile",
    "PGSERVICE": "service",
    "PGSERVICEFILE": "servicefile",
    "PGSSLMODE": "sslmode",
    "PGSSLROOTCERT": "sslrootcert",
    "PGOPTIONS": "options",
}

_AZURE_STORAGE_VARIABLES = {
    "AZURE_STORAGE_CONNECTION_STRING": "connection_string",
    "AZURE_STORAGE_ACCOUNT_NAME": "account_name",
    "AZURE_STORAGE_ACCOUNT_KEY": "account_key",
    "AZURE_STORAGE_SAS_TOKEN": "sas_token",
}


class Secret(str):
    """A string that does not show itself when printed by accident: its ``repr`` hides it."""

    def __repr__(self) -> str:
        return "Secret('…')"


@dataclass(frozen=True, slots=True)
class Settings:
    """What Lookalike needs to know of its surroundings.

    Attributes:
        database_url: a PostgreSQL URL or DSN in any spelling; None for the embedded server.
        home: where the embedded server keeps its data.
        home_chosen: whether somebody named `home`; a job without a terminal must.
        attended: whether a person sits at a terminal.
        transaction_pooler: whether a pooler in transaction mode (PgBouncer) stands in between, so that
            prepared statements must be left out.
        model: name of the model to use where a call names none.
        vision_endpoint: base URL of the Azure AI Vision resource.
        vision_key: its key.
        vision_rate: calls a second that its tier grants.
        azure_inference_endpoint: base URL of a server of Azure AI Model Inference's routes.
        azure_inference_credential: its key.
        azure_inference_rate: calls a second that it grants.
        azure_inference_batch: pictures in one call, for models that take several.
        azure_inference_deployment: what the server calls the model, where that is not the model's version.
        azure_inference_dimensions: numbers that a server's own model always gives, and is not asked for.
        dashscope_api_key: a key of DashScope.
        dashscope_endpoint: base URL, of the region that the key belongs to.
        dashscope_account: a name for whom the keys belong to; keys of one account share its rate.
        dashscope_rate: calls a second, None for what the service grants the model.
        dashscope_batch: pictures in one call, None for as many as the model takes.
        prices: what services ask, by provider or by model.
        allow_hosts: hosts (names, addresses, or either with ``:port``) inside our network that URLs may lead to.
        azure_storage: ``connection_string``, ``account_name``, ``account_key`` and ``sas_token``, those that are set.
    """

    database_url: Secret | None = None
    home: Path = Path("lookalike-home")
    home_chosen: bool = False
    attended: bool = False
    transaction_pooler: bool = False
    model: str | None = None
    vision_endpoint: str | None = None
    vision_key: Secret | None = None
    vision_rate: float = AZURE_VISION_RATE
    azure_inference_endpoint: str | None = None
    azure_inference_credential: Secret | None = None
    azure_inference_rate: float = AZURE_INFERENCE_RATE
    azure_inference_batch: int = 1
    azure_inference_deployment: str | None = None
    azure_inference_dimensions: int | None = None
    dashscope_api_key: Secret | None = None
    dashscope_endpoint: str = DASHSCOPE_ENDPOINT
    dashscope_account: str = "default"
    dashscope_rate: float | None = None
    dashscope_batch: int | None = None
    prices: Mapping[str, Price] = field(default_factory=lambda: PRICES)
    allow_hosts: tuple[str, ...] = ()
    azure_storage: Mapping[str, Secret] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read settings from `environment`, by default ``os.environ``. Empty values count as absent.

        Raises:
            ConfigurationError: a value cannot be understood.
        """
        given = {name: value for name, value in (environment or os.environ).items() if value.strip()}
        url = given.get("LOOKALIKE_DATABASE_URL") or given.get("DATABASE_URL") or _libpq_dsn(given)
        home = given.get("LOOKALIKE_HOME")
        return cls(
            database_url=Secret(url) if url else None,
            home=_home(home) if home else _default_home(given),
            home_chosen=home is not None,
            attended=any(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)),
            transaction_pooler=_transaction_pooler(given),
            model=given.get("LOOKALIKE_MODEL"),
            vision_endpoint=given.get("VISION_ENDPOINT"),
            vision_key=_secret(given, "VISION_KEY", "VISION_KEY_FILE"),
            vision_rate=_vision_rate(given),
            azure_inference_endpoint=given.get("AZURE_INFERENCE_ENDPOINT"),
            azure_inference_credential=_secret(given, "AZURE_INFERENCE_CREDENTIAL", "AZURE_INFERENCE_CREDENTIAL_FILE"),
            azure_inference_rate=_rate(given, "AZURE_INFERENCE_RATE") or AZURE_INFERENCE_RATE,
            azure_inference_batch=_count(given, "AZURE_INFERENCE_BATCH", 96, "pictures in one call") or 1,
            azure_inference_deployment=given.get("AZURE_INFERENCE_DEPLOYMENT", "").strip() or None,
            azure_inference_dimensions=_count(given, "AZURE_INFERENCE_DIMENSIONS", DIMENSIONS, "numbers in a vector"),
            dashscope_api_key=_secret(given, "DASHSCOPE_API_KEY", "DASHSCOPE_API_KEY_FILE"),
            dashscope_endpoint=_dashscope_endpoint(given),
            dashscope_account=given.get("DASHSCOPE_ACCOUNT", "default").strip(),
            dashscope_rate=_rate(given, "DASHSCOPE_RATE"),
            dashscope_batch=_count(given, "DASHSCOPE_BATCH", 64, "pictures in one call"),
            prices=_prices(given),
            allow_hosts=tuple(
                host.strip() for host in given.get("LOOKALIKE_ALLOW_HOSTS", "").split(",") if host.strip()
            ),
            azure_storage={
                key: Secret(given[name].strip()) for name, key in _AZURE_STORAGE_VARIABLES.items() if name in given
            },
        )

    def price_of(self, model: Model) -> Price | None:
        """What the model's provider asks, None where nobody has said."""
        names = (model.name, f"{model.provider}/{model.version}", model.provider)
        return next((self.prices[name] for name in names if name in self.prices), None)


def read_environment(dotenv: Path | None = None) -> dict[str, str]:
    """The environment, with a ``.env`` file (by default the one in the working directory) underneath it.

    Raises:
        ConfigurationError: there is such a file, and it cannot be read.
    """
    path = dotenv or Path.cwd() / ".env"
    try:
        values = dotenv_values(path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read as text in UTF-8: {error}") from None
    return {**{name: value for name, value in values.items() if value is not None}, **os.environ}


def _libpq_dsn(given: Mapping[str, str]) -> str | None:
    """libpq's own variables as a DSN, if they name a server; they may stand in a ``.env``, which libpq cannot see."""
    if given.keys().isdisjoint(_LIBPQ_SERVER):
        return None
    quoted = (
        (key, given[name].replace("\\", "\\\\").replace("'", "\\'"))
        for name, key in _LIBPQ_VARIABLES.items()
        if name in given
    )
    return " ".join(f"{key}='{value}'" for key, value in quoted)


def _home(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise ConfigurationError(f"LOOKALIKE_HOME is {text!r}, and there is no such user.") from None


def _default_home(given: Mapping[str, str]) -> Path:
    # PostgreSQL refuses to run as root, so its files must lie where another user may enter: not in root's own home.
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/lookalike")
    data = given.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "lookalike"


def _secret(given: Mapping[str, str], name: str, file_name: str) -> Secret | None:
    """A secret from its variable, or from the file that another one names, as orchestrators mount them."""
    if name in given:
        return Secret(given[name].strip())
    if file_name not in given:
        return None
    path = Path(given[file_name])
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file_name} names {path}, which cannot be read: {error}") from None
    if not text:
        raise ConfigurationError(f"{file_name} names {path}, which is empty.")
    return Secret(text)


def _transaction_pooler(given: Mapping[str, str]) -> bool:
    mode = given.get("LOOKALIKE_POOLER", "").lower()
    if mode not in ("", "transaction", "session", "none"):
        raise ConfigurationError(f"LOOKALIKE_POOLER is {mode!r}; it can be 'transaction', 'session' or 'none'.")
    return mode == "transaction"


def _prices(given: Mapping[str, str]) -> Mapping[str, Price]:
    prices = dict(PRICES)
    for entry in filter(str.strip, given.get("LOOKALIKE_PRICES", "").split(",")):
        match = _PRICE.fullmatch(entry.strip())
        if match is None:
            raise ConfigurationError(
                f"LOOKALIKE_PRICES holds {entry.strip()!r}; an entry reads PROVIDER=AMOUNT or MODEL=AMOUNT per 1,000 "
                "calls, or AMOUNT/tokens, for example: azure-vision=0.10USD, azure-vision/2023-04-15=0.09EUR/calls"
            )
        unit: Literal["calls", "tokens"] = "tokens" if match["unit"] == "tokens" else "calls"
        prices[match["model"]] = Price(float(match["amount"]), match["currency"] or "USD", unit)
    return prices


def _vision_rate(given: Mapping[str, str]) -> float:
    tier = given.get("VISION_TIER", "S1").upper()
    if tier not in _TIERS:
        raise ConfigurationError(f"VISION_TIER is {tier!r}; it can be {', '.join(_TIERS)}. VISION_RATE fits any other.")
    return _rate(given, "VISION_RATE") or _TIERS[tier]


def _rate(given: Mapping[str, str], name: str) -> float | None:
    if name not in given:
        return None
    try:
        rate = float(given[name])
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1e6:
        raise ConfigurationError(f"{name} is {given[name]!r}; it is a number of calls a second, for example 10.")
    return rate


def _count(given: Mapping[str, str], name: str, most: int, what: str) -> int | None:
    if name not in given:
        return None
    text = given[name].strip()
    if not re.fullmatch("[0-9]{1,6}", text) or not 1 <= int(text) <= most:
        raise ConfigurationError(f"{name} is {text!r}; it is a number of {what}, 1 to {most:,}.")
    return int(text)


def _dashscope_endpoint(given: Mapping[str, str]) -> str:
    """The base URL, as the service's own client finds it."""
    if "DASHSCOPE_HTTP_BASE_URL" in given:
        return given["DASHSCOPE_HTTP_BASE_URL"].strip()
    region, workspace = given.get("DASHSCOPE_API_REGION", "cn-beijing").strip(), given.get("DASHSCOPE_WORKSPACE_ID", "")
    if not _REGION.fullmatch(region):
        raise ConfigurationError(
            f"DASHSCOPE_API_REGION is {region!r}; it reads cn-beijing, ap-southeast-1 (Singapore), us-east-1 …"
        )
    if region == "cn-beijing":
        return DASHSCOPE_ENDPOINT
    if workspace:
        if not _WORKSPACE.fullmatch(workspace.strip()):
            raise ConfigurationError(
                "DASHSCOPE_WORKSPACE_ID holds characters that no workspace has; copy it once more."
            )
        return f"https://{workspace.strip()}.{region}.maas.aliyuncs.com/api/v1"
    if region == "ap-southeast-1":
        return "https://dashscope-intl.aliyuncs.com/api/v1"
    raise ConfigurationError(
        f"DASHSCOPE_API_REGION is {region}, where each workspace has a host of its own: set DASHSCOPE_WORKSPACE_ID, "
        "which the Model Studio console shows, or DASHSCOPE_HTTP_BASE_URL."
    )
