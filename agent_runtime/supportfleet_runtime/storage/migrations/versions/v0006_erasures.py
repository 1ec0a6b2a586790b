"""One erasure of a customer at a time; those that have finished name none, so they are no matter."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the index."""
    op.create_index("erasures_under_way", "erasures", ["scope", "customer_id"], unique=True)
