"""The Celery app: a doorbell without acknowledgements, results or memory; what is true is in PostgreSQL."""

from celery import Celery

# No Django fixup: it would close the database connection around every task.
app = Celery("vdc", fixups=[])
app.config_from_object("vdcproject.celery_settings")
app.set_default()
