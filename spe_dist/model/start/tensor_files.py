"""The weights of a BERT folder tensor by tensor, from its safetensors files, by the names of transformers' BertModel.

For models that no process should hold whole: a file is mapped into memory, and one tensor of it is read at a time.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from spe_dist.errors import ConfigError
from spe_dist.utils.reading.json_file import read_object
from spe_dist.utils.wording import one_line

ONE_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
PREFIX = "bert."  # of the encoder in a checkpoint with heads
OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}  # of checkpoints from 2018


class TensorFiles:
    """The safetensors files of a folder. `names`: tensor names by BertModel's names for them."""

    def __init__(self, folder: Path) -> None:
        """Reads names only.

        Raises:
            ConfigError: a file is missing or damaged.
        """
        self.folder = folder
        self._files: dict[str, str] = {}  # by the tensors' own names
        for file in self._list():
            with self._open(file) as tensors:
                self._files |= dict.fromkeys(tensors.keys(), file)
        self.names = {_bert_name(name): name for name in self._files}

    @staticmethod
    def are_in(folder: Path) -> bool:
        """Whether a folder has its weights in such files."""
        return (folder / ONE_FILE).is_file() or (folder / INDEX).is_file()

    def read(self, name: str) -> Tensor:
        """One tensor by BertModel's name, in float32.

        Raises:
            ConfigError: its file is damaged, or a number in it is not finite.
        """
        own = self.names[name]
        file = self.folder / self._files[own]
        with self._open(self._files[own]) as tensors:
            try:
                tensor = tensors.get_tensor(own).to(torch.float32)
            except (SafetensorError, RuntimeError, ValueError) as error:
                raise ConfigError(f"cannot read {file}: {one_line(error)}; fetch the encoder again") from None
        if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
            raise ConfigError(f"{file}: {own} holds numbers that are not finite; fetch the encoder again")
        return tensor

    def _list(self) -> list[str]:
        if (self.folder / ONE_FILE).is_file():
            return [ONE_FILE]
        try:
            named = read_object(self.folder / INDEX, "fetch the encoder again", ConfigError)["weight_map"].values()
            files = sorted({str(Path(file).name) for file in named})
        except (OSError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{self.folder / INDEX} is damaged: {one_line(error)}; fetch it again") from None
        missing = [file for file in files if not (self.folder / file).is_file()]
        if missing:
            raise ConfigError(f"{self.folder} lacks {missing[0]}, which {INDEX} names; fetch the encoder again")
        return files

    def _open(self, file: str) -> safe_open:
        try:
            return safe_open(self.folder / file, framework="pt")
        except (OSError, MemoryError, SafetensorError) as error:
            raise ConfigError(f"cannot read {self.folder / file}: {one_line(error)}; fetch the encoder again") from None


def _bert_name(name: str) -> str:
    name = name.removeprefix(PREFIX)
    for old, new in OLD_NAMES.items():
        name = f"{name.removesuffix(old)}{new}" if name.endswith(old) else name
    return name
