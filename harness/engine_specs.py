"""The `engine:` of a study, one model for each kind of engine, and the endpoint that a variant may be."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.errors import ConfigError


class Strict(BaseModel):
    """A part of a study: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class EngineSpec(Strict):
    """Skill cells on an engine of this machine."""

    name: Literal["torch", "sparse", "auto"] = Field(
        "torch",
        description="auto: sparse on the CPU where its kernels are built (see `sparsebench doctor`), else torch",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: int = Field(32, gt=0, description="prompts per batch, fixed: results may depend on it")

    @model_validator(mode="after")
    def _known_dtype(self) -> EngineSpec:
        if self.name != "torch" and self.dtype == "float16":
            raise ValueError("engine sparse knows dtype float32 and bfloat16, not float16")
        return self


class VllmSpec(Strict):
    """Skill cells on vLLM, which batches by itself."""

    name: Literal["vllm"]
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch_size: int = Field(1024, gt=0, description="prompts that vLLM is given, and that are journaled, at a time")
    tensor_parallel_size: int = Field(1, gt=0, description="GPUs that a layer is spread over")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="share of the GPU's memory that vLLM takes")
    max_model_len: int | None = Field(None, gt=0, description="tokens of prompt and answer; default: the model's own")


class OpenAISpec(Strict):
    """Skill cells on an OpenAI-compatible endpoint; the variants name it."""

    name: Literal["openai"]
    api: Literal["auto", "chat", "completions"] = Field(
        "auto", description="auto: conversations to /chat/completions, plain texts to /completions"
    )
    base_url: str | None = Field(None, description="of all variants that name none, such as http://127.0.0.1:8000/v1")
    stream: bool = Field(True, description="streamed answers show a server that hangs early")
    concurrency: int = Field(8, gt=0, le=1024, description="requests under way at a time")
    requests_per_minute: float | None = Field(None, gt=0, description="limit, further tries included; default: none")
    tries: int = Field(6, gt=0, le=20, description="how often a request is sent at most")
    connect_timeout: float = Field(10.0, gt=0, description="seconds to make a connection")
    chunk_timeout: float = Field(120.0, gt=0, description="seconds without a byte of an answer")
    total_timeout: float = Field(600.0, gt=0, description="seconds of one try in all")

    @property
    def batch_size(self) -> int:
        """The server batches; ours plays no part."""
        return 1

    def transport(self) -> dict[str, Any]:
        """What may differ between two sessions of one run, because no result depends on it."""
        return self.model_dump(exclude={"name", "api", "base_url"})


class EndpointSpec(Strict):
    """A model behind an endpoint."""

    model: str = Field(min_length=1, description="the model's name on the server")
    base_url: str | None = Field(None, description="default: the engine's base_url")


AnyEngineSpec = Annotated[EngineSpec | VllmSpec | OpenAISpec, Field(discriminator="name")]
ENGINE_SPECS: dict[str, type[Strict]] = {
    **dict.fromkeys(("torch", "sparse", "auto"), EngineSpec),
    "vllm": VllmSpec,
    "openai": OpenAISpec,
}


def engine_body(value: Any) -> Any:
    """An engine as a study may write it (its name alone, or without one) in the form that is validated.

    Raises:
        ValueError: There is no such engine.
    """
    body = {"name": value} if isinstance(value, str) else value
    if not isinstance(body, dict):
        return body
    body = {"name": "torch", **body}
    if body["name"] not in ENGINE_SPECS:
        raise ValueError(f"unknown engine {body['name']!r}; choose one of {', '.join(ENGINE_SPECS)}")
    return body


def vllm_options(spec: Strict) -> dict[str, Any]:
    """What engine vllm is opened with beside the dtype; nothing for other engines."""
    names = {"tensor_parallel_size", "gpu_memory_utilization", "max_model_len"}
    return spec.model_dump(include=names) if isinstance(spec, VllmSpec) else {}


def checked_base_url(url: str) -> str:
    """A base URL, for a validator.

    Raises:
        ValueError: It is none, or holds a user or password.
    """
    from harness.endpoint.transport import origin_of

    try:
        origin_of(url)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return url.rstrip("/")
