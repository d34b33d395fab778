"""Questions that were refused for what they say: kept for who asked, and told to no model again."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

UP = ("ALTER TABLE chat.messages ADD COLUMN withheld boolean NOT NULL DEFAULT false",)

DOWN = ("ALTER TABLE chat.messages DROP COLUMN withheld",)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
