"""How accounts, tokens and keys are read and printed."""

from __future__ import annotations

from rest_framework import serializers

from accounts.authentication import operates
from accounts.models import Account, ApiToken, Role, SshKeyPair
from core.api.serializers import InputSerializer, NameField, RowSerializer

LONGEST_TOKEN_LIFE_S = 10 * 365 * 24 * 3600


class AccountSerializer(RowSerializer):
    class Meta:
        model = Account
        fields = [*RowSerializer.BASE_FIELDS, "name", "enabled"]


class TokenSerializer(RowSerializer):
    operator = serializers.SerializerMethodField()
    issued_by = serializers.SlugRelatedField(slug_field="username", read_only=True)

    class Meta:
        model = ApiToken
        fields = [
            *RowSerializer.BASE_FIELDS,
            "name",
            "role",
            "operator",
            "issued_by",
            "expires_at",
            "revoked_at",
            "last_used_at",
        ]

    def get_operator(self, token: ApiToken) -> bool:
        return operates(token)

    def get_allowed_verbs(self, token: ApiToken) -> list[str]:
        return ["delete"] if token.revoked_at is None else []


class TokenInput(InputSerializer):
    name = NameField()
    role = serializers.ChoiceField(choices=Role.choices)
    expires_in_s = serializers.IntegerField(
        min_value=1, max_value=LONGEST_TOKEN_LIFE_S, required=False, allow_null=True, default=None
    )
    operator = serializers.BooleanField(default=False)


class SshKeyPairSerializer(RowSerializer):
    class Meta:
        model = SshKeyPair
        fields = [*RowSerializer.BASE_FIELDS, "name", "public_key", "fingerprint"]

    def get_allowed_verbs(self, pair: SshKeyPair) -> list[str]:
        return ["delete"]


class SshKeyPairInput(InputSerializer):
    name = NameField()
    public_key = serializers.CharField(required=False, max_length=16384)
