"""The fine-tuned folder: an exported SPE folder (spe_dist/export/folder.py) with the heads of extraction beside it.

    config.json, model.safetensors   the sentence encoder: transformers.AutoModel loads it
    tokenizer files                  transformers.AutoTokenizer
    spe_config.json                  settings of span encoder and span pair encoder
    spe_heads.safetensors            their weights
    extractor.json                   settings of the extraction, what it was trained on
    extractor_heads.safetensors      detection, typing and relation head, span encoder of contexts
    labels.json                      entity and relation types
    README.md                        the same for people
    SHA256SUMS                       checksums of all but the card, compared when the folder is loaded

It is read without DeepSpeed, and as an exported folder it is a start for pre-training's other tools and for another
fine-tuning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from spe_dist.config.finetuning import PAIR_FEATURES, TYPING_FEATURES
from spe_dist.config.loading import leaves, resolve
from spe_dist.data.text.languages import AUTO, LANGUAGES
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
    read_parts,
    save_tensors,
    write_json,
)
from spe_dist.export.loading import empty, empty_encoder, shapes_of, spe_model_of
from spe_dist.export.parts import EXPORTED_SECTIONS, SPE, Parts, differing, on_cpu, parts_of
from spe_dist.extraction.corpora.corpus import Labels
from spe_dist.extraction.joint.card import SCORES, extractor_card
from spe_dist.extraction.joint.features import Features
from spe_dist.extraction.joint.model import JointModel
from spe_dist.extraction.joint.thresholds import ARGMAX, LEAST, Thresholds, is_threshold
from spe_dist.model.spe import SpeModel
from spe_dist.model.start.build import build_spe_model
from spe_dist.utils.files import atomic_folder, check_free_name, check_space, link_or_copy
from spe_dist.utils.reading.json_file import is_names, is_whole, shown
from spe_dist.utils.reading.sums import SUMS, checked, write_sums
from spe_dist.utils.run_files import MODEL_FOLDER

FORMAT_VERSION = 1
# Settings of the extraction itself; those of the network stand in spe_config.json as in every exported folder.
EXTRACTION_SETTINGS = (
    "max_pieces",
    "context_pieces",
    "context_encoder",
    "relation_size",
    "symmetric",
    "typing_features",
    "pair_features",
    "feature_size",
    "language",
)
# What folders have that were written before these settings.
ADDED_LATER: dict[str, Any] = {"typing_features": [], "pair_features": [], "feature_size": 25, "language": AUTO}
THRESHOLDS = "thresholds"  # optional: of predictions that name none
THRESHOLDS_OF_CARD = "thresholds of prediction"
OBJECTIVES = {"tbo": False, "spo": False, "cspo": True, "contrastive_head": False}  # what gives span and pair encoder


@dataclass(frozen=True)
class LoadedExtractor:
    """A fine-tuned model in float32 and eval mode, and what it needs to read sentences."""

    model: JointModel
    tokenizer: Any
    labels: Labels
    settings: dict[str, Any]  # EXTRACTION_SETTINGS and those of the network, by leaf name
    facts: dict[str, Any]  # what it was trained on and how well it scored
    thresholds: Thresholds = ARGMAX


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
        "settings": {name: _json_value({**ADDED_LATER, **settings}[name]) for name in EXTRACTION_SETTINGS},
        "facts": dict(facts),
    }
    try:
        with atomic_folder(output) as temporary:
            fill_folder(parts, temporary)
            save_tensors(heads, temporary / EXTRACTOR_HEADS)
            write_json(temporary / EXTRACTOR, document)
            write_labels(labels, temporary / LABELS)
            (temporary / CARD).write_text(extractor_card(parts, labels, document["settings"]), encoding="utf-8")
            write_sums(temporary)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"writing the model {output} failed: {error}; free some space (a quota may be full where the disk is not), "
            "then continue with --resume auto"
        ) from error


def add_scores(folder: Path, scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Add scores to the facts and the card of a fine-tuned folder; `scores` as `card.SCORES` has them."""

    def add(document: dict[str, Any]) -> None:
        document["facts"][SCORES] = {**document["facts"].get(SCORES, {}), **scores}

    _change(folder, add)


def keep_thresholds(folder: Path, thresholds: Thresholds, corpus: str) -> None:
    """Have predictions with a fine-tuned folder take these thresholds where they name none; the card says so.

    `corpus`: what they were chosen on.

    Raises:
        CheckpointError: the folder is no fine-tuned one, or cannot be changed.
    """

    def keep(document: dict[str, Any]) -> None:
        document[THRESHOLDS] = vars(thresholds)
        document["facts"][THRESHOLDS_OF_CARD] = f"{thresholds} (chosen on {corpus})"

    with checked(folder):
        pass
    _change(folder, keep)


def _change(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change extractor.json, and the card with it.

    The folder is replaced as a whole, so that its checksums are right at any moment.
    """
    parts = read_folder(folder)
    document = read_json(folder / EXTRACTOR)
    change(document)
    card = extractor_card(replace(parts, facts=document["facts"]), read_labels(folder / LABELS), document["settings"])
    with atomic_folder(folder) as temporary:
        for path in folder.iterdir():
            if path.name not in (EXTRACTOR, CARD, SUMS):
                link_or_copy(path, temporary / path.name)
        write_json(temporary / EXTRACTOR, document)
        (temporary / CARD).write_text(card, encoding="utf-8")
        write_sums(temporary)


def is_extractor(folder: str | Path) -> bool:
    """Whether this is a fine-tuned folder."""
    return (Path(folder) / EXTRACTOR).is_file()


def load_extractor(folder: str | Path, device: str | torch.device = "cpu") -> LoadedExtractor:
    """The model of a fine-tuned folder in eval mode. Raises CheckpointError where it is not one, or is damaged."""
    folder = find_folder(folder)
    if not is_extractor(folder):
        raise CheckpointError(f"{folder} is not a fine-tuned folder (no {EXTRACTOR}){_other_folder(folder)}")
    with checked(folder):
        return _load(folder, device)


def _load(folder: Path, device: str | torch.device) -> LoadedExtractor:
    document = read_json(folder / EXTRACTOR)
    if document.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder}/{EXTRACTOR} has format_version={shown(document.get('format_version'))}, this program reads "
            f"{FORMAT_VERSION}; fine-tune again, or use the version that wrote it"
        )
    parts = read_parts(folder)
    labels = read_labels(folder / LABELS)
    own = _own_settings(document, parts, folder / EXTRACTOR)

    def build(spe: SpeModel) -> JointModel:
        return joint_model(spe, labels, own, parts.config.model.dropout)

    spe = spe_model_of(parts)
    heads = load_tensors(folder / EXTRACTOR_HEADS)
    shapes = shapes_of(lambda: build(build_spe_model(parts.config, empty_encoder(parts))), "extractor")
    _check_heads({name: shape for name, shape in shapes.items() if not name.startswith(SPE)}, heads, folder)
    model = empty(lambda: build(spe))
    model.load_state_dict(heads, strict=False)
    settings = {**vars(parts.config.model), **own}
    thresholds = _thresholds(document, folder / EXTRACTOR)
    tokenizer = load_tokenizer(folder)
    return LoadedExtractor(model.to(device).eval(), tokenizer, labels, settings, document["facts"], thresholds)


def _thresholds(document: Mapping[str, Any], path: Path) -> Thresholds:
    """Those that were kept; none in folders that know none. Raises CheckpointError."""
    kept = document.get(THRESHOLDS, {})
    names = vars(ARGMAX)
    if not isinstance(kept, dict) or not kept.keys() <= names.keys():
        raise CheckpointError(f"{path}: {THRESHOLDS} is {shown(kept)}, which cannot be; copy the folder again")
    for name, value in kept.items():
        if value is not None and not is_threshold(value):
            raise CheckpointError(f"{path}: threshold of {name} is {shown(value)}, not from {LEAST} to 1; set another")
    return Thresholds(**kept)


def joint_model(
    spe: SpeModel, labels: Labels, settings: Mapping[str, Any], dropout: float, kernels: str = "auto"
) -> JointModel:
    """The joint model that EXTRACTION_SETTINGS describe; those that were added later may be missing."""
    values = {**ADDED_LATER, **settings}
    is_own = values["context_encoder"] == "own"
    features = Features(tuple(values["typing_features"]), tuple(values["pair_features"]), values["feature_size"])
    return JointModel(spe, labels, values["relation_size"], dropout, kernels, is_own, features)


def _own_settings(document: Mapping[str, Any], parts: Parts, path: Path) -> dict[str, Any]:
    """EXTRACTION_SETTINGS of extractor.json, each one that can be. Raises CheckpointError."""
    settings = document.get("settings")
    if not isinstance(settings, dict) or not isinstance(document.get("facts"), dict):
        raise CheckpointError(f"{path} is incomplete (settings and facts must be objects); copy the folder again")
    settings = {**ADDED_LATER, **settings}
    if missing := [name for name in EXTRACTION_SETTINGS if name not in settings]:
        raise CheckpointError(f"{path} is incomplete (no {missing[0]!r}); copy the folder again")
    positions = parts.bert_config["max_position_embeddings"]
    right = {
        "max_pieces": is_whole(settings["max_pieces"], 1, positions),
        "context_pieces": is_whole(settings["context_pieces"], 0, positions),
        "context_encoder": settings["context_encoder"] in ("own", "shared"),
        "relation_size": is_whole(settings["relation_size"], 1, 1 << 20),
        "symmetric": is_names(settings["symmetric"]),
        "typing_features": _are_some_of(settings["typing_features"], TYPING_FEATURES),
        "pair_features": _are_some_of(settings["pair_features"], PAIR_FEATURES),
        "feature_size": is_whole(settings["feature_size"], 1, 1 << 20),
        "language": settings["language"] in (AUTO, *LANGUAGES),
    }
    for name, is_right in right.items():
        if not is_right:
            raise CheckpointError(f"{path}: {name} is {shown(settings[name])}, which cannot be; copy the folder again")
    return {name: settings[name] for name in EXTRACTION_SETTINGS}


def _are_some_of(names: Any, known: tuple[str, ...]) -> bool:
    return is_names(names) and set(names) <= set(known)


def write_labels(labels: Labels, path: Path) -> None:
    """Write labels.json of a fine-tuned folder."""
    write_json(path, {"entity_types": list(labels.entity_types), "relation_types": list(labels.relation_types)})


def read_labels(path: Path) -> Labels:
    """labels.json of a fine-tuned folder. Raises CheckpointError."""
    document = read_json(path)
    types: list[Any] = [document.get("entity_types"), document.get("relation_types")]
    if not all(is_names(names) and len(set(names)) == len(names) for names in types):
        raise CheckpointError(
            f"{path} must hold two lists of names, entity_types and relation_types, none twice; copy it again"
        )
    return Labels(tuple(types[0]), tuple(types[1]))


def _parts(model: JointModel, tokenizer: Any, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> Parts:
    weights = {name: value for name, value in model.state_dict().items() if name.startswith(SPE)}
    bert_config, language = model.spe.encoder.config.to_dict(), settings.get("language", AUTO)
    return parts_of(weights, bert_config, network_parts(settings), tokenizer, facts, language)


def network_parts(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the network among those of a fine-tuned model, by leaf name, as an export has them."""
    known = leaves()
    network = {n: _json_value(v) for n, v in settings.items() if n in known and known[n].section in EXPORTED_SECTIONS}
    return {**network, **OBJECTIVES}


def _check_heads(expected: Mapping[str, Tensor], heads: Mapping[str, Tensor], folder: Path) -> None:
    missing, unknown, unlike = differing(expected, heads)
    if missing or unknown or unlike:
        raise CheckpointError(
            f"{folder}/{EXTRACTOR_HEADS} does not fit {LABELS} and {EXTRACTOR}: missing {missing[:2]}, unknown "
            f"{unknown[:2]}, of another shape {unlike[:2]}; copy the folder again"
        )


def _other_folder(folder: Path) -> str:
    """What the folder is instead, and the remedy."""
    if is_extractor(folder / MODEL_FOLDER):
        return f"; it is the output of a run, give {folder / MODEL_FOLDER}"
    if (folder / "spe_config.json").is_file() or (folder / "config.json").is_file():
        return "; it is an encoder: fine-tune it (spe finetune --start) and give OUTPUT/model"
    return f"{'' if folder.exists() else ': it does not exist'}; give OUTPUT/model of a run of spe finetune"


def _json_value(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def network_settings(settings: Mapping[str, Any]) -> Any:
    """Pre-training's Config with the network that `settings` describe: span and pair encoder, no contrastive head."""
    known = leaves()
    return resolve([{n: v for n, v in settings.items() if n in known and known[n].section == "model"}, OBJECTIVES])
