"""Django's settings of one stack; everything that differs between stacks comes from the stack file."""

from __future__ import annotations

import os
from pathlib import Path

from core.logs import logging_config
from core.stack import read_stack

BASE_DIR = Path(__file__).resolve().parent.parent
STACK = read_stack()  # the stack file as a dictionary
PROCESS = os.environ.get("VDC_PROCESS", "tool")  # web, worker or tool: decides how long the database may take

SECRET_KEY = STACK["secret_key"]
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]", *STACK.get("allowed_hosts", [])]
INTERNAL_IPS: list[str] = []

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_filters",
    "core",
    "accounts",
    "operations",
    "hypervisor",
    "networks",
    "volumes",
    "instances",
]

MIDDLEWARE = [
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
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            "connect_timeout": 3,
            "application_name": f"vdc-{PROCESS}",
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

STATIC_URL = "/static/"
STATIC_ROOT = Path(STACK["state_dir"]) / "static"

LOGGING_CONFIG = "logging.config.dictConfig"
LOGGING = logging_config()

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
