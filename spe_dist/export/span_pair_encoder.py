"""A pre-trained model for people who have words and want vectors; plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spe_dist.data.text.vocabulary import load_tokenizer
from spe_dist.export.encode import Encoded, Pair, Span, encode
from spe_dist.export.folder import find_folder, read_parts, write_folder
from spe_dist.export.loading import has_tokenizer, spe_model_of
from spe_dist.export.parts import SPE, Parts, on_cpu
from spe_dist.model.spe import SpeModel
from spe_dist.utils.reading.sums import checked


class SpanPairEncoder:
    """Vectors of words, spans and span pairs.

    `module` is the network, an ordinary `nn.Module` to train on; `tokenizer` the one it was trained with, None where
    the folder has none; `parts` its settings, where it came from, and the weights of what `module` does without: the
    heads of pre-training, which are saved again as they came.
    """

    def __init__(self, module: SpeModel, tokenizer: Any | None, parts: Parts) -> None:
        self.module = module
        self.tokenizer = tokenizer
        heads = {name: tensor for name, tensor in parts.weights.items() if not name.startswith(SPE)}
        self.parts = replace(parts, weights=heads, tokenizer=tokenizer)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> SpanPairEncoder:
        """The model of an exported or fine-tuned folder, or of one on the hub: float32, on the CPU, in eval mode.

        Raises:
            CheckpointError: the folder is not an exported one, is damaged or cannot be reached.
        """
        folder = find_folder(folder)
        with checked(folder):
            parts = read_parts(folder)
            tokenizer = load_tokenizer(folder) if has_tokenizer(folder) else None
            return cls(spe_model_of(parts), tokenizer, parts)

    def to(self, device: str | torch.device) -> SpanPairEncoder:
        """The same object, its weights on `device`."""
        self.module.to(device)
        return self

    def save_pretrained(self, folder: str | Path, overwrite: bool = False) -> None:
        """Write an exported folder, whole or not at all, say after further training of `module`.

        Raises:
            CheckpointError: the folder is not empty, or the disk is full.
        """
        weights = {f"{SPE}{name}": tensor for name, tensor in self.module.state_dict().items()}
        write_folder(replace(self.parts, weights=self.parts.weights | on_cpu(weights)), folder, overwrite)

    def encode(
        self,
        sentences: Sequence[Sequence[str]],
        spans: Sequence[Sequence[Span]] | None = None,
        pairs: Sequence[Sequence[Pair]] | None = None,
        batch_sentences: int = 32,
    ) -> Encoded:
        """Vectors of words, spans and span pairs of sentences given as words: see `spe_dist.export.encode`."""
        return encode(self.module, self.tokenizer, sentences, spans, pairs, batch_sentences)

    def encode_pair(self, words: Sequence[str], s1: Span, s2: Span) -> Tensor:
        """The vector [H] of one span pair; spans are half-open, count words, and s1 stands before s2."""
        return self.encode([words], pairs=[[(s1, s2)]]).pair_vectors[0][0]
