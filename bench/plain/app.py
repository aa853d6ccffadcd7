"""The Celery app, as its tutorial has it, and `python -m bench.plain.app COUNT`, which sends so many chains."""

import os
import sys
import time

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench.plain.settings")

from celery import Celery, chain

from core.stack import read_stack

REDIS = f"{read_stack()['redis_url']}?virtual_host=1"
STEPS = 4  # as many as a launch has
WORK_S = 0.001

app = Celery("plain", broker=REDIS, backend=REDIS)


@app.task(name="plain.step")
def step(number: int, position: int) -> int:
    from bench.plain.models import Done  # the apps are loaded by then

    time.sleep(WORK_S)
    Done.objects.create(chain=number, position=position)
    return position


def send(count: int) -> None:
    for number in range(count):
        chain(*(step.si(number, position) for position in range(STEPS)))()


if __name__ == "__main__":
    import django

    django.setup()
    send(int(sys.argv[1]))
