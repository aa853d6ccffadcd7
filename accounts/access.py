"""Who is asking, for which account, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass, replace

from accounts.models import Account, ApiToken, Role

_RANK = {Role.VIEWER: 0, Role.MEMBER: 1, Role.OWNER: 2}


@dataclass(frozen=True, slots=True)
class Access:
    """What a request carries as `request.auth`. `who` is the sentence part that rows and stories keep."""

    account: Account  # what lists show; the caller's own, unless an operator looks at another with ?account=
    role: Role
    is_operator: bool
    who: str  # "token demo (tok-k3v90qzd)"
    token: ApiToken | None = None

    def may(self, role: Role) -> bool:
        """True if this caller's role is at least `role`."""
        return _RANK[self.role] >= _RANK[role]

    def as_tenant(self) -> Access:
        """The same caller without an operator's power."""
        return replace(self, is_operator=False)

    def looking_at(self, account: Account) -> Access:
        """The same caller, with the lists of another account."""
        return replace(self, account=account)
