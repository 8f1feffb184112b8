"""Image similarity search that lives in your own PostgreSQL."""

from lookalike.config import Settings, read_environment
from lookalike.errors import (
    ConfigurationError,
    ContractBroken,
    CredentialsRefused,
    DatabaseError,
    ImageNotFound,
    Interrupted,
    ItemError,
    LookalikeError,
    ModelMismatch,
    SchemaOutOfDate,
    ServiceError,
    SourceNotFound,
    UnsupportedDatabase,
)
from lookalike.lookalike import Lookalike
from lookalike.types import Deleted, Embedding, Failure, File, Hit, IngestReport, Model, ModelStatus, Result, Status

__all__ = [
    "ConfigurationError",
    "ContractBroken",
    "CredentialsRefused",
    "DatabaseError",
    "Deleted",
    "Embedding",
    "Failure",
    "File",
    "Hit",
    "ImageNotFound",
    "IngestReport",
    "Interrupted",
    "ItemError",
    "Lookalike",
    "LookalikeError",
    "Model",
    "ModelMismatch",
    "ModelStatus",
    "Result",
    "SchemaOutOfDate",
    "ServiceError",
    "Settings",
    "SourceNotFound",
    "Status",
    "UnsupportedDatabase",
    "read_environment",
]
