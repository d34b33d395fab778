"""Who has just deleted the account, so that a device that has not heard of it keeps nothing under it."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

UP = (
    # Such a row says nothing else of the user, and is gone within hours or with the next login.
    "ALTER TABLE chat.users ADD COLUMN erased_at timestamptz",
    "CREATE INDEX users_erased ON chat.users (erased_at) WHERE erased_at IS NOT NULL",
)

DOWN = (
    "DELETE FROM chat.users WHERE erased_at IS NOT NULL",
    "DROP INDEX chat.users_erased",
    "ALTER TABLE chat.users DROP COLUMN erased_at",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
