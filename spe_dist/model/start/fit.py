"""Whether the weights of a BERT folder fit its config.json, and what to do where they do not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from transformers import BertConfig

from spe_dist.errors import ConfigError
from spe_dist.model.start.tensor_files import TensorFiles
from spe_dist.utils.reading.files import check_file

WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")
# Of tensors whose sizes tell a setting: (end of the name, axis, setting). The first that differs says most.
_SETTINGS = (
    ("word_embeddings.weight", 1, "hidden_size"),
    ("word_embeddings.weight", 0, "vocab_size"),
    ("position_embeddings.weight", 0, "max_position_embeddings"),
    ("token_type_embeddings.weight", 0, "type_vocab_size"),
    ("intermediate.dense.weight", 0, "intermediate_size"),
)
TENSORS_OF_A_LAYER = 16
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.")

Mismatch = tuple[str, Sequence[int], Sequence[int]]  # name, shape in the file, shape by config.json


def check_weight_files(folder: Path) -> None:
    """Check that config and weights are files and no pointers to them. Raises ConfigError."""
    for path in (folder / "config.json", *(path for kind in WEIGHT_FILES for path in sorted(folder.glob(kind)))):
        check_file(path, ConfigError)


def check_parameters(folder: Path, config: BertConfig) -> None:
    """Check that the weights' files are whole and large enough for the sizes in config.json, before memory is taken for
    these. Raises ConfigError.
    """
    if TensorFiles.are_in(folder):
        TensorFiles(folder)
    width = config.hidden_size
    rows = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    parameters = width * (rows + config.num_hidden_layers * (4 * width + 2 * config.intermediate_size))
    found = sum(path.stat().st_size for kind in WEIGHT_FILES for path in folder.glob(kind))
    if not found:
        raise ConfigError(
            f"{folder} holds no weights ({', '.join(WEIGHT_FILES)}); copy them, or give another checkpoint"
        )
    if found < parameters:
        raise ConfigError(
            f"{folder}/config.json describes {parameters:,} parameters, but its weights have {found:,} bytes: "
            "they do not belong together; copy the folder again"
        )


def most_telling(mismatches: Iterable[Mismatch]) -> Mismatch:
    """Of tensors with other sizes than config.json says, the one that tells which setting it is."""
    ends = [end for end, _, _ in _SETTINGS]

    def rank(mismatch: Mismatch) -> tuple[int, str]:
        name = mismatch[0]
        return next((i for i, end in enumerate(ends) if name.endswith(end)), len(ends)), name

    return min(mismatches, key=rank)


def unlike_sizes(folder: Path, name: str, in_file: Sequence[int], by_config: Sequence[int]) -> ConfigError:
    """The error for a tensor whose size is not that of config.json."""
    for end, axis, setting in _SETTINGS:
        if name.endswith(end) and len(in_file) == len(by_config) == 2 and in_file[axis] != by_config[axis]:
            what = f"has {setting}={by_config[axis]}, but its weights have {in_file[axis]} ({name})"
            if setting == "vocab_size":
                remedy = f"copy both from one model, or set vocab_size to {in_file[axis]} if the tokenizer has no more"
            else:
                remedy = "copy both from one model"
            return ConfigError(f"{folder}/config.json {what}; {remedy}")
    return ConfigError(
        f"{folder}: {name} is {list(in_file)} in its weights, but {list(by_config)} by its config.json; copy both from "
        "one model"
    )


def check_layers(folder: Path, unknown: Iterable[str], missing: Iterable[str], layers: int) -> None:
    """Check that the weights have as many layers as config.json says.

    Args:
        unknown: names of the file that the model does not have.
        missing: names of the model that the file does not have.
        layers: by config.json.

    Raises:
        ConfigError: they have more or fewer.
    """
    beyond = max(_layers(unknown), default=-1) + 1
    absent = sorted(layer for layer, tensors in _layers(missing).items() if tensors >= TENSORS_OF_A_LAYER)
    if beyond > layers:
        found = beyond
    elif absent and 0 < absent[0] == layers - len(absent):
        found = absent[0]
    else:
        return
    raise ConfigError(
        f"{folder}/config.json has num_hidden_layers={layers}, but its weights have {found}; copy both from one model, "
        f"or set it to {found}"
    )


def _layers(names: Iterable[str]) -> Counter[int]:
    """How many tensors each layer has among `names`."""
    return Counter(int(found[1]) for name in names if (found := _LAYER.search(name)))
