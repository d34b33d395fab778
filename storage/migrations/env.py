"""What Alembic runs: the revisions, on the connection and in the transaction that `storage.schema` hands over.

There is no offline mode and no alembic.ini: a database is migrated by the server that needs it.
"""

from alembic import context

context.configure(connection=context.config.attributes["connection"], target_metadata=None)
context.run_migrations()
