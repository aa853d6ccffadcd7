"""Django's settings of the plain chain: defaults, and where PostgreSQL is."""

from core.stack import read_stack

SECRET_KEY = "bench"  # noqa: S105 - signs nothing
INSTALLED_APPS = ["bench.plain"]
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", **read_stack()["database"]}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
