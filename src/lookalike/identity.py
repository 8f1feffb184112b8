"""Who we are to Azure where no key says so: ``az login``, a managed identity, a service principal, a workload's."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING

from lookalike.errors import ConfigurationError

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken
    from azure.identity import DefaultAzureCredential

_AHEAD = 300.0  # seconds before it expires that a token is fetched anew

HOW_TO_SIGN_IN = (
    "sign in with `az login`, give this machine a managed identity, or set AZURE_CLIENT_ID, AZURE_TENANT_ID and "
    "AZURE_CLIENT_SECRET"
)


def azure_identity(instead: str) -> DefaultAzureCredential:
    """The identity that this machine or its user has in Azure; asked for nothing yet. Close it.

    What azure-identity reads of the environment must stand there: a ``.env`` does not reach it.

    Args:
        instead: what else could be set, for the message.

    Raises:
        ConfigurationError: azure-identity is not installed.
    """
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError:
        raise ConfigurationError(
            f"Set {instead}; or, to call as the identity that this machine has in Azure: pip install 'lookalike[azure]'"
        ) from None
    # caches and windows of desktop programs: they answer a person, and slowly
    return DefaultAzureCredential(
        exclude_shared_token_cache_credential=True,
        exclude_visual_studio_code_credential=True,
        exclude_interactive_browser_credential=True,
        exclude_broker_credential=True,
        process_timeout=10,
    )


class Tokens:
    """Bearer tokens for one service of Azure, fetched anew before they expire. Safe to use from several threads."""

    def __init__(self, scope: str, instead: str) -> None:
        """Nothing is asked for yet.

        Args:
            scope: of the service, for example ``https://cognitiveservices.azure.com/.default``.
            instead: what else could be set, for messages.

        Raises:
            ConfigurationError: azure-identity is not installed.
        """
        self._scope, self._instead = scope, instead
        self._identity = azure_identity(instead)
        self._lock = threading.Lock()
        self._token: AccessToken | None = None
        self._good_until = 0.0

    def get(self) -> str:
        """A token that is good for a while.

        Raises:
            ConfigurationError: no identity gives one.
        """
        with self._lock:
            if self._token is None or time.time() >= self._good_until:
                self._token = self._fetched()
                left = self._token.expires_on - time.time()
                self._good_until = time.time() + left - min(_AHEAD, left / 2)
            return self._token.token

    def forget(self, token: str) -> None:
        """The service refused `token`: the next one will not come from anybody's memory."""
        with self._lock:
            if self._token is not None and self._token.token == token:
                self._token = None
                self._identity.close()
                self._identity = azure_identity(self._instead)

    def close(self) -> None:
        """Close connections."""
        self._identity.close()

    def _fetched(self) -> AccessToken:
        from azure.core.exceptions import AzureError

        try:
            return self._identity.get_token(self._scope)
        except AzureError as error:
            # what azure-identity says fills a screen, and only this of it says more than that there was nothing
            reason = re.search(r"AADSTS\d+", str(error))
            said = f" Azure answered {reason[0]}." if reason else ""
        raise ConfigurationError(
            f"No identity of this machine gives a token.{said} Set {self._instead}; or {HOW_TO_SIGN_IN}."
        )
