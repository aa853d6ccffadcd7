"""What people would write instead of an engine: a Celery chain with a Redis result backend, saving a row per task."""
