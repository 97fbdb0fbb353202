"""What an error of the hub means, in one line that names the fix."""

from __future__ import annotations

from harness.errors import ConfigError, InfrastructureError, SparsebenchError


class NotFetched(ConfigError):
    """A model of the hub is not, or not wholly, in the local cache, and the network was not to be used."""


def hub_error(what: str, repository: str, error: Exception, *, offline: bool) -> SparsebenchError:
    """The error to raise in place of one of huggingface_hub.

    Args:
        what: How the message calls what was asked for.
        repository: Its hub id.
        error: What huggingface_hub, or the HTTP library below it, raised.
        offline: Whether only the local cache was asked.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        IncompleteSnapshotError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    reason = (str(error).splitlines() or [""])[0].strip()[:200] or type(error).__name__
    if isinstance(error, GatedRepoError):
        page = f"{constants.ENDPOINT}/{repository}"
        return ConfigError(
            f"{what} is gated: accept its licence at {page} while signed in, and export HF_TOKEN with a token of that "
            "account"
        )
    if isinstance(error, RepositoryNotFoundError):
        return ConfigError(
            f"{what} is no directory here and not on the hub, or private; check the name, or export HF_TOKEN"
        )
    if isinstance(error, RevisionNotFoundError):
        return ConfigError(f"{what} has no such revision on the hub; name one of its commits, branches or tags")
    if isinstance(error, HFValidationError):
        return ConfigError(f"{what} is no directory here and no hub id ({reason}); name a directory or org/name")
    if offline and isinstance(error, LocalEntryNotFoundError):
        there = "only in part in" if isinstance(error, IncompleteSnapshotError) else "not in"
        return NotFetched(f"{what} is {there} the local cache; run once without --offline to fetch it")
    if _status(error) in (401, 403):
        return ConfigError(f"the hub refuses {what} ({reason}); export HF_TOKEN with a token that may read it")
    return InfrastructureError(
        f"{what} did not come from the hub ({reason}); check the network and run the same command again: files that "
        "are complete are kept, nothing is made from the others"
    )


def _status(error: Exception) -> int | None:
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None)
