"""Everything that can be done to an image, as one table."""

from __future__ import annotations

from typing import Any

from operations.plan import Plan, step
from operations.register import Verb
from volumes import tasks
from volumes.models import Image
from volumes.states import ImageState

S = ImageState


def _import(image: Image, params: dict[str, Any]) -> Plan:
    stored = image.backup_object
    node = stored.storage.node.uid
    return Plan(
        (
            step(
                tasks.store_object,
                node=node,
                lane="bulk",
                params={"backup_object": stored.uid, **params},
                moves={image: S.CREATING, stored: S.CREATING},
                idle_timeout_s=90,
            ),
            step(
                tasks.publish_image,
                node="",
                lane="control",
                params={"image": image.uid},
                settles={stored: S.AVAILABLE},
            ),
        ),
        also=(stored,),
    )


#             noun     name      from                     to            plan
IMPORT = Verb("image", "import", frozenset({S.PENDING}), S.AVAILABLE, _import, offered=False)

IMAGE = [IMPORT]
