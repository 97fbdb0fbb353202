"""Errors of the harness; each message is one line that names the fix."""

from __future__ import annotations


class SparsebenchError(Exception):
    """Base of the harness's errors; `exit_code` is what the command line returns."""

    exit_code = 2


class ConfigError(SparsebenchError):
    """A study, option or path given by the user is wrong."""


class InfrastructureError(SparsebenchError):
    """The machine, not the user's input, stopped the run: disk, sandbox, engine, our own records."""

    exit_code = 3


class SandboxError(InfrastructureError):
    """The sandbox failed while programs were judged (status `sandbox_error`): the suite stops, nothing is scored 0."""


class SandboxUnavailable(InfrastructureError):
    """No sandbox can run generated code here."""


class EngineError(InfrastructureError):
    """An engine failed to load or run a variant."""


class CorruptRecordError(InfrastructureError):
    """A journal, record or summary of ours cannot be read back."""
