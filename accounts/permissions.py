"""What each role may do: a viewer reads, a member changes resources, an owner also manages tokens."""

from __future__ import annotations

from typing import Any

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from accounts.access import Access
from accounts.models import Role
from core.errors import Forbidden


class ByRole(BasePermission):
    """Reading takes a viewer; everything else the `role_to_change` of the view, a member if it says nothing."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if not isinstance(request.auth, Access):
            return False  # nobody has asked: becomes a 401
        needed = Role.VIEWER if request.method in SAFE_METHODS else getattr(view, "role_to_change", Role.MEMBER)
        if not request.auth.may(needed):
            raise Forbidden(
                f"This takes the role {needed}; the {request.auth.who} has the role {request.auth.role}.",
                code="role_too_low",
            )
        return True


class OperatorOnly(BasePermission):
    """For routes that show the machines behind the resources. Listed after `ByRole`."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if not isinstance(request.auth, Access):
            return False
        if not request.auth.is_operator:
            raise Forbidden("This is for operators; it takes an operator token.", code="operator_only")
        return True
