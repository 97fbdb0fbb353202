"""The losses of sparse fine-tuning (Kurtic et al. 2023, arXiv 2310.06927, section 3).

They take tensors, not models, and assume no kind of model: a decoder's features are compared over its real tokens, an
encoder-decoder's over the real tokens of either side (`features`); logits meet their labels through `predictions`,
which shifts them for a causal model and leaves them for a decoder whose labels are aligned with its positions (T5).

Every mean can be over more tokens than a process holds: `total` sums a value over processes (and passes it on where
there is one), so that the gradients of all processes add up to the gradient of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Total = Callable[[Tensor], Tensor]
IGNORED = -100  # the label of places that have none, as in transformers


def _alone(value: Tensor) -> Tensor:
    return value


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor, *, total: Tensor | None = None) -> Tensor:
    """Weighted mean cross-entropy in nats.

    Args:
        logits: [n, vocab], float32.
        targets: [n] token ids.
        weights: [n] float32, not all zero.
        total: Sum of the weights of the whole step, where these are a part of it.
    """
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    return (losses * weights).sum() / (weights.sum() if total is None else total)


def kl_divergence(student: Tensor, teacher: Tensor, temperature: float, *, total: Tensor | None = None) -> Tensor:
    """Mean KL(teacher || student) over rows, times the squared temperature (Hinton et al. 2015, section 2).

    The rows must be the same predictions of both: for a causal model those at the position before each label. The
    reference code (IST-DASLab/SparseFinetuning, `scripts/train/train_sparse.py`) takes the positions of the labels
    themselves, which misses each answer's first token and adds one past its end; here the shift is made.

    Args:
        student: [n, vocab] logits.
        teacher: [n, vocab] logits, without gradient.
        temperature: Divides both logits.
        total: Rows of the whole step, where these are a part of it.
    """
    log_student = torch.log_softmax(student / temperature, dim=-1)
    log_teacher = torch.log_softmax(teacher / temperature, dim=-1)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(dim=-1)
    return divergence.sum() / (len(divergence) if total is None else total) * temperature**2


def squarehead_blocks(
    student: Sequence[Tensor], teacher: Sequence[Tensor], real: Tensor, eps: float, *, total: Total = _alone
) -> list[Tensor]:
    """SquareHead of each block: mean((s - t)^2) / (mean(t^2) + eps) over real tokens, both means over all features.

    The normaliser is the teacher's and carries no gradient. Reference codes differ in eps:
    bfloat16's machine epsilon 0.0078125 in SparseFinetuning, which is not small beside the energy of a quiet block;
    1e-9 in the translation code (TACO4NLP, `masked_norm_mse`), the default here; none in sparseml, which divides sums.
    The last state of a transformers decoder is after the final norm; the reference compares it so, and so does this.

    Args:
        student: Output of every block, each [batch, tokens, hidden]; the embedding output (index 0) is left out.
        teacher: The teacher's, same shapes, on any device.
        real: [batch, tokens] bool, True on tokens that count.
        eps: Added to the teacher's mean square, so that a silent block does not divide by zero.
        total: Sums over processes.
    """
    found = []
    for ours, theirs in zip(student, teacher, strict=True):
        a, b = ours[real].float(), theirs.to(ours.device)[real].float().detach()
        count = total(torch.tensor(float(b.numel()), device=b.device))
        energy = total(b.square().sum()) / count
        found.append((a - b).square().sum() / count / (energy + eps))
    return found


def squarehead(student: Sequence[Tensor], teacher: Sequence[Tensor], real: Tensor, eps: float) -> Tensor:
    """The sum of `squarehead_blocks` over blocks, as SparseFinetuning and TACO4NLP take it.

    (sparseml averages over layers and multiplies by their number, which is the same.)
    """
    return sum(squarehead_blocks(student, teacher, real, eps), torch.zeros((), device=real.device))


def features(outputs: Any, *, shown: Tensor, labels: Tensor | None = None) -> list[tuple[Sequence[Tensor], Tensor]]:
    """The groups of block outputs that SquareHead compares, each with the tokens that count in it.

    One group for a decoder or an encoder alone; encoder and decoder for a model that has both. The embedding output is
    left out of each.

    Args:
        outputs: Of a transformers model that was run with `output_hidden_states=True`.
        shown: [batch, tokens] bool, the attention mask of the input.
        labels: [batch, target tokens] of an encoder-decoder, `IGNORED` where there is none; its decoder counts the
            others.
    """
    if getattr(outputs, "decoder_hidden_states", None) is None:
        return [(outputs.hidden_states[1:], shown)]
    if labels is None:
        raise ValueError("an encoder-decoder needs its labels: they say which positions of its decoder count")
    return [(outputs.encoder_hidden_states[1:], shown), (outputs.decoder_hidden_states[1:], labels != IGNORED)]


def predictions(logits: Tensor, labels: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """The logits that predict a label, [n, vocab], and those labels, [n].

    Args:
        logits: [batch, tokens, vocab].
        labels: [batch, tokens], `IGNORED` where there is none.
        causal: Labels are the input tokens themselves, each predicted one position earlier; False where position i of
            the decoder predicts label i, as in T5.
    """
    if causal:
        logits, labels = logits[:, :-1], labels[:, 1:]
    chosen = labels != IGNORED
    return logits[chosen], labels[chosen]
