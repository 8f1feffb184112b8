"""The tables that everything lives in.

Keys hold `image_id`, nothing refers to `models` by a foreign key and no hash is unique, so that the tables can be
distributed over several machines later. A model's partition, index and view are made by `lookalike.add_model`.

Revision: 0001
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
create table lookalike.models (
    model_id    integer generated always as identity primary key,
    name        text not null unique,
    provider    text not null,
    version     text not null,
    dimensions  smallint not null check (dimensions between 1 and 1024),
    parameters  jsonb not null default '{}',
    view_name   name not null unique,
    state       text not null check (state in ('filling', 'ready', 'active', 'dropped')),
    created_at  timestamptz not null default now()
);
create unique index models_one_active on lookalike.models (state) where state = 'active';

create table lookalike.images (
    image_id    uuid primary key,
    sha256      bytea check (octet_length(sha256) = 32),
    media_type  text,
    width       integer,
    height      integer,
    byte_size   bigint,
    created_at  timestamptz not null default now()
);
create index images_sha256 on lookalike.images (sha256);

create table lookalike.files (
    image_id      uuid not null references lookalike.images on delete cascade,
    collection    text not null default 'default' check (octet_length(collection) <= 200),
    uri           text collate "C" not null check (octet_length(uri) <= 2000),
    key           text check (octet_length(key) <= 2000),
    fingerprint   text,
    metadata      jsonb not null default '{}',
    metadata_text tsvector generated always as (jsonb_to_tsvector('simple', metadata, '["string"]')) stored,
    seen_at       timestamptz not null default now(),
    primary key (image_id, collection, uri)
);
create unique index files_place on lookalike.files (collection, uri);
create index files_key on lookalike.files (key);
create index files_metadata on lookalike.files using gin (metadata jsonb_path_ops);
create index files_metadata_text on lookalike.files using gin (metadata_text);

create table lookalike.embeddings (
    image_id    uuid not null references lookalike.images on delete cascade,
    model_id    integer not null,
    embedding   {vector}.halfvec(1024) not null check ({vector}.l2_norm(embedding) > 0),
    created_at  timestamptz not null default now(),
    primary key (image_id, model_id)
) partition by list (model_id);

create table lookalike.failures (
    model       text not null,
    collection  text not null,
    uri         text collate "C" not null check (octet_length(uri) <= 2000),
    image_id    uuid,
    fingerprint text,
    stage       text not null check (stage in ('read', 'check', 'embed')),
    code        text not null,
    message     text not null,
    request_id  text,
    retryable   boolean not null,
    attempts    integer not null default 1,
    first_at    timestamptz not null default now(),
    last_at     timestamptz not null default now(),
    primary key (model, collection, uri)
);

create table lookalike.queries (
    model_id    integer not null,
    kind        text not null check (kind in ('text', 'image')),
    digest      bytea not null check (octet_length(digest) = 32),
    source      text not null,
    embedding   {vector}.halfvec(1024) not null check ({vector}.l2_norm(embedding) > 0),
    created_at  timestamptz not null default now(),
    primary key (model_id, kind, digest)
);

create table lookalike.runs (
    run_id      bigint generated always as identity primary key,
    command     text not null,
    model       text,
    started_at  timestamptz not null default now(),
    ended_at    timestamptz,
    counts      jsonb not null default '{}',
    calls       bigint,
    tokens      bigint,
    exit_code   smallint
);

create view lookalike.active_embeddings as
    select null::uuid as image_id, null::text as model, null::{vector}.halfvec(1024) as embedding where false;
"""

COMMENTS = {
    "table lookalike.models": "One row per vector space. At most one model is active: the one that searches use.",
    "column lookalike.models.state": "filling, ready (complete), active (searched) or dropped (vectors deleted).",
    "table lookalike.images": "One row per distinct picture. The same bytes are one image, wherever they lie.",
    "column lookalike.images.sha256": "Hash of the bytes; null until the bytes have been seen.",
    "table lookalike.files": "One row per place where an image is found.",
    "column lookalike.files.key": "The owner''s own id of the picture, for example a SKU.",
    "column lookalike.files.fingerprint": "Size and modification time, or ETag: unchanged files are not read again.",
    "table lookalike.embeddings": "One row per image and model; one partition and one HNSW index per model.",
    "table lookalike.failures": "One row per file and model that could not be done, and why.",
    "table lookalike.queries": "Queries that were embedded already, so that nobody pays for them twice.",
    "table lookalike.runs": "What ran, what it did and what it cost.",
    "view lookalike.active_embeddings": "The embeddings of the active model.",
}


def upgrade() -> None:
    connection = op.get_bind()
    vector = connection.scalar(
        text(
            "select quote_ident(nspname) from pg_extension join pg_namespace n on n.oid = extnamespace"
            " where extname = 'vector'"
        )
    )
    comments = "".join(f"comment on {thing} is '{comment}';" for thing, comment in COMMENTS.items())
    connection.exec_driver_sql(TABLES.replace("{vector}", vector) + comments)


def downgrade() -> None:
    op.execute("drop view lookalike.active_embeddings")
    # the repeatable functions and views, and the partitions with their views, hang on these tables
    for table in ("runs", "queries", "failures", "embeddings", "files", "images", "models"):
        op.execute(f"drop table lookalike.{table} cascade")
