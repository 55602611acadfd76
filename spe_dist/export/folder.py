"""The exported folder: a plain BertModel for transformers, the SPE parts beside it.

config.json, model.safetensors   transformers.AutoModel, pooler included; with a head of masked language modelling also
                                 transformers.AutoModelForMaskedLM
tokenizer files                  transformers.AutoTokenizer
spe_config.json                  settings of the SPE parts, what was exported and from where
spe_heads.safetensors            span encoder, span pair encoder and heads, by PretrainingModel's names
README.md                        the same for people
SHA256SUMS                       checksums of all but the card, compared when the folder is loaded
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from spe_dist.config.shared import check_bounds
from spe_dist.data.text.languages import AUTO, LANGUAGES
from spe_dist.data.text.vocabulary import save_tokenizer
from spe_dist.errors import CheckpointError, ConfigError
from spe_dist.export.card import model_card
from spe_dist.export.parts import ENCODER, MLM, POOLER, Encoder, Parts, PoolerOrigin
from spe_dist.model.loading import MLM_HEAD, first_not_finite, read_bert_config
from spe_dist.utils.files import atomic_file, atomic_folder, check_free_file, check_free_name, check_space
from spe_dist.utils.hub import model_folder
from spe_dist.utils.reading.files import check_file
from spe_dist.utils.reading.json_file import read_object, shown
from spe_dist.utils.reading.sums import SUMS, checked, write_sums
from spe_dist.utils.wording import one_line

FORMAT_VERSION = 1
SPE_CONFIG = "spe_config.json"
HEADS = "spe_heads.safetensors"
MODEL = "model.safetensors"
CARD = "README.md"
EXTRACTOR = "extractor.json"  # of a fine-tuned folder, spe_dist/extraction/joint/folder.py
EXTRACTOR_HEADS = "extractor_heads.safetensors"
LABELS = "labels.json"
BERT = "bert."  # of the encoder in a BertForMaskedLM
DECODER, DECODER_BIAS = "decoder.weight", "decoder.bias"
AGAIN = "convert or copy the folder again"
MAX_JSON_BYTES = 8 << 20
NOT_TOKENIZER = frozenset(
    {"config.json", "start.json", "pooler.safetensors", MODEL, SPE_CONFIG, HEADS, CARD, SUMS}
    | {EXTRACTOR, EXTRACTOR_HEADS, LABELS}
)


def write_folder(parts: Parts, output: str | Path, overwrite: bool = False) -> None:
    """Write `parts` as an exported folder, whole or not at all. Raises CheckpointError."""
    output = Path(output)
    check_free_name(output, overwrite, SPE_CONFIG)
    check_space(output, parts.bytes)
    with atomic_folder(output) as folder:
        try:
            fill_folder(parts, folder)
        except safetensors.SafetensorError as error:  # which hides the error code of a full disk
            raise CheckpointError(
                f"{output} cannot be written ({one_line(error)}); free space or choose another"
            ) from None
        (folder / CARD).write_text(model_card(parts), encoding="utf-8")
        write_sums(folder)


def fill_folder(parts: Parts, folder: Path) -> None:
    """All files of an exported folder but its card, into a folder that exists."""
    bert = {k.removeprefix(ENCODER): v for k, v in parts.weights.items() if k.startswith(ENCODER)} | parts.pooler
    heads = {k: v for k, v in parts.weights.items() if not k.startswith((ENCODER, MLM))}
    masked_lm = {k.removeprefix(MLM): v for k, v in parts.weights.items() if k.startswith(MLM)}
    save_tensors(as_masked_lm(bert, masked_lm) if masked_lm else bert, folder / MODEL)
    save_tensors(heads, folder / HEADS)
    write_json(folder / "config.json", as_bert_model(parts.bert_config, masked_lm))
    write_json(folder / SPE_CONFIG, _describe(parts))
    write_tokenizer(parts.tokenizer, folder)


def find_folder(source: str | Path) -> Path:
    """A folder of ours: `source` itself, or the copy in the cache of what has that name on the hub.

    Raises:
        CheckpointError: there is no such folder, and no such name that can be reached.
    """
    try:
        return model_folder(str(source))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def read_folder(source: str | Path) -> Parts:
    """The parts of an exported folder, or of one on the hub.

    Raises:
        CheckpointError: it is not one, is damaged or cannot be reached.
    """
    folder = find_folder(source)
    with checked(folder):
        return read_parts(folder)


def read_parts(folder: Path) -> Parts:
    """As `read_folder`, without comparing the checksums: for a block of `checked` that reads more of the folder."""
    if not (folder / SPE_CONFIG).is_file():
        raise CheckpointError(
            f"{folder} is not an exported folder (no {SPE_CONFIG}); spe export CHECKPOINT OUTPUT makes one"
        )
    document = read_json(folder / SPE_CONFIG)
    if document.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder}/{SPE_CONFIG} has format_version={shown(document.get('format_version'))}, this program reads "
            f"{FORMAT_VERSION}; convert the checkpoint again"
        )
    _check_description(document, folder / SPE_CONFIG)
    bert_config = _read_config(folder)
    tensors = load_tensors(folder / MODEL)
    masked_lm = take_masked_lm(tensors)
    bert = {f"{ENCODER}{name.removeprefix(BERT)}": tensor for name, tensor in tensors.items()}
    in_model = document["pooler"]["part_of_spe"]
    pooler = {} if in_model else {k.removeprefix(ENCODER): bert.pop(k) for k in list(bert) if k.startswith(POOLER)}
    parts = Parts(
        weights=bert | masked_lm | load_tensors(folder / HEADS),
        settings=document["settings"],
        bert_config=bert_config,
        pooler=pooler,
        pooler_origin=document["pooler"]["origin"],
        tokenizer=folder,
        encoder=document["encoder"],
        language=document.get("language", AUTO),
        facts=document["facts"],
    )
    try:
        check_bounds(parts.config)  # settings of another version are found here, too
    except ConfigError as error:
        raise CheckpointError(f"{folder}/{SPE_CONFIG}: {error}; {AGAIN}") from None
    return parts


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        return read_bert_config(folder).to_dict()
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def _check_description(document: dict[str, Any], path: Path) -> None:
    """Check that `spe_config.json` has what `_describe` writes. Raises CheckpointError."""
    pooler = document.get("pooler")
    faults = {
        "settings": not isinstance(document.get("settings"), dict),
        "facts": not isinstance(document.get("facts"), dict),
        "encoder": document.get("encoder") not in get_args(Encoder),
        "language": document.get("language", AUTO) not in (AUTO, *LANGUAGES),
        "pooler": not isinstance(pooler, dict)
        or pooler.get("origin") not in get_args(PoolerOrigin)
        or not isinstance(pooler.get("part_of_spe"), bool),
    }
    for name, is_fault in faults.items():
        if is_fault:
            raise CheckpointError(f"{path}: {name} is {shown(document.get(name))}, which cannot be; {AGAIN}")


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU, every number of them finite. Raises CheckpointError."""
    check_file(path, CheckpointError)
    try:
        tensors = safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; the folder is incomplete, {AGAIN}") from None
    except (safetensors.SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be read ({one_line(error)}); it is damaged, {AGAIN}") from None
    if name := first_not_finite(tensors):
        raise CheckpointError(f"{path}: {name} holds numbers that are not finite; {AGAIN}, or train it again")
    return tensors


def save_state_dict(parts: Parts, file: str | Path, overwrite: bool = False) -> None:
    """One state_dict by PretrainingModel's names, for `torch.load(file, weights_only=True)`. Raises CheckpointError."""
    file = Path(file)
    check_free_file(file, overwrite)
    check_space(file, parts.bytes)
    file.absolute().parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as written:
        try:
            torch.save({name: tensor.contiguous() for name, tensor in parts.weights.items()}, written)
        except RuntimeError as error:  # of torch's writer of archives, which has no class for a full disk
            raise CheckpointError(
                f"{file} cannot be written ({one_line(error)}); free space or choose another"
            ) from None


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a folder that belong to its tokenizer."""
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name not in NOT_TOKENIZER)


def _describe(parts: Parts) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "encoder": parts.encoder,
        "language": parts.language,
        "pooler": {"origin": parts.pooler_origin, "part_of_spe": not parts.pooler},
        "settings": parts.settings,
        "facts": dict(parts.facts),
    }


def as_bert_model(bert_config: dict[str, Any], masked_lm: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
    """The config.json of a BertModel, or of a BertForMaskedLM where there is a head of masked language modelling."""
    dropped = {"_name_or_path", "torch_dtype", "quantization_config", "auto_map"}
    kept = {k: v for k, v in bert_config.items() if k not in dropped}
    if masked_lm:
        kept["tie_word_embeddings"] = DECODER not in masked_lm
    architecture = "BertForMaskedLM" if masked_lm else "BertModel"
    return kept | {"architectures": [architecture], "model_type": "bert", "dtype": "float32"}


def as_masked_lm(bert: Mapping[str, Tensor], masked_lm: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a BertForMaskedLM, with those of the pooler, which it does without."""
    head = {f"{MLM_HEAD}{name}": tensor for name, tensor in masked_lm.items()}
    head[f"{MLM_HEAD}bias"] = head[f"{MLM_HEAD}{DECODER_BIAS}"]
    if DECODER not in masked_lm:  # tied
        del head[f"{MLM_HEAD}{DECODER_BIAS}"]
    return {f"{BERT}{name}": tensor for name, tensor in bert.items()} | head


def take_masked_lm(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take the head out of the weights of a BertForMaskedLM; by PretrainingModel's names, {} where there is none."""
    head = {k.removeprefix(MLM_HEAD): tensors.pop(k) for k in list(tensors) if k.startswith(MLM_HEAD)}
    if "bias" in head:
        bias = head.pop("bias")
        head.setdefault(DECODER_BIAS, bias)
    return {f"{MLM}{name}": tensor for name, tensor in head.items()}


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, each with memory of its own."""
    safetensors.torch.save_file({k: v.contiguous().clone() for k, v in tensors.items()}, path, {"format": "pt"})


def write_tokenizer(tokenizer: Any | Path | None, folder: Path) -> None:
    """Write a tokenizer, or copy the files of one from its folder; None: nothing."""
    if isinstance(tokenizer, Path):
        for file in tokenizer_files(tokenizer):
            shutil.copyfile(file, folder / file.name)
    elif tokenizer is not None:
        save_tokenizer(tokenizer, folder)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON object with sorted keys."""
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a folder. Raises CheckpointError."""
    try:
        return read_object(path, AGAIN, CheckpointError, MAX_JSON_BYTES)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; the folder is incomplete, {AGAIN}") from None
