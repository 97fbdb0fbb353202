"""Training rows as tokens: they begin as the prompts do that a model meets when it is evaluated."""

from __future__ import annotations

from typing import Any

import pytest

from harness.engines._prompt import encode_prompt
from sparsify.corpus import encode_rows

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)


def tokenizer_of(begins: bool, ends: bool = False) -> Any:
    """A tokenizer that puts <s> before a text, as Llama's does, or not; and </s> behind it, as T5's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "</s>", "<unk>", *"abcdefgh[]:", "user", "assistant"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    single = f"{'<s> ' if begins else ''}$A{' </s>' if ends else ''}"
    inner.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 0), ("</s>", 1)])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.chat_template = TEMPLATE
    return made


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("ends", [True, False])
def test_a_row_begins_as_the_prompt_does_that_is_evaluated(begins: bool, ends: bool) -> None:
    tokenizer = tokenizer_of(begins, ends)
    (row,) = encode_rows([{"prompt": "a b", "completion": "c d"}], tokenizer)
    prompt = encode_prompt(tokenizer, label="x", text="a b")
    assert list(row.ids) == [*(prompt[:-1] if ends else prompt), *tokenizer.convert_tokens_to_ids(["c", "d", "</s>"])]
    # Nothing but the answer is learned, and the first token of an answer without a prompt has something before it.
    assert list(row.target) == [False] * (len(row.ids) - 3) + [True] * 3
    (bare,) = encode_rows([{"prompt": "", "completion": "c"}], tokenizer)
    assert list(bare.ids) == ([0] if begins else []) + tokenizer.convert_tokens_to_ids(["c", "</s>"])


def test_there_is_never_a_second_bos() -> None:
    tokenizer = tokenizer_of(True)
    rows = [
        {"prompt": "<s> a b", "completion": "c"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]},
    ]
    plain, chat = encode_rows(rows, tokenizer)
    assert list(plain.ids[:-2]) == encode_prompt(tokenizer, label="x", text="<s> a b")
    assert plain.ids.count(0) == chat.ids.count(0) == 1 and chat.ids[0] == 0
