"""What the settings of all stages share: unknown keys are errors, and what came later is written where it is used."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Takes no key that it does not know, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def only_used(spec: BaseModel, dumped: dict[str, Any], *, since: set[str]) -> dict[str, Any]:
    """Leave out the settings `since` that are at their defaults.

    They came later, and are written out where they are used only: the hashes of older recipes stay true.
    """
    fields = type(spec).model_fields
    return {name: dumped[name] for name in fields if name not in since or getattr(spec, name) != fields[name].default}
