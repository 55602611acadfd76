"""Vectors of words, spans and span pairs, for people who have sentences and want tensors.

    spe = SpanPairEncoder.from_pretrained(folder)
    encoded = spe.encode([words_1, words_2], spans=[[(0, 2)], [(3, 4), (5, 6)]], pairs=[[], [((3, 4), (5, 6))]])
    encoded.span_vectors[1]           # [2, H]
    spe.encode_pair(words_1, (0, 2), (4, 5))     # [H]

A word is a string without spaces; spans are half-open and count words. Each sentence goes through the encoder once,
however many spans and pairs are asked of it. Nothing here is trained: dropout is off and no gradient is kept.

Legend of the shape suffixes:
    Q sentences of a batch, T tokens, W words, S spans, P pairs, F = 5 spans of a pair, D hidden size, H span size
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from spe_dist.data.batches.packed import SPANS
from spe_dist.data.text.vocabulary import PieceEncoder
from spe_dist.errors import ConfigError, DataError
from spe_dist.model.spe import SpeModel

Span = tuple[int, int]
Pair = tuple[Span, Span]
EXAMPLES = {"spans": "spans such as [(0, 2)]", "pairs": "pairs of spans such as [((0, 2), (4, 5))]"}


@dataclass(frozen=True)
class Encoded:
    """What was asked for, one entry a sentence, in the order of the call."""

    cls: list[Tensor] = field(default_factory=list)  # [D]: the state of [CLS]
    word_states: list[Tensor] = field(default_factory=list)  # [words, D]: the state of each word's first piece
    span_vectors: list[Tensor] = field(default_factory=list)  # [spans, H]; empty without `spans`
    pair_vectors: list[Tensor] = field(default_factory=list)  # [pairs, H]; empty without `pairs`


@torch.no_grad()
def encode(
    spe: SpeModel,
    tokenizer: Any,
    sentences: Sequence[Sequence[str]],
    spans: Sequence[Sequence[Span]] | None = None,
    pairs: Sequence[Sequence[Pair]] | None = None,
    batch_sentences: int = 32,
) -> Encoded:
    """Word states of `sentences`, and the vectors of their spans and span pairs.

    In a pair the first span ends before the second begins, or where it begins. Raises DataError naming the sentence for
    spans outside of it and for sentences longer than the encoder, ConfigError for parts that the model has not.
    """
    _check(spe, tokenizer, sentences, spans, pairs, batch_sentences)
    pieces = PieceEncoder(tokenizer)
    encoded, was_training = Encoded(), spe.training
    spe.eval()
    try:
        for first in range(0, len(sentences), batch_sentences):
            numbers = range(first, min(first + batch_sentences, len(sentences)))
            states = _encode_batch(spe, tokenizer, pieces, [sentences[i] for i in numbers], first)
            for number, (cls_D, word_states_WD) in zip(numbers, states, strict=True):
                encoded.cls.append(cls_D)
                encoded.word_states.append(word_states_WD)
                if spans is not None:
                    encoded.span_vectors.append(_span_vectors(spe, word_states_WD, spans[number]))
                if pairs is not None:
                    encoded.pair_vectors.append(_pair_vectors(spe, word_states_WD, cls_D, pairs[number]))
    finally:
        spe.train(was_training)
    return encoded


def _encode_batch(
    spe: SpeModel, tokenizer: Any, encoder: PieceEncoder, sentences: list[Sequence[str]], first: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """([CLS] state, word states) of each sentence: one pass of the encoder over all of them."""
    ids_T: list[int] = []
    first_pieces: list[list[int]] = []
    lengths = []
    longest_allowed = spe.encoder.config.max_position_embeddings
    for number, words in enumerate(sentences, start=first):
        of_words = [pieces or (tokenizer.unk_token_id,) for pieces in encoder.pieces(words)]
        ends = list(accumulate((len(pieces) for pieces in of_words), initial=len(ids_T) + 1))
        first_pieces.append(ends[:-1])
        lengths.append(ends[-1] + 1 - len(ids_T))
        if lengths[-1] > longest_allowed:
            raise DataError(
                f"sentence {number} has {lengths[-1]} pieces with [CLS] and [SEP], the encoder reads {longest_allowed} "
                "at most; split it"
            )
        ids_T += [tokenizer.cls_token_id, *(piece for pieces in of_words for piece in pieces), tokenizer.sep_token_id]
    device = next(spe.parameters()).device
    borders_Q1 = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
    positions_T = torch.cat([torch.arange(length, device=device) for length in lengths])
    states_TD = spe.encoder(torch.tensor(ids_T, device=device), positions_T, borders_Q1, max(lengths))
    for start, own in zip(borders_Q1.tolist(), first_pieces, strict=False):
        yield states_TD[start], states_TD[torch.tensor(own, dtype=torch.int64, device=device)]


def _span_vectors(spe: SpeModel, word_states_WD: Tensor, spans: Sequence[Span]) -> Tensor:
    """[S, H]. The span encoder takes spans that partition its words: each span gets its own copy of them."""
    assert spe.span_encoder is not None
    if len(spans) == 0:
        return word_states_WD.new_zeros(0, spe.span_encoder.mlp.linear.out_features)
    device = word_states_WD.device
    index_W = torch.tensor([w for start, end in spans for w in range(start, end)], dtype=torch.int64, device=device)
    borders_S1 = torch.tensor([0, *accumulate(end - start for start, end in spans)], device=device)
    return spe.span_encoder(word_states_WD[index_W], borders_S1)


def _pair_vectors(spe: SpeModel, word_states_WD: Tensor, cls_D: Tensor, pairs: Sequence[Pair]) -> Tensor:
    """[P, H]: each pair cuts the sentence into five spans."""
    assert spe.pair_encoder is not None
    n_words = word_states_WD.shape[0]
    cut = [span for (a, b), (c, d) in pairs for span in ((0, a), (a, b), (b, c), (c, d), (d, n_words))]
    vectors_SH = _span_vectors(spe, word_states_WD, cut)
    if len(pairs) == 0:
        return vectors_SH
    cls_PD = (cls_D if spe.encoder.pooler is None else spe.encoder.pooler(cls_D)).expand(len(pairs), -1)
    return spe.pair_encoder(vectors_SH.unflatten(0, (-1, SPANS)), cls_PD)


def _has_shape(value: Any, shape: tuple[int, ...]) -> bool:
    """Whether a value is a whole number, or a nested sequence of so many."""
    if not shape:
        return isinstance(value, Integral)
    fits = isinstance(value, Collection) and len(value) == shape[0]
    return fits and all(_has_shape(inner, shape[1:]) for inner in value)


def _check(
    spe: SpeModel,
    tokenizer: Any,
    sentences: Sequence[Sequence[str]],
    spans: Sequence[Sequence[Span]] | None,
    pairs: Sequence[Sequence[Pair]] | None,
    batch_sentences: int,
) -> None:
    if batch_sentences < 1:
        raise ConfigError(f"batch_sentences={batch_sentences} must be 1 or more")
    if tokenizer is None:
        raise ConfigError("this model has no tokenizer; load an export that has one, or set `spe.tokenizer`")
    if spans is not None and spe.span_encoder is None:
        raise ConfigError("this model was trained without SPO and CSPO and has no span encoder; leave `spans` out")
    if pairs is not None and spe.pair_encoder is None:
        raise ConfigError("this model was trained without CSPO and has no span pair encoder; leave `pairs` out")
    for name, asked in (("spans", spans), ("pairs", pairs)):
        if asked is not None and len(asked) != len(sentences):
            raise DataError(f"{name} of {len(asked)} sentences for {len(sentences)} sentences; give a list for each")
    for number, words in enumerate(sentences):
        if isinstance(words, str):
            raise DataError(f"sentence {number} is one string; split it into words")
        if not all(isinstance(word, str) for word in words):
            raise DataError(f"sentence {number} has words that are not strings")
        for name, asked, shape in (("spans", spans, (2,)), ("pairs", pairs, (2, 2))):
            if asked is not None and not all(_has_shape(value, shape) for value in asked[number]):
                raise DataError(f"{name} of sentence {number} are {asked[number]!r}; give {EXAMPLES[name]}")
        for start, end in spans[number] if spans is not None else ():
            if not 0 <= start <= end <= len(words):
                raise DataError(f"span ({start}, {end}) does not lie in sentence {number} of {len(words)} words")
        for (a, b), (c, d) in pairs[number] if pairs is not None else ():
            if not 0 <= a <= b <= c <= d <= len(words):
                raise DataError(
                    f"pair ({a}, {b}), ({c}, {d}) of sentence {number} with {len(words)} words: both spans must lie in "
                    "it, the first one before the second"
                )
