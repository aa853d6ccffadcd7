"""Which operations?"""

from accounts.owned import OwnedQuerySet


class OperationQuerySet(OwnedQuerySet):
    """Operations of an account; those of nodes belong to no account, and operators reach them."""
