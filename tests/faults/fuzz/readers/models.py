"""Readers of encoders, exports, fine-tuned models and tokenizers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.fuzz.damage import flipped, json_damage, lines_damage
from tests.faults.fuzz.engine import Reader
from tests.faults.fuzz.readers.files import copy_of, file_of

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij", *(f"##{c}" for c in "abcdefghij")]


def read_extractor(path: Path) -> None:
    from spe_dist.extraction.joint.folder import load_extractor

    load_extractor(path.parent)


def read_export(path: Path) -> None:
    from spe_dist.export import SpanPairEncoder

    SpanPairEncoder.from_pretrained(path.parent)


def read_encoder(path: Path) -> None:
    from spe_dist.config.pretraining import ModelConfig
    from spe_dist.model.loading import load_encoder

    load_encoder(str(path.parent), ModelConfig(), 10, 0)


def read_tokenizer(path: Path) -> None:
    from spe_dist.data.text.vocabulary import PieceEncoder, load_tokenizer, vocabulary_sha256

    tokenizer = load_tokenizer(path.parent if path.suffix == ".json" else path)
    vocabulary_sha256(tokenizer)
    PieceEncoder(tokenizer).pieces(["abc", "xyz", ""])


def read_predecessor(path: Path) -> None:
    from spe_dist.export.pspe import read_pspe

    read_pspe(path, attention_heads=4)


def model_readers(extractor: Path, predecessor: Path) -> list[Reader]:
    readers = [
        Reader(f"fine-tuned model, {name}", damage, copy_of(extractor, name), read_extractor)
        for name, damage in (
            ("extractor.json", json_damage),
            ("spe_config.json", json_damage),
            ("labels.json", json_damage),
            ("config.json", json_damage),
            ("SHA256SUMS", lines_damage),
            ("extractor_heads.safetensors", flipped),
        )
    ]
    readers += [
        Reader("export, model.safetensors", _head_flipped, copy_of(extractor, "model.safetensors"), read_export),
        Reader("export, spe_config.json", json_damage, copy_of(extractor, "spe_config.json"), read_export),
        Reader("encoder, config.json", json_damage, _plain_bert(extractor, "config.json"), read_encoder),
        Reader("encoder, weights", _head_flipped, _plain_bert(extractor, "model.safetensors"), read_encoder),
        Reader("encoder, pickled weights", flipped, _pickled_bert(extractor), read_encoder),
        Reader("vocab.txt", lines_damage, file_of("vocab.txt", "\n".join(WORDS) + "\n"), read_tokenizer),
        Reader(
            "predecessor's checkpoint", flipped, lambda folder: Path(shutil.copy(predecessor, folder)), read_predecessor
        ),
    ]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        readers.append(Reader(name, json_damage, copy_of(extractor, name), read_tokenizer))
    return readers


def _head_flipped(data: bytes, rng: Any) -> bytes:
    """Damage to the header of a safetensors file as often as to its numbers."""
    head = 8 + int.from_bytes(data[:8], "little")
    return flipped(data, rng) if rng.random() < 0.3 else flipped(data[:head], rng) + data[head:]


def _plain_bert(extractor: Path, name: str) -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        for file in ("config.json", "model.safetensors"):
            shutil.copy(extractor / file, folder / file)
        return folder / name

    return prepare


def _pickled_bert(extractor: Path) -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        import torch
        from safetensors.torch import load_file

        shutil.copy(extractor / "config.json", folder / "config.json")
        torch.save(load_file(extractor / "model.safetensors"), folder / "pytorch_model.bin")
        return folder / "pytorch_model.bin"

    return prepare
