"""What workers that share a database need: claims on pictures, turns at a service, and what was sent instead of a file.

Revision: 0002
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = """
create table lookalike.claims (
    model      text not null,
    image_id   uuid not null,
    worker     uuid not null,
    expires_at timestamptz not null,
    primary key (model, image_id)
);
create index claims_worker on lookalike.claims (worker);

create unlogged table lookalike.rates (
    credential text primary key,
    next_turn  timestamptz not null
);

create table lookalike.adaptations (
    image_id   uuid not null references lookalike.images on delete cascade,
    model_id   integer not null,
    changes    text[] not null,
    created_at timestamptz not null default now(),
    primary key (image_id, model_id)
);
"""

COMMENTS = {
    "table lookalike.claims": "What a worker has in hand; without a model: that it lives. What is not renewed lapses.",
    "table lookalike.rates": "When the next call under a credential (its hash) may be sent, by any process.",
    "table lookalike.adaptations": "Images that were sent to a model otherwise than they lie, and how they differed.",
    "column lookalike.adaptations.changes": "rotated, converted, shrunk or first-frame; one or several.",
}


def upgrade() -> None:
    comments = "".join(f"comment on {thing} is '{comment}';" for thing, comment in COMMENTS.items())
    op.get_bind().exec_driver_sql(TABLES + comments)


def downgrade() -> None:
    for table in ("adaptations", "rates", "claims"):
        op.execute(f"drop table lookalike.{table}")
