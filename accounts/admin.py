"""Accounts, people, tokens and keys in the admin. A token's hash is shown nowhere."""

from __future__ import annotations

from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from accounts import services
from accounts.models import AccessRecord, Account, ApiToken, Member, SshKeyPair
from core.admin import LookingOnly, RowAdmin

admin.site.unregister(User)
admin.site.unregister(Group)


class MembershipInline(TabularInline):
    model = Member
    extra = 0
    autocomplete_fields = ["account"]


class MemberInline(TabularInline):
    model = Member
    extra = 0
    autocomplete_fields = ["user"]


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    inlines = [MembershipInline]


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):
    pass


@admin.register(Account)
class AccountAdmin(RowAdmin):
    list_display = ["uid", "name", "enabled", "created_at"]
    list_filter = ["enabled"]
    search_fields = ["uid", "name"]
    inlines = [MemberInline]


@admin.register(Member)
class MemberAdmin(ModelAdmin):
    list_display = ["user", "account", "role"]
    list_filter = ["role"]
    list_select_related = ["user", "account"]
    search_fields = ["user__username", "account__uid", "account__name"]
    autocomplete_fields = ["user", "account"]


@admin.register(ApiToken)
class ApiTokenAdmin(LookingOnly):
    list_display = ["uid", "name", "account", "role", "is_operator", "expires_at", "revoked_at", "last_used_at"]
    list_filter = ["role", "is_operator"]
    list_select_related = ["account"]
    search_fields = ["uid", "name", "account__uid"]
    exclude = ["secret_sha256"]
    actions = ["revoke"]

    @admin.action(description="Revoke for ever", permissions=["view"])
    def revoke(self, request: HttpRequest, chosen: QuerySet[ApiToken]) -> None:
        if not request.user.has_perm("accounts.change_apitoken"):
            self.message_user(request, "You may not revoke tokens.", messages.ERROR)
            return
        for token in chosen:
            services.revoke_token(token)
        self.message_user(request, f"Revoked: {', '.join(token.uid for token in chosen)}.")


@admin.register(SshKeyPair)
class SshKeyPairAdmin(LookingOnly):
    list_display = ["uid", "name", "account", "fingerprint", "created_at"]
    list_select_related = ["account"]
    search_fields = ["uid", "name", "fingerprint", "account__uid"]


@admin.register(AccessRecord)
class AccessRecordAdmin(LookingOnly):
    list_display = ["created_at", "who", "method", "path", "account"]
    list_select_related = ["account"]
    search_fields = ["who", "path", "account__uid"]

    def get_readonly_fields(self, request: HttpRequest, obj: AccessRecord | None = None) -> list[str]:
        return ["created_at"]  # a record has no public id
