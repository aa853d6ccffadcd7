"""The web door: what gunicorn serves."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vdcproject.settings")
os.environ.setdefault("VDC_PROCESS", "web")

application = get_wsgi_application()
