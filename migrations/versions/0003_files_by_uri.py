"""A picture is looked up by its URI alone, whatever collection it is in, which must not read a whole library.

Revision: 0003
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("create index files_uri on lookalike.files (uri)")


def downgrade() -> None:
    op.execute("drop index lookalike.files_uri")
