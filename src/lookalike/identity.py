"""Who we are to Azure where no key says so: ``az login``, a managed identity, a service principal, a workload's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lookalike.errors import ConfigurationError

if TYPE_CHECKING:
    from azure.identity import DefaultAzureCredential

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
