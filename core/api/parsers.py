"""Reads JSON bodies, of a size that fits in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from core.errors import TooLarge

MOST_BYTES = 1 << 20


class JsonParser(BaseParser):
    """Strict JSON of at most 1 MiB; what is broken is said with line and column."""

    media_type = "application/json"

    def parse(self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping | None = None) -> Any:
        body = stream.read(MOST_BYTES + 1)
        if len(body) > MOST_BYTES:
            raise TooLarge(f"The body is larger than {MOST_BYTES} bytes.", code="body_too_large")
        try:
            return json.loads(body.decode(), parse_constant=_refuse_constant)
        except json.JSONDecodeError as exc:
            raise ParseError(f"The body is no JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}.") from exc
        except UnicodeDecodeError as exc:
            raise ParseError(f"The body is no JSON: byte {exc.start} is not UTF-8.") from exc
        except RecursionError as exc:
            raise ParseError("The body is nested too deeply.") from exc
        except ValueError as exc:
            raise ParseError(f"The body is no JSON: {exc}.") from exc


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
