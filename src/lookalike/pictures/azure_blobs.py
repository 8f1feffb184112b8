"""Azure Blob Storage and Data Lake, through Azure's own library.

fsspec's adlfs would collect a whole container before it gives the first name, and cannot ask whether a blob has
changed; Azure's library lists page by page and answers that with one call.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import threading
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import quote, unquote, urlsplit

from lookalike.config import Secret
from lookalike.errors import ConfigurationError, ItemError, LookalikeError, SourceNotFound
from lookalike.identity import HOW_TO_SIGN_IN, azure_identity
from lookalike.pictures.globs import Pattern, is_hidden
from lookalike.pictures.web import Download, inflated, same_fingerprint
from lookalike.uris import redacted, without_secrets

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

SCHEMES = frozenset({"abfs", "abfss", "az"})

_INSTALL = "Azure Storage needs a package: pip install 'lookalike[azure]'"
_VARIABLES = (
    "AZURE_STORAGE_CONNECTION_STRING; or AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or "
    "AZURE_STORAGE_SAS_TOKEN"
)
# accounts of the public and the national clouds, of zones, and OneLake: the hosts that an identity's token may go to
_HOST = re.compile(
    r"([a-z0-9-]+)(?:\.z\d+)?\.(?:dfs|blob)\."
    r"(?:core\.windows\.net|core\.chinacloudapi\.cn|core\.usgovcloudapi\.net|storage\.azure\.net|fabric\.microsoft\.com)"
)
_FIRST_BYTES = 8 << 20  # asked for at once; more only if the blob is not too large
_PAGE = 5000
_CONNECTIONS = 64
_BAD_CREDENTIALS = frozenset(
    {
        "AuthenticationFailed",
        "AuthorizationFailure",
        "InvalidAuthenticationInfo",
        "NoAuthenticationInformation",
        "KeyBasedAuthenticationNotPermitted",
        "InvalidAuthenticationParameter",
    }
)


@dataclass(frozen=True, slots=True)
class Blob:
    """What lies in a container.

    Attributes:
        name: within the container.
        size: in bytes.
    """

    name: str
    fingerprint: str | None
    size: int | None


@dataclass(frozen=True, slots=True)
class Place:
    """A URL, understood.

    Attributes:
        endpoint: of the account, without a slash at its end.
        name: of a blob or a folder, or a glob.
        base: what its blobs' URLs begin with.
        quoted: whether names are percent-encoded in URLs.
    """

    endpoint: str
    container: str
    name: str
    base: str
    quoted: bool

    def url(self, name: str) -> str:
        """Of a blob in the same container."""
        return self.base + (quote(name, safe="/~!$&'()*+,;=:@") if self.quoted else name)


class AzureBlobs:
    """Blobs of every account that there are credentials for. Safe to use from several threads."""

    def __init__(self, given: Mapping[str, Secret]) -> None:
        """Nothing is sent yet.

        Args:
            given: ``connection_string``, ``account_name``, ``account_key`` and ``sas_token``, as far as they are set.
        """
        self._given = given
        self._lock = threading.Lock()
        self._clients: dict[str, BlobServiceClient] = {}
        self._to_close: list[Any] = []
        self._identity: Any = None
        self._endpoint: str | None = None
        self._wrong: ConfigurationError | None = None
        try:
            self._endpoint = _endpoint(given)
        except ConfigurationError as error:  # which matters to those only who come to Azure
            self._wrong = error

    def place(self, url: str) -> Place | None:
        """What a URL names, or None if it is somebody else's: an ``https`` URL of another account or with a signature.

        Raises:
            ConfigurationError: no account is named, or one that is not Azure's.
        """
        scheme, _, rest = url.partition("://")
        if scheme.lower() not in SCHEMES:
            return self._on_the_web(url)
        if self._wrong is not None:
            raise self._wrong
        authority, _, name = rest.partition("/")
        name = name.partition("?")[0] if "sig=" in name else name
        container, at, host = authority.partition("@")
        if at:
            endpoint = self._endpoint_of(host.lower())
        elif self._endpoint:
            endpoint = self._endpoint
        else:
            raise ConfigurationError(
                f"{without_secrets(url)} names no account. Set {_VARIABLES}; or write "
                f"{scheme}://{container or 'CONTAINER'}@ACCOUNT.dfs.core.windows.net/…, and {HOW_TO_SIGN_IN}."
            )
        if not container:
            raise SourceNotFound(f"{without_secrets(url)} names no container.")
        return Place(endpoint, container, name.lstrip("/"), f"{scheme}://{authority}/", quoted=False)

    def list(self, place: Place) -> Iterator[Blob]:
        """Every blob below a container or a folder, page by page, a single one, or those that match a glob.

        Raises:
            SourceNotFound: nothing lies there.
            ConfigurationError: the credentials do not open it.
            ItemError: it cannot be reached.
        """
        with _translated(place.url(place.name), whole=True):
            container = self._client(place.endpoint).get_container_client(place.container)
            single = self._single(container, place.name)
        if single is not None:
            yield single
            return
        folder = place.name.rstrip("/") + "/" if place.name.strip("/") else ""
        found = yield from self._below(place, container, folder, None)
        if not found and (pattern := Pattern.of(place.name)) is not None:
            found = yield from self._below(place, container, pattern.folder, pattern)
        if not found and folder:
            raise SourceNotFound(f"Nothing lies at {without_secrets(place.url(place.name))}.")

    def read(self, place: Place, *, most: int, known: str | None) -> Download | None:
        """A blob's bytes, or None if they are still what `known` stands for: one call either way.

        Raises:
            ItemError: as for ``Web.read``.
            ConfigurationError: the credentials are refused.
        """
        where = place.url(place.name)
        with _translated(where):
            from azure.core import MatchConditions
            from azure.core.exceptions import HttpResponseError

            blob = self._client(place.endpoint).get_blob_client(place.container, place.name or "/")
            condition: dict[str, Any] = {}
            if known is not None and known.startswith("etag:"):
                etag = known.removeprefix("etag:").replace('"', "")
                condition = {"etag": f'"{etag}"', "match_condition": MatchConditions.IfModified}
            try:
                stream = blob.download_blob(max_concurrency=1, decompress=False, **condition)
            except HttpResponseError as error:
                if error.status_code == 304 and condition:
                    return None
                raise
            properties = stream.properties
            fingerprint = _fingerprint(properties.etag)
            if same_fingerprint(fingerprint, known):
                return None
            if stream.size > most:
                raise ItemError(
                    "too-many-bytes", f"{without_secrets(where)} has {stream.size:,} bytes; {most:,} are the most."
                )
            data = stream.readall()
        encoding = (properties.content_settings.content_encoding or "").lower()
        if encoding not in ("", "identity"):
            data = b"".join(inflated(iter((data,)), encoding, most))
            if len(data) > most:
                raise ItemError("too-many-bytes", f"{without_secrets(where)} unpacks to more than {most:,} bytes.")
        return Download(data, fingerprint)

    def open(self, place: Place) -> BinaryIO:
        """A blob in a temporary file that vanishes when it is closed.

        Raises:
            ItemError, ConfigurationError: as for `read`.
        """
        with contextlib.ExitStack() as undo, _translated(place.url(place.name)):
            file = undo.enter_context(tempfile.TemporaryFile(prefix="lookalike-"))
            blob = self._client(place.endpoint).get_blob_client(place.container, place.name or "/")
            blob.download_blob(max_concurrency=1, decompress=False).readinto(cast(BinaryIO, file))
            file.seek(0)
            undo.pop_all()
        return cast(BinaryIO, file)

    def close(self) -> None:
        """Close connections."""
        with self._lock:
            for each in self._to_close:
                each.close()
            self._to_close.clear()
            self._clients.clear()
            self._identity = None

    def _on_the_web(self, url: str) -> Place | None:
        """An ``http(s)`` URL of the account that there are credentials for."""
        if self._endpoint is None or ("?" in url and "sig" in _query_names(url)):
            return None
        parts, ours = urlsplit(url), urlsplit(self._endpoint)
        if (parts.scheme, parts.netloc.lower()) != (ours.scheme, ours.netloc.lower()) or "@" in parts.netloc:
            return None
        if not parts.path.startswith(f"{ours.path}/"):
            return None
        container, _, name = parts.path.removeprefix(f"{ours.path}/").partition("/")
        if not container:
            return None
        return Place(self._endpoint, container, unquote(name), f"{self._endpoint}/{container}/", quoted=True)

    def _endpoint_of(self, host: str) -> str:
        if self._endpoint is not None:
            ours = urlsplit(self._endpoint).netloc.lower()
            if host.replace(".dfs.", ".blob.") == ours or host.partition(".")[0] == host == _account(self._given):
                return self._endpoint
        if not _HOST.fullmatch(host):
            raise ConfigurationError(
                f"{host} is no account of Azure Storage: it reads ACCOUNT.dfs.core.windows.net. An account of your own "
                "is named by AZURE_STORAGE_CONNECTION_STRING."
            )
        return f"https://{host.replace('.dfs.', '.blob.')}"

    def _client(self, endpoint: str) -> BlobServiceClient:
        """The client of an account; credentials that are set go to their own account only."""
        with self._lock:
            if endpoint not in self._clients:
                self._clients[endpoint] = self._new_client(endpoint)
            return self._clients[endpoint]

    def _new_client(self, endpoint: str) -> BlobServiceClient:
        try:
            from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
            from azure.core.pipeline.transport import RequestsTransport
            from azure.storage.blob import BlobServiceClient, ExponentialRetry
        except ImportError:
            raise ConfigurationError(_INSTALL) from None
        import requests

        session = requests.Session()
        session.auth = lambda request: request  # else a ~/.netrc would speak for us
        for scheme in ("https://", "http://"):
            session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=_CONNECTIONS))
        options: dict[str, Any] = {
            "transport": RequestsTransport(session=session, session_owner=False),
            "retry_policy": ExponentialRetry(initial_backoff=1, increment_base=2, retry_total=2, random_jitter_range=1),
            "connection_timeout": 10,
            "read_timeout": 30,
            "max_single_get_size": _FIRST_BYTES,
            "max_chunk_get_size": _FIRST_BYTES,
        }
        self._to_close.append(session)
        given = self._given
        ours = endpoint == self._endpoint
        if ours and "connection_string" in given:
            return BlobServiceClient.from_connection_string(str(given["connection_string"]), **options)
        credential: Any
        if ours and "account_key" in given:
            credential = AzureNamedKeyCredential(str(given["account_name"]), str(given["account_key"]))
        elif ours and "sas_token" in given:
            credential = AzureSasCredential(str(given["sas_token"]).strip().removeprefix("?"))
        else:
            if self._identity is None:
                self._identity = azure_identity(_VARIABLES)
                self._to_close.append(self._identity)
            credential = self._identity
        return BlobServiceClient(endpoint, credential=credential, **options)

    def _single(self, container: Any, name: str) -> Blob | None:
        from azure.core.exceptions import HttpResponseError

        if not name or name.endswith("/"):
            return None
        try:
            found = container.get_blob_client(name).get_blob_properties()
        except HttpResponseError as error:
            if error.status_code == 404 and getattr(error, "error_code", None) != "ContainerNotFound":
                return None
            raise
        return None if _is_folder(found) else Blob(name, _fingerprint(found.etag), found.size)

    def _below(self, place: Place, container: Any, folder: str, pattern: Pattern | None) -> Generator[Blob, None, bool]:
        """Blobs below `folder`; returns whether anything lies there at all."""
        found = False
        with _translated(place.url(place.name), whole=True):
            # data lakes list their folders as blobs of their own, which only their metadata tells
            pages = container.list_blobs(
                name_starts_with=folder or None, include=["metadata"], results_per_page=_PAGE
            ).by_page()
        while True:
            with _translated(place.url(place.name), whole=True):
                page = next(pages, None)
                blobs = [] if page is None else list(page)
            if page is None:
                return found
            for blob in blobs:
                if pattern is None or pattern.matches(blob.name):
                    found = True
                    if not _is_folder(blob) and not is_hidden(blob.name.removeprefix(folder)):
                        yield Blob(blob.name, _fingerprint(blob.etag), blob.size)


def _endpoint(given: Mapping[str, Secret]) -> str | None:
    """The blob endpoint of the account that the settings name."""
    if "connection_string" in given:
        try:
            fields = dict(
                (key.strip().lower(), value.strip())
                for key, value in (field.split("=", 1) for field in str(given["connection_string"]).split(";") if field)
            )
        except ValueError:
            fields = {}
        if fields.get("usedevelopmentstorage", "").lower() == "true":
            return "http://127.0.0.1:10000/devstoreaccount1"
        if fields.get("blobendpoint"):
            return fields["blobendpoint"].partition("?")[0].rstrip("/")
        if not fields.get("accountname"):
            raise ConfigurationError(
                "AZURE_STORAGE_CONNECTION_STRING cannot be understood: it reads AccountName=…;AccountKey=…, as the "
                "portal shows it under 'Access keys'."
            )
        protocol, suffix = fields.get("defaultendpointsprotocol", "https"), fields.get("endpointsuffix")
        return f"{protocol}://{fields['accountname']}.blob.{suffix or 'core.windows.net'}"
    if "account_name" in given:
        return f"https://{given['account_name']}.blob.core.windows.net"
    if given:
        raise ConfigurationError("Credentials of Azure Storage are set, but AZURE_STORAGE_ACCOUNT_NAME is not.")
    return None


def _account(given: Mapping[str, Secret]) -> str | None:
    match = re.search(r"AccountName=([^;]+)", str(given.get("connection_string", "")), re.IGNORECASE)
    return match[1] if match else given.get("account_name")


def _query_names(url: str) -> set[str]:
    return {unquote(field.partition("=")[0]).lower() for field in url.partition("?")[2].split("&")}


def _fingerprint(etag: str | None) -> str | None:
    return "etag:" + etag.replace('"', "") if etag else None


def _is_folder(blob: Any) -> bool:
    metadata = {key.lower(): value for key, value in (blob.metadata or {}).items()}
    return blob.name.endswith("/") or metadata.get("hdi_isfolder") == "true"


@contextlib.contextmanager
def _translated(url: str, *, whole: bool = False) -> Iterator[None]:
    """Azure's errors as ours.

    Args:
        whole: whether a container or folder is asked for, and not one of many pictures.
    """
    try:
        from azure.core import exceptions as azure
    except ImportError:
        raise ConfigurationError(_INSTALL) from None
    place = without_secrets(url)
    try:
        yield
    except LookalikeError:
        raise
    except azure.HttpResponseError as error:
        raise _verdict(error, place, whole=whole) from None
    except azure.ServiceRequestError as error:
        raise ItemError("unreachable", f"{place} cannot be reached: {_brief(error)}", retryable=True) from None
    except azure.AzureError as error:
        raise ItemError("unreachable", f"{place} cannot be read: {_brief(error)}", retryable=True) from None
    except ValueError as error:
        # malformed keys, names and connection strings; their text may repeat what they were given
        raise ConfigurationError(
            f"{place} cannot be opened with the credentials that are set ({type(error).__name__}). Look at "
            f"{_VARIABLES}."
        ) from None


def _verdict(error: Any, place: str, *, whole: bool) -> LookalikeError | ItemError:
    from azure.core.exceptions import ClientAuthenticationError

    code = getattr(error, "error_code", None)
    status, code = error.status_code, str(getattr(code, "value", code) or "")
    said = f"{status} {code}".strip()
    if status is None and isinstance(error, ClientAuthenticationError):  # no identity answers
        return ConfigurationError(
            f"{place} needs credentials, and there are none. Set {_VARIABLES}; or {HOW_TO_SIGN_IN}."
        )
    if status in (401, 403) and (whole or status == 401 or code in _BAD_CREDENTIALS):
        return ConfigurationError(
            f"{place} is not open to these credentials ({said}). Look at {_VARIABLES}; an identity needs the role "
            "Storage Blob Data Reader, and the account's firewall must let this machine through."
        )
    if status in (401, 403):
        return ItemError("access-refused", f"{place} may not be read by us ({said}).", retryable=True)
    if status in (404, 410):
        return SourceNotFound(f"Nothing lies at {place} ({said}).") if whole else _not_found(place, said)
    later = status in (408, 409, 412, 429) or (status or 500) >= 500
    return ItemError("refused-by-host", f"{place} is refused by Azure Storage ({said}).", retryable=later)


def _not_found(place: str, said: str) -> ItemError:
    return ItemError("not-found", f"{place} is not there ({said}).")


def _brief(error: Exception) -> str:
    text = " ".join(redacted(str(error)).split())
    return text[:200] + "."
