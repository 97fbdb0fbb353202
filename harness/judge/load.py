"""Opens the judge that a user names."""

from __future__ import annotations

from dataclasses import dataclass

from harness.endpoint.command import PREFIX
from harness.errors import ConfigError
from harness.judge.session import Judge


@dataclass(frozen=True)
class JudgeModel:
    """A judge as a user names it.

    Attributes:
        model: A directory, a hub id or a bundled model; `openai:NAME` for one behind an endpoint.
        base_url: Where the latter is served.
        concurrency: Requests to it at a time.
        engine: `torch`, `sparse` or `auto`.
        device: `cpu` or `cuda`.
        dtype: Computation dtype.
        revision: Commit of a hub model.
        offline: Take a hub model from the local cache only.
    """

    model: str
    base_url: str | None = None
    concurrency: int = 8
    engine: str = "torch"
    device: str = "cpu"
    dtype: str = "float32"
    revision: str | None = None
    offline: bool = False


def open_judge(named: JudgeModel) -> Judge:
    """Load the judge.

    Raises:
        ConfigError: There is no such model or engine, or the model has no chat template.
        EngineError: The engine cannot run here.
        CheckpointError: The model's files cannot be read.
    """
    if named.model.startswith(PREFIX) or named.base_url is not None:
        return _served(named)
    from harness.engines import load_engine, resolve_engine
    from harness.fingerprint import model_fingerprint
    from harness.models import model_directory, public_name

    directory = model_directory(named.model, revision=named.revision, offline=named.offline)
    identity = model_fingerprint(directory)
    if identity["chat_template_sha256"] is None:
        raise ConfigError(f"judge {named.model} has no chat template; choose a chat model, or add chat_template.jinja")
    engine = resolve_engine(named.engine, device=named.device)
    opened = load_engine(engine, directory, device=named.device, dtype=named.dtype)
    return Judge(public_name(named.model), opened, {**identity, "engine": f"{engine}/{named.dtype}"})


def _served(named: JudgeModel) -> Judge:
    from harness.evaluate.served import endpoint_options, open_endpoint, served_identity

    if not named.model.startswith(PREFIX):
        raise ConfigError(f"a judge behind an endpoint is named {PREFIX}NAME, such as {PREFIX}{named.model}")
    if named.base_url is None:
        raise ConfigError(f"{named.model} needs --base-url, such as http://127.0.0.1:8000/v1")
    model = named.model.removeprefix(PREFIX)
    options = endpoint_options(
        model, named.base_url, offline=named.offline, who=f"judge {model}", concurrency=named.concurrency
    )
    return Judge(model, open_endpoint(options), {**served_identity(model, named.base_url), "engine": "openai"})
