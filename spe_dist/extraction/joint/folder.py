"""The fine-tuned folder: an exported SPE folder (spe_dist/export/folder.py) with the heads of extraction beside it.

    config.json, model.safetensors   the sentence encoder: transformers.AutoModel loads it
    tokenizer files                  transformers.AutoTokenizer
    spe_config.json                  settings of span encoder and span pair encoder
    spe_heads.safetensors            their weights
    extractor.json                   settings of the extraction, what it was trained on
    extractor_heads.safetensors      detection, typing and relation head, span encoder of contexts
    labels.json                      entity and relation types
    README.md                        the same for people

It is read without DeepSpeed, and as an exported folder it is a start for pre-training's other tools and for another
fine-tuning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from spe_dist.config.loading import leaves, resolve
from spe_dist.data.text.vocabulary import load_tokenizer
from spe_dist.errors import CheckpointError
from spe_dist.export.folder import (
    CARD,
    EXTRACTOR,
    EXTRACTOR_HEADS,
    LABELS,
    fill_folder,
    find_folder,
    load_tensors,
    read_folder,
    read_json,
    save_tensors,
    write_json,
)
from spe_dist.export.loading import spe_model_of
from spe_dist.export.parts import EXPORTED_SECTIONS, SPE, Parts, differing, on_cpu, parts_of
from spe_dist.extraction.corpora.corpus import Labels
from spe_dist.extraction.joint.card import SCORES, extractor_card
from spe_dist.extraction.joint.model import JointModel
from spe_dist.utils.files import atomic_folder, check_free_name, check_space, write_atomically
from spe_dist.utils.run_files import MODEL_FOLDER

FORMAT_VERSION = 1
# Settings of the extraction itself; those of the network stand in spe_config.json as in every exported folder.
EXTRACTION_SETTINGS = ("max_pieces", "context_pieces", "context_encoder", "relation_size", "symmetric")
OBJECTIVES = {"tbo": False, "spo": False, "cspo": True, "contrastive_head": False}  # what gives span and pair encoder


@dataclass(frozen=True)
class LoadedExtractor:
    """A fine-tuned model in float32 and eval mode, and what it needs to read sentences."""

    model: JointModel
    tokenizer: Any
    labels: Labels
    settings: dict[str, Any]  # EXTRACTION_SETTINGS and those of the network, by leaf name
    facts: dict[str, Any]  # what it was trained on and how well it scored


def save_extractor(
    folder: str | Path,
    model: JointModel,
    tokenizer: Any,
    labels: Labels,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Write a fine-tuned folder, whole or not at all; an earlier fine-tuned folder is replaced.

    `settings` by leaf name: EXTRACTION_SETTINGS and the network's (ModelConfig of pre-training). `facts` go into the
    card. Raises CheckpointError.
    """
    output = Path(folder)
    parts = _parts(model, tokenizer, settings, facts)
    state = model.state_dict()
    heads = on_cpu({name: value for name, value in state.items() if not name.startswith(SPE)})
    check_free_name(output, True, EXTRACTOR)
    check_space(output, parts.bytes + sum(4 * tensor.numel() for tensor in heads.values()))
    document: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "settings": {name: _json_value(settings[name]) for name in EXTRACTION_SETTINGS},
        "facts": dict(facts),
    }
    try:
        with atomic_folder(output) as temporary:
            fill_folder(parts, temporary)
            save_tensors(heads, temporary / EXTRACTOR_HEADS)
            write_json(temporary / EXTRACTOR, document)
            write_labels(labels, temporary / LABELS)
            (temporary / CARD).write_text(extractor_card(parts, labels, document["settings"]), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"writing the model {output} failed: {error}; free some space (a quota may be full where the disk is not), "
            "then continue with --resume auto"
        ) from error


def add_scores(folder: Path, scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Add scores to the facts and the card of a fine-tuned folder; `scores` as `card.SCORES` has them."""
    document = read_json(folder / EXTRACTOR)
    document["facts"][SCORES] = {**document["facts"].get(SCORES, {}), **scores}
    parts = replace(read_folder(folder), facts=document["facts"])
    card = extractor_card(parts, read_labels(folder / LABELS), document["settings"])
    write_atomically(folder / EXTRACTOR, json.dumps(document, indent=2, sort_keys=True) + "\n")
    write_atomically(folder / CARD, card)


def is_extractor(folder: str | Path) -> bool:
    """Whether this is a fine-tuned folder."""
    return (Path(folder) / EXTRACTOR).is_file()


def load_extractor(folder: str | Path, device: str | torch.device = "cpu") -> LoadedExtractor:
    """The model of a fine-tuned folder in eval mode. Raises CheckpointError where it is not one, or is damaged."""
    folder = find_folder(folder)
    if not is_extractor(folder):
        raise CheckpointError(f"{folder} is not a fine-tuned folder (no {EXTRACTOR}){_other_folder(folder)}")
    document = read_json(folder / EXTRACTOR)
    if document.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder}/{EXTRACTOR} has format_version={document.get('format_version')}, this program reads "
            f"{FORMAT_VERSION}; fine-tune again, or use the version that wrote it"
        )
    parts = read_folder(folder)
    labels = read_labels(folder / LABELS)
    try:
        own_settings = {name: document["settings"][name] for name in EXTRACTION_SETTINGS}
        settings: dict[str, Any] = {**vars(parts.config.model), **own_settings}
        settings |= {name: int(settings[name]) for name in ("max_pieces", "context_pieces")}
        relation_size, own = int(settings["relation_size"]), settings["context_encoder"] == "own"
        facts = dict(document["facts"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}/{EXTRACTOR} is incomplete ({error!r}); copy the folder again") from None
    with torch.random.fork_rng(devices=[]):  # start values are overwritten, the caller's random numbers stay
        spe, dropout = spe_model_of(parts), parts.config.model.dropout
        model = JointModel(spe, labels, relation_size, dropout, own_context_encoder=own)
    _fill(model, load_tensors(folder / EXTRACTOR_HEADS), folder)
    return LoadedExtractor(model.to(device).eval(), load_tokenizer(folder), labels, settings, facts)


def write_labels(labels: Labels, path: Path) -> None:
    write_json(path, {"entity_types": list(labels.entity_types), "relation_types": list(labels.relation_types)})


def read_labels(path: Path) -> Labels:
    """labels.json of a fine-tuned folder. Raises CheckpointError."""
    document = read_json(path)
    types = [document.get("entity_types"), document.get("relation_types")]
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in types):
        raise CheckpointError(f"{path} must hold two lists of names, entity_types and relation_types; copy it again")
    return Labels(tuple(types[0]), tuple(types[1]))  # type: ignore[arg-type]


def _parts(model: JointModel, tokenizer: Any, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> Parts:
    weights = {name: value for name, value in model.state_dict().items() if name.startswith(SPE)}
    known = leaves()
    network = {n: _json_value(v) for n, v in settings.items() if n in known and known[n].section in EXPORTED_SECTIONS}
    return parts_of(weights, model.spe.encoder.config.to_dict(), {**network, **OBJECTIVES}, tokenizer, facts)


def _fill(model: JointModel, heads: dict[str, Tensor], folder: Path) -> None:
    expected = {name: value for name, value in model.state_dict().items() if not name.startswith(SPE)}
    missing, unknown, unlike = differing(expected, heads)
    if missing or unknown or unlike:
        raise CheckpointError(
            f"{folder}/{EXTRACTOR_HEADS} does not fit {LABELS} and {EXTRACTOR}: missing {missing[:2]}, unknown "
            f"{unknown[:2]}, of another shape {unlike[:2]}; copy the folder again"
        )
    model.load_state_dict(heads, strict=False)


def _other_folder(folder: Path) -> str:
    """What the folder is instead, and the remedy."""
    if is_extractor(folder / MODEL_FOLDER):
        return f"; it is the output of a run, give {folder / MODEL_FOLDER}"
    if (folder / "spe_config.json").is_file() or (folder / "config.json").is_file():
        return "; it is an encoder: fine-tune it with spe_dist/finetune.py --start and give OUTPUT/model"
    return "" if folder.exists() else ": it does not exist; give OUTPUT/model of a spe_dist/finetune.py run"


def _json_value(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def network_settings(settings: Mapping[str, Any]) -> Any:
    """Pre-training's Config with the network that `settings` describe: span and pair encoder, no contrastive head."""
    known = leaves()
    return resolve([{n: v for n, v in settings.items() if n in known and known[n].section == "model"}, OBJECTIVES])
