"""Accounts, people, tokens and keys in the admin. A token's hash is shown nowhere."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from unfold.admin import ModelAdmin, TabularInline
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldBooleanSwitchWidget

from accounts import services
from accounts.models import AccessRecord, Account, ApiToken, Member, Role, SshKeyPair
from core.admin import RowAdmin, uid_link
from core.admin_words import linked

admin.site.unregister(User)
admin.site.unregister(Group)


class MembershipInline(TabularInline):
    model = Member
    extra = 0
    hide_title = True
    autocomplete_fields = ["account"]


class MemberInline(TabularInline):
    model = Member
    extra = 0
    hide_title = True
    autocomplete_fields = ["user"]


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):
    """Not even the algorithm and the salt of a password are shown; a new one is set on a page of its own."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    inlines = [MembershipInline]
    filter_horizontal = ()
    readonly_fields = ["new_password", "last_login", "date_joined"]
    fieldsets = [
        (None, {"fields": ["username", "new_password", "first_name", "last_name", "email"]}),
        ("What they may do", {"fields": ["is_active", "is_staff", "is_superuser", "groups", "user_permissions"]}),
        ("When", {"fields": ["last_login", "date_joined"]}),
    ]

    @display(description="password")
    def new_password(self, user: User) -> str:
        url = reverse("admin:auth_user_password_change", args=[user.pk])
        return format_html('<a class="text-link" href="{}">Set another one</a>', url)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):
    filter_horizontal = ()


@admin.register(Account)
class AccountAdmin(RowAdmin):
    list_display = ["uid", "name", "enabled", "created_at"]
    list_filter = ["enabled"]
    search_fields = ["uid", "name"]
    may_add = ("name",)
    may_edit = ("name", "enabled")
    fields = ["uid", "name", "enabled", "created_at", "see_also"]
    inlines = [MemberInline]


@admin.register(Member)
class MemberAdmin(ModelAdmin):
    list_display = ["user", "account", "role"]
    list_filter = ["role"]
    list_select_related = ["user", "account"]
    search_fields = ["user__username", "account__uid", "account__name"]
    autocomplete_fields = ["user", "account"]


class TokenForm(forms.ModelForm):
    """What a new token is asked with; `issue_token` makes it."""

    operator = forms.BooleanField(
        label="Operator",
        required=False,
        help_text="Reaches every account and the nodes; ends when you are staff no more.",
        widget=UnfoldBooleanSwitchWidget,
    )
    days = forms.IntegerField(
        label="Expires after days",
        required=False,
        min_value=1,
        max_value=3650,
        help_text="Empty: never.",
        widget=UnfoldAdminIntegerFieldWidget,
    )


@admin.register(ApiToken)
class ApiTokenAdmin(RowAdmin):
    """A token is issued here, revoked here, and changed by nothing. Its secret is shown once, its hash never."""

    list_display = ["uid", "name", "account_link", "role", "is_operator", "expires_at", "revoked_at", "last_used_at"]
    list_filter = ["role", "is_operator", ("account", AutocompleteSelectFilter)]
    list_select_related = ["account"]
    search_fields = ["uid", "name", "account__uid"]
    may_add = ("account", "name", "role", "operator", "days")
    autocomplete_fields = ["account"]
    form = TokenForm
    fields = [
        "uid",
        "name",
        "account_link",
        "role",
        "is_operator",
        "issued_by",
        "created_at",
        "expires_at",
        "revoked_at",
        "last_used_at",
    ]
    actions = ["revoke"]

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """One button: the next page shows the secret, and nobody should be led past it."""
        one_button = {"show_save_and_continue": False, "show_save_and_add_another": False}
        return super().add_view(request, form_url, {**(extra_context or {}), **one_button})

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("accounts.change_apitoken")

    @admin.action(description="Revoke for ever", permissions=["revoke"])
    def revoke(self, request: HttpRequest, chosen: QuerySet[ApiToken]) -> None:
        for token in chosen:
            services.revoke_token(token)
        self.message_user(request, f"Revoked: {', '.join(token.uid for token in chosen)}.")

    def save_model(self, request: HttpRequest, obj: ApiToken, form: TokenForm, change: bool) -> None:
        asked = form.cleaned_data
        token, request.token_secret = services.issue_token(
            obj.account,
            name=obj.name,
            role=Role(obj.role),
            issued_by=request.user,
            operator=asked["operator"],
            expires_in_s=asked["days"] and asked["days"] * 86_400,
        )
        obj.__dict__.update(token.__dict__)

    def response_add(self, request: HttpRequest, obj: ApiToken, post_url_continue: str | None = None) -> HttpResponse:
        """The only page that ever has the secret; it is rendered at once, so that nothing has to keep it."""
        context = {
            **self.admin_site.each_context(request),
            "title": f"Token {obj.uid}",
            "opts": self.opts,
            "token": obj,
            "secret": request.token_secret,
        }
        return TemplateResponse(request, "accounts/token_issued.html", context)


@admin.register(SshKeyPair)
class SshKeyPairAdmin(RowAdmin):
    list_display = ["uid", "name", "account_link", "fingerprint", "created_at"]
    list_filter = [("account", AutocompleteSelectFilter)]
    list_select_related = ["account"]
    search_fields = ["uid", "name", "fingerprint", "account__uid"]
    fields = ["uid", "name", "account_link", "fingerprint", "public_key", "created_at"]


@admin.register(AccessRecord)
class AccessRecordAdmin(RowAdmin):
    list_display = ["created_at", "who", "method", "path_shown", "account_link"]
    list_filter = [("account", AutocompleteSelectFilter)]
    list_select_related = ["account"]
    search_fields = ["who", "path", "account__uid"]
    fields = ["created_at", "who", "token_link", "method", "path_shown", "account_link"]

    token_link = uid_link("token")

    @display(description="path", ordering="path")
    def path_shown(self, record: AccessRecord) -> str:
        return linked(record.path)
