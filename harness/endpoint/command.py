"""What `sparsebench eval` is asked to score: files run by an engine of this machine, or a model behind an endpoint."""

from __future__ import annotations

from typing import Any

from harness.errors import ConfigError

PREFIX = "openai:"


def eval_subject(model: str, engine: str, *, base_url: str | None, asked: dict[str, Any]) -> dict[str, Any]:
    """The `variants` and `engine` of a study of one model.

    Args:
        model: A model as `harness.models.model_directory` takes it, or `openai:NAME`.
        engine: The engine of the former.
        base_url: Where the latter is served.
        asked: How it is asked, as `harness.engine_specs.OpenAISpec` takes it: api, concurrency, requests_per_minute.

    Raises:
        ConfigError: An endpoint without an address, or an address without an endpoint.
    """
    if not model.startswith(PREFIX):
        if base_url is not None or engine == "openai":
            raise ConfigError(
                f"an endpoint's model is named {PREFIX}NAME, such as {PREFIX}{model}; give --base-url too"
            )
        return {"variants": {"model": {"path": model}}, "engine": {"name": engine}}
    if base_url is None:
        raise ConfigError(f"{model} needs --base-url, such as http://127.0.0.1:8000/v1")
    served = {"endpoint": {"model": model.removeprefix(PREFIX), "base_url": base_url}}
    return {"variants": {"model": served}, "engine": {"name": "openai", **asked}}
