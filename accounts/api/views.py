"""GET account; tokens; ssh-key-pairs."""

from __future__ import annotations

from typing import Any

from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import services
from accounts.api.scoped import AccountScopedViewSet
from accounts.api.serializers import (
    AccountSerializer,
    SshKeyPairInput,
    SshKeyPairSerializer,
    TokenInput,
    TokenSerializer,
)
from accounts.models import ApiToken, Role, SshKeyPair
from core.api.views import ApiViewSet
from core.errors import Forbidden


class AccountView(ApiViewSet):
    """The account that the token acts for."""

    serializer_class = AccountSerializer

    def retrieve(self, request: Request) -> Response:
        access = request.auth
        caller = {"role": access.role, "operator": access.is_operator, "who": access.who}
        return Response(AccountSerializer(access.account).data | {"access": caller})


class TokenViewSet(ListModelMixin, AccountScopedViewSet):
    """Tokens of the account: the secret is answered once, when it is made."""

    rows = ApiToken.objects.select_related("issued_by")
    noun = "token"
    serializer_class = TokenSerializer
    role_to_change = Role.OWNER

    def create(self, request: Request) -> Response:
        asked = TokenInput(data=request.data)
        asked.is_valid(raise_exception=True)
        if asked.validated_data["operator"] and not self.access.is_operator:
            raise Forbidden("Only an operator may issue operator tokens.", code="operator_only", field="operator")
        token, secret = services.issue_token(
            self.access.account, issued_by=self.access.token.issued_by, **asked.validated_data
        )
        return Response(TokenSerializer(token).data | {"secret": secret}, status=201)

    def destroy(self, request: Request, uid: str) -> Response:
        services.revoke_token(self.get_object())
        return Response(status=204)


class SshKeyPairViewSet(ListModelMixin, RetrieveModelMixin, AccountScopedViewSet):
    """Public keys for instances; a generated private key is answered once."""

    rows = SshKeyPair.objects.all()
    noun = "ssh key pair"
    serializer_class = SshKeyPairSerializer

    def create(self, request: Request) -> Response:
        asked = SshKeyPairInput(data=request.data)
        asked.is_valid(raise_exception=True)
        if "public_key" in asked.validated_data:
            return self._created(services.import_ssh_key_pair(self.access.account, **asked.validated_data))
        pair, private_key = services.create_ssh_key_pair(self.access.account, **asked.validated_data)
        return self._created(pair, private_key=private_key)

    def destroy(self, request: Request, uid: str) -> Response:
        services.delete_ssh_key_pair(self.get_object())
        return Response(status=204)

    def _created(self, pair: SshKeyPair, **once: Any) -> Response:
        return Response(SshKeyPairSerializer(pair).data | once, status=201)
