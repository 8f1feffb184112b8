"""Every error that Lookalike raises, grouped by what the caller can do about it.

::

    LookalikeError
    ├── ConfigurationError      a setting is missing or contradicts another: change it
    ├── SourceNotFound          nothing lies where an ingest was told to look
    ├── ImageNotFound           no stored image, file or URL answers to that name
    ├── ModelMismatch           a vector of one model was given to another: embed it again
    ├── InvalidFilter           a filter, a mix or a place to go on from cannot be understood: write it otherwise
    ├── DatabaseError           PostgreSQL could not be reached or refused
    │   ├── UnsupportedDatabase     PostgreSQL or pgvector is missing or too old
    │   ├── SchemaOutOfDate         run `lookalike db upgrade`
    │   └── DatabaseUnavailable     it restarts, or the network is down: later it may answer again
    ├── ItemError               one picture or text cannot be done; the next one can
    └── ServiceError            nothing more can be done with this service: the run stops
        ├── CredentialsRefused      key, network rule or quota
        ├── ContractBroken          the service did not answer as its contract says
        └── Interrupted             somebody asked us to stop while we were waiting
            └── BudgetSpent             as many calls were billed as were allowed

The message is one that a person can act on; whatever a program may want hangs on the object as an attribute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class LookalikeError(Exception):
    """The root of all errors that Lookalike raises on purpose.

    Attributes:
        report: the ``IngestReport`` of what was done before an ingest stopped; None outside an ingest.
        answered: where an embedder was given several inputs, what came of each before; None where nothing did.
    """

    report: Any = None
    answered: Sequence[Any] = ()


class ConfigurationError(LookalikeError):
    """A setting is missing, malformed or contradicts another one."""


class SourceNotFound(LookalikeError):
    """Nothing lies where an ingest was told to look."""


class ImageNotFound(LookalikeError):
    """No stored image, file or URL answers to the name that was given."""


class ModelMismatch(LookalikeError):
    """Vectors of two models were about to meet.

    Attributes:
        expected: name of the model that was asked for.
        found: name of the model that the vector belongs to.
    """

    def __init__(self, expected: str, found: str, message: str | None = None) -> None:
        self.expected = expected
        self.found = found
        super().__init__(
            message
            or f"This vector belongs to {found}, not to {expected}: two models cannot be compared. "
            f"Embed the query with {expected}."
        )


class InvalidFilter(LookalikeError):
    """What narrows a search, or says where it goes on, cannot be understood."""


class DatabaseError(LookalikeError):
    """PostgreSQL could not be reached, or refused what was asked of it."""


class UnsupportedDatabase(DatabaseError):
    """PostgreSQL or its pgvector extension is missing or too old."""


class SchemaOutOfDate(DatabaseError):
    """The tables are not the ones that this version of Lookalike works with."""


class DatabaseUnavailable(DatabaseError):
    """PostgreSQL does not answer just now; the same may succeed later."""


class ItemError(LookalikeError):
    """One picture or one text cannot be done; the next one can.

    Attributes:
        code: short, stable, lower-case name of the reason, for example ``not-an-image``.
        retryable: whether the same bytes may succeed at another time.
        request_id: the service's own name for the call that failed, if there was one.
    """

    def __init__(self, code: str, message: str, *, retryable: bool = False, request_id: str | None = None) -> None:
        self.code = code
        self.retryable = retryable
        self.request_id = request_id
        super().__init__(message)


class ServiceError(LookalikeError):
    """Nothing more can be done with an embedding service, so the run stops.

    Attributes:
        request_id: the service's own name for the call that failed, if there was one.
    """

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        self.request_id = request_id
        super().__init__(message)


class CredentialsRefused(ServiceError):
    """The service refused the key, the network that we call from, or has no quota left."""


class ContractBroken(ServiceError):
    """The service does not answer as its contract says, so nothing it answers can be trusted."""


class Interrupted(ServiceError):
    """The wait for a service was cut short because somebody asked the run to stop."""


class BudgetSpent(Interrupted):
    """As many calls were billed as were allowed."""
