"""The answer to a verb: 202, the subject with its operation, and where to watch it."""

from __future__ import annotations

from typing import Any

from rest_framework.response import Response

from operations.api.serializers import OperationSerializer
from operations.models import Operation


def accepted(document: dict[str, Any], operation: Operation, *, just_placed: bool = False) -> Response:
    """`document` is the subject as it is printed; its `operation` becomes the whole operation.

    `just_placed`: on a node that this very request found to be in order, so nobody asks for its troubles again.
    """
    context = {"troubles": {}, "lane_troubles": {}} if just_placed else {}
    body = {**document, "operation": OperationSerializer(operation, context=context).data}
    return Response(body, status=202, headers=location_of(operation))


def location_of(operation: Operation) -> dict[str, str]:
    """The header that says where to watch it."""
    return {"Location": f"/api/v1/operations/{operation.uid}"}
