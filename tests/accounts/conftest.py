"""Two accounts with a token for every role, and a client that sends one."""

from tests.callers import caller, ours, staff, theirs

__all__ = ["caller", "ours", "staff", "theirs"]
