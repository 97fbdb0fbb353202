"""Errors of the sparsification stage; each message is one line that names the fix."""

from __future__ import annotations


class SparsifyError(Exception):
    """A recipe, model or checkpoint cannot be used as asked."""

    exit_code = 2


class RecipeError(SparsifyError):
    """A recipe file is wrong: unknown key, unknown method, impossible value."""


class CheckpointError(SparsifyError):
    """A model directory is missing, incomplete or corrupt."""


class NumericsError(SparsifyError):
    """A solver met values it cannot continue from (non-finite, not positive definite)."""

    exit_code = 3
