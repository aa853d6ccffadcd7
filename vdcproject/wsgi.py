"""The web door: what gunicorn serves."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vdcproject.settings")
os.environ.setdefault("VDC_PROCESS", "web")
django.setup(set_prefix=False)

from core.wsgi import BudgetedHandler  # noqa: E402  (needs the settings)

application = BudgetedHandler()
