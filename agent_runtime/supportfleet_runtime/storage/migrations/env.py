"""Alembic's entry: migrates over the connection that ``storage.migrate`` hands in."""

from alembic import context

from supportfleet_runtime.storage.migrations import VERSION_TABLE
from supportfleet_runtime.storage.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
context.run_migrations()
