"""Variants that are models behind endpoints: how they are opened, and what stands for their fingerprint."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from harness.engine_specs import OpenAISpec
from harness.errors import ConfigError
from harness.study import Study

if TYPE_CHECKING:
    from harness.engines.openai import EndpointOptions, OpenAIEngine


def endpoint_of(study: Study, variant: str, *, offline: bool = False) -> EndpointOptions | None:
    """The endpoint that a variant is, with the key that the user bound to it; None where the variant is files.

    Raises:
        ConfigError: As `endpoint_options`.
    """
    spec, engine = study.variants[variant].endpoint, study.engine
    if spec is None or not isinstance(engine, OpenAISpec):
        return None
    base_url = spec.base_url or str(engine.base_url)
    options = {"api": engine.api, **engine.transport()}
    return endpoint_options(spec.model, base_url, offline=offline, who=f"variant {variant}", **options)


def endpoint_options(model: str, base_url: str, *, offline: bool, who: str, **options: Any) -> EndpointOptions:
    """A model behind an endpoint, with the key that the user bound to its origin.

    Args:
        model: Its name on the server.
        base_url: Where it is served.
        offline: Only this machine may be asked.
        who: What messages call it.
        options: Of `EndpointOptions`.

    Raises:
        ConfigError: The configuration of keys is wrong, the key's variable is not set, or `offline` is asked and the
            endpoint is on another machine.
    """
    from harness.endpoint.keys import key_for
    from harness.endpoint.transport import is_local
    from harness.engines.openai.options import EndpointOptions

    if offline and not is_local(base_url):
        raise ConfigError(f"{who} is an endpoint on another machine; leave out --offline to ask it")
    return EndpointOptions(base_url=base_url, model=model, key=key_for(base_url), **options)


def served_fingerprint(study: Study, variant: str) -> dict[str, str | None] | None:
    """What stands for the hashes of a variant's files, if it is a model behind an endpoint."""
    spec, engine = study.variants[variant].endpoint, study.engine
    if spec is None or not isinstance(engine, OpenAISpec):
        return None
    return served_identity(spec.model, spec.base_url or str(engine.base_url))


def served_identity(model: str, base_url: str) -> dict[str, str | None]:
    """The model's name and a hash of the address it is served at.

    Nobody can tell from outside whether the weights behind an address changed; a record says so in its events.
    """
    address = hashlib.sha256(base_url.encode()).hexdigest()
    unknown = dict.fromkeys(("weights_sha256", "tokenizer_sha256", "chat_template_sha256"))
    return {**unknown, "served_model": model, "served_at_sha256": address}


def open_endpoint(options: EndpointOptions) -> OpenAIEngine:
    """The engine over an endpoint; nothing is sent yet."""
    from harness.engines.openai import OpenAIEngine

    return OpenAIEngine(options)
