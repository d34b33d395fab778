"""Messages that older nodes store, which know nothing of branches, follow the one before them all the same."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

UP = (
    # While nodes are replaced, older ones insert without `parent_id`: their messages would stand beside the first one
    # of the conversation, and choosing one of them would hide all that was said before. What newer nodes insert without
    # one is a first message, or is asked instead of one; then nothing is chosen, and it stays without.
    """
    CREATE FUNCTION chat.follow_the_newest() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.parent_id := (
            SELECT id FROM chat.messages WHERE conversation_id = NEW.conversation_id AND chosen
            ORDER BY position DESC LIMIT 1
        );
        RETURN NEW;
    END
    $$
    """,
    """
    CREATE TRIGGER follow_the_newest BEFORE INSERT ON chat.messages
    FOR EACH ROW WHEN (NEW.parent_id IS NULL) EXECUTE FUNCTION chat.follow_the_newest()
    """,
)

DOWN = ("DROP TRIGGER follow_the_newest ON chat.messages", "DROP FUNCTION chat.follow_the_newest()")


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
