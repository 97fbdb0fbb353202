"""Errors of the suites; each message is one line that names the fix."""

from __future__ import annotations


class SuiteError(Exception):
    """A suite, its data or its settings cannot be used as asked."""

    exit_code = 2


class DataMissingError(SuiteError):
    """A data file or dataset is absent; the message says where to get it."""
