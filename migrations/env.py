"""Alembic's entrance.

The library hands over a connection; by hand (`alembic revision`), the settings name the database.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text

SCHEMA = "lookalike"


def migrate(connection: Connection) -> None:
    # `create schema if not exists` asks for the right to create even where there is nothing to do
    if connection.scalar(text("select to_regnamespace(:name)"), {"name": SCHEMA}) is None:
        connection.execute(text(f"create schema {SCHEMA}"))
    context.configure(connection=connection, version_table_schema=SCHEMA, include_schemas=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    from lookalike.config import Settings, read_environment
    from lookalike.store.database import Database

    with (
        Database.open(Settings.from_environment(read_environment())) as database,
        database.engine.begin() as connection,
    ):
        migrate(connection)
