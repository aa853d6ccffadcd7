"""The answer to a verb: 202, the subject with its operation, and where to watch it."""

from __future__ import annotations

from typing import Any

from rest_framework.response import Response

from operations.api.serializers import OperationSerializer
from operations.models import Operation


def accepted(document: dict[str, Any], operation: Operation) -> Response:
    """`document` is the subject as it is printed; its `operation` becomes the whole operation."""
    body = {**document, "operation": OperationSerializer(operation).data}
    return Response(body, status=202, headers=location_of(operation))


def location_of(operation: Operation) -> dict[str, str]:
    """The header that says where to watch it."""
    return {"Location": f"/api/v1/operations/{operation.uid}"}
