from __future__ import annotations

import inspect

import pytest

from tasks.core import errors


def test_the_tree_of_errors_is_the_one_drawn() -> None:
    """The module's drawing shows every error class, and each below its parent."""
    drawing = inspect.getdoc(errors) or ""
    classes = [
        each
        for _, each in inspect.getmembers(errors, inspect.isclass)
        if issubclass(each, Exception)
    ]
    assert len(classes) == 8
    assert all(each.__name__ in drawing for each in classes)


@pytest.mark.parametrize(
    ("error", "parent"),
    [
        (errors.SourceError, errors.ConfigurationError),
        (errors.HostsUnreachable, errors.RunError),
        (errors.FleetLost, errors.RunError),
        (errors.StorageError, errors.RunError),
        (errors.RunError, errors.ReportTranslationError),
        (errors.ConfigurationError, errors.ReportTranslationError),
    ],
)
def test_parents(error: type[Exception], parent: type[Exception]) -> None:
    """Whoever catches a parent catches its children; a run's errors are not the user's."""
    assert issubclass(error, parent)
    assert not issubclass(errors.RunError, errors.ConfigurationError)


def test_a_failed_request_is_not_for_users() -> None:
    """A failed request is no error of a run: it becomes a retry or a failed report."""
    failed = errors.RequestFailed(errors.ErrorKind.BUSY, "http://a:1 answered 503: busy")
    assert not isinstance(failed, errors.ReportTranslationError)
    assert (failed.kind, failed.message) == (errors.ErrorKind.BUSY, str(failed))


def test_kinds_are_words_of_the_tables() -> None:
    """Kinds are stored as lower-case words, and no two are the same."""
    words = [str(kind) for kind in errors.ErrorKind]
    assert len(set(words)) == len(words)
    assert all(word.replace("_", "").isalpha() and word.islower() for word in words)
