"""The texts that pictures were embedded together with, so that a text that has changed is noticed.

Revision: 0004
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLE = """
create table lookalike.texts (
    image_id   uuid not null references lookalike.images on delete cascade,
    model_id   integer not null,
    collection text not null,
    uri        text collate "C" not null,
    text       text not null,
    primary key (image_id, model_id)
);
comment on table lookalike.texts is
    'Under models that make one vector of a picture and a text: that text, and which of the image''s files it is of.';
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLE)


def downgrade() -> None:
    op.execute("drop table lookalike.texts")
