"""Django's settings of one stack; everything that differs between stacks comes from the stack file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from core.logs import logging_config
from core.stack import read_stack
from vdcproject.sidebar import SIDEBAR

BASE_DIR = Path(__file__).resolve().parent.parent
STACK = read_stack()  # the stack file as a dictionary
PROCESS = os.environ.get("VDC_PROCESS", "tool")  # web, worker or tool: decides how long the database may take
if PROCESS not in ("web", "worker", "tool"):
    raise SystemExit(f"VDC_PROCESS is {PROCESS!r}; it takes web, worker or tool.")

SECRET_KEY = STACK["secret_key"]
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]", *STACK.get("allowed_hosts", [])]

# What the doors are made of: a worker has none, and is smaller by what it does not load.
_DOORS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_filters",
]
INSTALLED_APPS = [
    *(_DOORS if PROCESS != "worker" else []),
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "core",
    "accounts",
    "operations",
    "hypervisor",
    "networks",
    "volumes",
    "instances",
    "vdcproject",
]

MIDDLEWARE = [
    "core.middleware.log_requests",
    "core.middleware.refuse_while_database_is_mute",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "vdcproject.urls"
WSGI_APPLICATION = "vdcproject.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "vdcproject" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# The server's own limits stay below the client's deadlines (core.database), so that a slow query is told apart
# from a mute server. Migrations and other tools may take their time.
_LIMITS = {
    "web": "-c statement_timeout=4s -c lock_timeout=3s",
    "worker": "-c statement_timeout=8s -c lock_timeout=5s",
    "tool": "-c statement_timeout=10min -c lock_timeout=1min",
}[PROCESS]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        **STACK["database"],
        "CONN_MAX_AGE": None,
        # One more statement per request. Workers ask again by themselves when a connection turns out to be dead.
        "CONN_HEALTH_CHECKS": PROCESS != "worker",
        "OPTIONS": {
            "connect_timeout": 3,
            # As it stands in pg_stat_activity and in the server's log: "vdc web", "vdc node lane ops".
            "application_name": " ".join(["vdc", *(sys.argv[1:4] if PROCESS == "worker" else [PROCESS])]),
            # A client that gave up leaves its backend behind with row locks: the last two end it.
            "options": f"{_LIMITS} -c idle_in_transaction_session_timeout=15s -c client_connection_check_interval=2s",
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "en-us"
USE_I18N = False
TIME_ZONE = "UTC"
USE_TZ = True
FORMAT_MODULE_PATH = "vdcproject.formats"

STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True  # served from the packages themselves: nothing to collect, nothing to go stale

# One browser keeps one set of cookies for all ports of 127.0.0.1, so each stack names its own.
SESSION_COOKIE_NAME = f"vdc_{STACK['name']}_session"
CSRF_COOKIE_NAME = f"vdc_{STACK['name']}_csrf"
LOGIN_URL = "/admin/login/"
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"  # no third cookie

# `check --deploy` is clean but for these. They all ask for https. The web door listens on 127.0.0.1 only and speaks
# plain http there: secure cookies would lock everyone out of the admin, and redirecting or HSTS would lead to a port
# where nobody speaks TLS. Behind a proxy with TLS, set them in the proxy's own host.
SILENCED_SYSTEM_CHECKS = [
    "security.W004",  # HSTS is not set
    "security.W008",  # no redirect to https
    "security.W012",  # session cookie also over http
    "security.W016",  # CSRF cookie also over http
]

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.authentication.BearerToken"],
    "DEFAULT_PERMISSION_CLASSES": ["accounts.permissions.ByRole"],
    "DEFAULT_PARSER_CLASSES": ["core.api.parsers.JsonParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "core.api.negotiation.JsonAlways",
    "DEFAULT_PAGINATION_CLASS": "core.pagination.KeysetPagination",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_METADATA_CLASS": None,  # OPTIONS describes nothing that the documentation does not
    "EXCEPTION_HANDLER": "core.problem.answer",
    "URL_FORMAT_OVERRIDE": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}

UNFOLD = {
    "SITE_TITLE": f"vdc {STACK['name']}",
    "SITE_HEADER": f"vdc {STACK['name']}",
    "SITE_SUBHEADER": "virtual data center",
    "SITE_SYMBOL": "dns",
    "SITE_URL": None,
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "/static/core/icon.svg"}],
    "STYLES": ["/static/core/admin.css"],
    "DASHBOARD_CALLBACK": "vdcproject.front_page.front_page",
    "SHOW_VIEW_ON_SITE": False,
    "BORDER_RADIUS": "6px",
    "SIDEBAR": {"navigation": SIDEBAR},
}

LOGGING_CONFIG = "logging.config.dictConfig"
LOGGING = logging_config()

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
