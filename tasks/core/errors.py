"""Every error this project raises on purpose.

    ReportTranslationError
    ├── ConfigurationError      what was asked for cannot be done as written     exit 2
    │   └── SourceError         a source file cannot be read as reports          exit 2
    └── RunError                the run could not finish                         exit 1
        ├── HostsUnreachable    no host answered when the run started
        ├── FleetLost           every host went away and none came back in time
        └── StorageError        the root could not be read or written

    RequestFailed               one request to one host went wrong; it never leaves the
                                dispatch of a run: it becomes a retry or a failed report

Messages name the thing, the reason and the next step.
"""

from __future__ import annotations

from enum import StrEnum


class ReportTranslationError(Exception):
    """The base of every error that a user is meant to read."""


class ConfigurationError(ReportTranslationError):
    """What was asked for cannot be done as written; the user has to change it."""


class SourceError(ConfigurationError):
    """A source file cannot be read as reports."""


class RunError(ReportTranslationError):
    """The run could not finish; what it finished is kept."""


class HostsUnreachable(RunError):
    """No host answered when the run started."""


class FleetLost(RunError):
    """Every host went away during the run and none came back in time."""


class StorageError(RunError):
    """The root could not be read or written."""


class ErrorKind(StrEnum):
    """Why a request, or a whole report, has no translation."""

    UNREACHABLE = "unreachable"  # no connection could be made
    RESET = "reset"  # the connection broke before the answer was whole
    TIMEOUT = "timeout"  # no answer before the deadline
    BUSY = "busy"  # 503: the server's queue is full, usually while it loads
    SERVER_ERROR = "server_error"  # any other 5xx
    NOT_FOUND = "not_found"  # 404: the host has no such model
    BAD_REQUEST = "bad_request"  # any other 4xx: the request itself is refused
    CONTEXT_OVERFLOW = "context_overflow"  # 400: the prompt does not fit the context
    INVALID_ANSWER = "invalid_answer"  # 200, but not the JSON that was asked for
    NOT_DONE = "not_done"  # 200 with done=false: the server gave up in the middle
    CUT = "cut"  # done, but not because the text was complete
    EMPTY = "empty"  # a complete answer without a translation in it


class RequestFailed(Exception):
    """One request to one host went wrong.

    `kind` decides what happens next; the message is for people.
    """

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
