"""Logs as fields: one line per event on stderr, JSON where it goes into a file, plain words on a terminal.

Lines of `logging` and of `structlog`, ours and those of libraries, end alike: who says it (process, node, lane), what
for (request, operation, step, subject: bound as context variables where the work begins), and no secrets.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import structlog

Fields = dict[str, Any]  # one line: timestamp, level, event and whatever else was said

# Who this process is. Supervisor tells its name to each child.
_process: Fields = {"process": os.environ.get("SUPERVISOR_PROCESS_NAME") or os.environ.get("VDC_PROCESS") or "tool"}

_overhearing: ContextVar[Callable[[Fields], None] | None] = ContextVar("overhearing", default=None)

_SECRETS = (
    (re.compile(r"(://[^/\s:@]*):[^/\s@]+@"), r"\1:…@"),  # the password in an address
    (re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+"), r"\1?…"),  # signed addresses carry their key in the query
    (re.compile(r"\bvdc_[\w-]{32,}"), "vdc_…"),  # an API token
    (re.compile(r"(?i)\b(bearer) [\w.~+/=-]{8,}"), r"\1 …"),
)


def identify(**facts: str) -> None:
    """Say once who this process is: `process`, and where it serves one, `node` and `lane`; every line carries it."""
    _process.update({name: fact for name, fact in facts.items() if fact})


def take_in_what_python_prints() -> None:
    """Have warnings, and errors that nobody could catch, end as lines too instead of as loose text on stderr."""
    log = structlog.get_logger("python")

    def unraisable(said: sys.UnraisableHookArgs) -> None:
        if sys.is_finalizing():  # libvirt's objects, for one, outlive the modules that their destructors need
            return
        log.warning(
            said.err_msg or "an error while an object was taken down", where=repr(said.object), exc_info=said.exc_value
        )

    def of_thread(said: threading.ExceptHookArgs) -> None:
        log.error("a thread ended by an error", thread=said.thread and said.thread.name, exc_info=said.exc_value)

    logging.captureWarnings(True)
    sys.unraisablehook = unraisable
    threading.excepthook = of_thread


def request_id() -> str:
    """The id of the request that this thread answers, or that asked for the work which it does; "" for none."""
    return structlog.contextvars.get_contextvars().get("request_id", "")


@contextmanager
def overheard(by: Callable[[Fields], None]) -> Iterator[None]:
    """Tell `by` every line from INFO on that is logged in this block, also by threads that copy its context."""
    token = _overhearing.set(by)
    try:
        yield
    finally:
        _overhearing.reset(token)


def hide_secrets(text: str) -> str:
    """`text` without tokens, and without passwords and queries of addresses."""
    for secret, instead in _SECRETS:
        text = secret.sub(instead, text)
    return text


def _add_process(logger: Any, method: str, fields: Fields) -> Fields:
    first = {name: fields[name] for name in ("timestamp", "level", "event")}
    return first | _process | fields


def _hide_secrets(logger: Any, method: str, fields: Fields) -> Fields:
    return {name: hide_secrets(said) if isinstance(said, str) else said for name, said in fields.items()}


def _tell_who_overhears(logger: Any, method: str, fields: Fields) -> Fields:
    by = _overhearing.get()
    if by is not None and fields["level"] != "debug":
        by(fields)
    return fields


_SHARED = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
    _add_process,
    _hide_secrets,
    _tell_who_overhears,
]

_AS_JSON = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
# Plain words for people; a traceback follows its line as Python prints it.
_AS_WORDS = structlog.dev.ConsoleRenderer(
    colors=False, pad_event_to=0, pad_level=False, exception_formatter=structlog.dev.plain_traceback
)


def logging_config() -> dict[str, Any]:
    """For `logging.config.dictConfig`; both `logging` and `structlog` end in the same lines."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "lines": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _SHARED,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    _AS_WORDS if sys.stderr.isatty() else _AS_JSON,
                ],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
        "root": {"handlers": ["stderr"], "level": "INFO"},
        "loggers": {
            "django": {"level": "INFO", "propagate": True, "handlers": []},
            "celery": {"level": "WARNING"},  # at INFO it tells every bell
            # Says a second time, without request and error id, what core.middleware and core.problem log.
            "django.request": {"level": "CRITICAL"},
            "django.security.DisallowedHost": {"level": "CRITICAL"},
        },
    }
