"""A stand-in for package vllm: the names, arguments and results that its documentation gives, over transformers.

It generates with transformers' own model, token by token, so that what our engine makes of it can be held against
engine torch. It is no vLLM: it shows that we call and read the interface as documented, not how vLLM behaves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypedDict

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

OPENED: list[dict[str, Any]] = []
SAMPLED: list[Any] = []


class TokensPrompt(TypedDict):
    prompt_token_ids: list[int]


@dataclass(kw_only=True)
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    max_tokens: int | None = 16
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or (self.max_tokens is not None and self.max_tokens < 1):
            raise ValueError("a sampling parameter is out of range")
        if self.stop and not self.detokenize:
            raise ValueError("stop strings are only supported when detokenize is True")


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass
class RequestOutput:
    request_id: str
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    finished: bool = field(default=True)


class LLM:
    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None = None,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        seed: int = 0,
        gpu_memory_utilization: float = 0.9,
        max_model_len: int | None = None,
        load_format: str = "auto",
    ) -> None:
        if tensor_parallel_size > 8:
            raise ValueError("tensor_parallel_size is larger than the number of GPUs")
        OPENED.append({k: v for k, v in locals().items() if k != "self"})
        kind = torch.float32 if dtype == "auto" else getattr(torch, dtype)
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=kind).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        length = max_model_len or self._model.config.max_position_embeddings
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=length))

    def generate(
        self,
        prompts: list[TokensPrompt],
        sampling_params: SamplingParams | list[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        params = sampling_params if isinstance(sampling_params, list) else [sampling_params] * len(prompts)
        assert len(params) == len(prompts), "one set of parameters a prompt"
        return [
            self._one(str(i), each["prompt_token_ids"], p)
            for i, (each, p) in enumerate(zip(prompts, params, strict=True))
        ]

    @torch.inference_mode()
    def _one(self, name: str, prompt: list[int], params: Any) -> RequestOutput:
        SAMPLED.append(params)
        limit = self.llm_engine.model_config.max_model_len
        if len(prompt) + 1 > limit:
            raise ValueError(f"The decoder prompt (length {len(prompt)}) is longer than the maximum model length")
        ids, text, reason = list(prompt), "", "length"
        # vLLM detokenizes with the prompt before it, so a first blank stays.
        before = self._tokenizer.decode(prompt, skip_special_tokens=True)
        stops = [params.stop] if isinstance(params.stop, str) else params.stop or []
        cache, fresh = None, ids
        while len(ids) - len(prompt) < params.max_tokens:
            out = self._model(torch.tensor([fresh]), past_key_values=cache, use_cache=True)
            logits, cache = out.logits[0, -1], out.past_key_values
            if params.temperature == 0:
                ids.append(int(logits.argmax()))
            else:
                stream = torch.Generator().manual_seed(params.seed or 0)
                ids.append(int(torch.multinomial((logits / params.temperature).softmax(-1), 1, generator=stream)))
            fresh = ids[-1:]
            if ids[-1] in (params.stop_token_ids or ()):
                reason = "stop"
                break
            text = self._tokenizer.decode(ids, skip_special_tokens=True)[len(before) :] if params.detokenize else ""
            hit = min((at for at in (text.find(stop) for stop in stops) if at >= 0), default=None)
            if hit is not None:
                text, reason = text[:hit], "stop"
                break
        known = self._prompt_logprobs(prompt, params.prompt_logprobs) if params.prompt_logprobs is not None else None
        said = CompletionOutput(0, text, ids[len(prompt) :], reason)
        return RequestOutput(name, list(prompt), [said], known)

    def _prompt_logprobs(self, prompt: list[int], top: int) -> list[dict[int, Logprob] | None]:
        logprobs = self._model(torch.tensor([prompt])).logits[0].float().log_softmax(-1)
        found: list[dict[int, Logprob] | None] = [None]
        for at, token in enumerate(prompt[1:]):
            best = logprobs[at].topk(top).indices.tolist()
            found.append({i: Logprob(float(logprobs[at, i])) for i in (token, *best)})
        return found
