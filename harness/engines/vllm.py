"""The vLLM engine: large models, on one GPU or spread over several by vLLM's own tensor parallelism.

Import it through `harness.engines.load_engine`; vLLM itself is imported only when a variant is opened.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from harness.engines._prompt import encode_prompt
from harness.engines._text import TextReader, stop_at
from harness.engines.base import Completion, Finish, Request
from harness.errors import ConfigError, EngineError

_FINISH: Mapping[str, Finish] = {"stop": "stop", "length": "length"}


class VllmEngine:
    """Executes a variant with `vllm.LLM`; prompts go in as token ids, so that they are those of every other engine.

    vLLM batches as it sees fit: a greedy completion may differ from run to run where two tokens are nearly equal.
    """

    name = "vllm"

    def __init__(self, llm: Any, tokenizer: Any, *, label: str, end_ids: frozenset[int]) -> None:
        """Wrap an open model.

        Args:
            llm: A `vllm.LLM`.
            tokenizer: The variant's tokenizer, of transformers.
            label: What messages call the variant.
            end_ids: Tokens that end a completion.
        """
        self._llm = llm
        self._tokenizer = tokenizer
        self._label = label
        self._ends = end_ids
        self._reader = TextReader(tokenizer)

    @classmethod
    def load(
        cls,
        variant_dir: Path,
        *,
        dtype: str = "auto",
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        max_model_len: int | None = None,
    ) -> VllmEngine:
        """Open a model directory.

        Args:
            variant_dir: Directory with config.json, safetensors and a tokenizer.
            dtype: As vLLM names it; `auto` is as saved.
            tensor_parallel_size: GPUs that each layer is spread over.
            gpu_memory_utilization: Share of each GPU's memory that vLLM takes, in (0, 1].
            max_model_len: Tokens that prompt and answer may have together; None takes the model's own limit.

        Raises:
            ConfigError: No such directory.
            CheckpointError: The directory's files cannot be read.
            EngineError: vLLM is not installed, or cannot open the model here.
        """
        from harness.engines import why_not

        if (why := why_not("vllm")) is not None:
            raise EngineError(why)
        from vllm import LLM

        from harness.engines._ends import end_ids, saved_configs
        from harness.engines._load import check_files, load_tokenizer, read_config

        variant_dir = Path(variant_dir)
        read_config(variant_dir)
        check_files(variant_dir)
        tokenizer = load_tokenizer(variant_dir)
        try:
            llm = LLM(
                model=str(variant_dir),
                dtype=dtype,
                tensor_parallel_size=tensor_parallel_size,
                gpu_memory_utilization=gpu_memory_utilization,
                max_model_len=max_model_len,
                load_format="safetensors",
                trust_remote_code=False,
                seed=0,
            )
        except (RuntimeError, ValueError, OSError, ImportError) as error:
            fix = "use fewer tokens (max_model_len), more GPUs (tensor_parallel_size) or another engine"
            raise EngineError(f"vLLM does not open {variant_dir.name}: {_one_line(error)}; {fix}") from None
        ends = end_ids(saved_configs(variant_dir), tokenizer)
        return cls(llm, tokenizer, label=variant_dir.name, end_ids=ends)

    @property
    def context_length(self) -> int:
        """Tokens that prompt and completion may have together."""
        return int(self._llm.llm_engine.model_config.max_model_len)

    def encode(self, text: str | None = None, *, chat: Sequence[Mapping[str, str]] | None = None) -> list[int]:
        """Token ids of a plain text or of chat messages, as engine torch has them (`encode_prompt`)."""
        return encode_prompt(self._tokenizer, label=self._label, text=text, chat=chat)

    def generate_batch(self, requests: Sequence[Request]) -> list[Completion]:
        """Complete requests, in order; those that do not fit the context come back as `truncated_input`.

        Raises:
            ConfigError: A request has an empty prompt or asks for no token.
            EngineError: vLLM failed or gave an answer up.
        """
        for request in requests:
            if not request.prompt_ids or request.max_new_tokens < 1:
                raise ConfigError(f"request {request.request_id} has an empty prompt or max_new_tokens below 1")
        fits = [r for r in requests if len(r.prompt_ids) + r.max_new_tokens <= self.context_length]
        began = monotonic()
        outputs = self._generate([r.prompt_ids for r in fits], [self._sampling(r) for r in fits])
        seconds = monotonic() - began
        done = {r.request_id: self._completion(r, out, seconds) for r, out in zip(fits, outputs, strict=True)}
        return [
            done.get(r.request_id) or Completion(r.request_id, "", len(r.prompt_ids), 0, "truncated_input", 0.0)
            for r in requests
        ]

    def loglikelihoods(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[float, bool]]:
        """Per (context, continuation) of token ids: sum of log-probabilities in nats, and whether each was the argmax.

        vLLM generates at least one token, so a pair may have one token less than the context length; a longer one loses
        tokens at its left.

        Raises:
            ConfigError: A context or continuation is empty, or the continuation alone exceeds the context.
            EngineError: vLLM failed, or gives no log-probabilities of the prompt.
        """
        from vllm import SamplingParams

        room = self.context_length - 1
        for context, continuation in pairs:
            if not context or not continuation or len(continuation) >= room:
                raise ConfigError("log-likelihoods need a context and a continuation that fits the context length")
        prompts = [[*context, *continuation][-room:] for context, continuation in pairs]
        params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=1, detokenize=False)
        outputs = self._generate(prompts, [params] * len(prompts))
        return [
            self._weight(prompt[-len(continuation) :], output.prompt_logprobs)
            for prompt, (_, continuation), output in zip(prompts, pairs, outputs, strict=True)
        ]

    def _generate(self, prompts: Sequence[Sequence[int]], params: Sequence[Any]) -> list[Any]:
        from vllm import TokensPrompt

        if not prompts:
            return []
        asked = [TokensPrompt(prompt_token_ids=list(ids)) for ids in prompts]
        try:
            return list(self._llm.generate(asked, sampling_params=list(params), use_tqdm=False))
        except (RuntimeError, ValueError, OSError) as error:
            raise EngineError(
                f"variant {self._label}: vLLM failed: {_one_line(error)}; run the same command again"
            ) from None

    def _sampling(self, request: Request) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=request.max_new_tokens,
            stop=list(request.stop),
            stop_token_ids=sorted(self._ends),
            seed=request.seed if request.temperature > 0 else None,
        )

    def _completion(self, request: Request, output: Any, seconds: float) -> Completion:
        said = output.outputs[0]
        if said.finish_reason not in _FINISH:
            raise EngineError(f"variant {self._label}: vLLM gave {request.request_id} up ({said.finish_reason})")
        tokens = list(said.token_ids)
        text = self._reader.completion(
            request.prompt_ids, tokens[:-1] if tokens and tokens[-1] in self._ends else tokens
        )
        cut = stop_at(text, request.stop)
        finish = _FINISH[said.finish_reason] if cut is None else "stop"
        return Completion(request.request_id, text[:cut], len(request.prompt_ids), len(tokens), finish, seconds)

    def _weight(self, continuation: Sequence[int], logprobs: Any) -> tuple[float, bool]:
        """Log-likelihood of the last tokens of a prompt, and whether greedy decoding gives them."""
        if not logprobs:
            raise EngineError(f"variant {self._label}: vLLM gave no log-probabilities of a prompt; update vllm")
        total, greedy = [], True
        for token, seen in zip(continuation, logprobs[-len(continuation) :], strict=True):
            values = {index: float(getattr(entry, "logprob", entry)) for index, entry in seen.items()}
            total.append(values[token])
            greedy = greedy and values[token] >= max(values.values())
        return math.fsum(total), greedy


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
