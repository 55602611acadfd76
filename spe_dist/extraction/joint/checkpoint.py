"""A checkpoint of a fine-tuning as a fine-tuned folder: its float32 masters, in one process without ranks.

What the weights do not tell (labels, settings, tokenizer) lies beside them in the checkpoint's folder `extractor`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spe_dist.data.text.vocabulary import load_tokenizer
from spe_dist.distributed.fragments.engine import WEIGHTS
from spe_dist.distributed.fragments.tensors import read_whole
from spe_dist.errors import CheckpointError
from spe_dist.export.checkpoint import check_files, find
from spe_dist.export.folder import EXTRACTOR, LABELS, read_json, write_json
from spe_dist.export.loading import spe_model_of
from spe_dist.export.parts import SPE, on_cpu, parts_of
from spe_dist.extraction.corpora.corpus import Labels
from spe_dist.extraction.joint.folder import joint_model, network_parts, read_labels, save_extractor, write_labels
from spe_dist.extraction.joint.model import JointModel
from spe_dist.utils.files import check_free_name
from spe_dist.utils.run_files import DESCRIPTION_FOLDER

DESCRIPTION = "description.json"


@dataclass(frozen=True)
class Description:
    """What a fine-tuned model is made of beside its weights; `settings` and `facts` as `save_extractor` takes them."""

    bert_config: Mapping[str, Any]
    tokenizer: Any
    labels: Labels
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    steps_per_epoch: int

    def write(self, checkpoint: Path) -> None:
        """Write it into a checkpoint."""
        folder = checkpoint / DESCRIPTION_FOLDER
        folder.mkdir()
        self.tokenizer.save_pretrained(str(folder))
        write_labels(self.labels, folder / LABELS)
        names = ("bert_config", "settings", "facts", "steps_per_epoch")
        write_json(folder / DESCRIPTION, {name: getattr(self, name) for name in names})

    @classmethod
    def read(cls, checkpoint: Path) -> Description:
        """That of a checkpoint. Raises CheckpointError."""
        folder = checkpoint / DESCRIPTION_FOLDER
        document = read_json(folder / DESCRIPTION)
        try:
            values = {name: dict(document[name]) for name in ("bert_config", "settings", "facts")}
            steps = max(1, int(document["steps_per_epoch"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder / DESCRIPTION} is incomplete ({error!r}); use another checkpoint") from None
        labels = read_labels(folder / LABELS)
        return cls(tokenizer=load_tokenizer(folder), labels=labels, steps_per_epoch=steps, **values)


def is_fine_tuning(source: Path) -> bool:
    """Whether a checkpoint, a folder of some or a run's output is a fine-tuning's. Raises CheckpointError."""
    return "best" in find(source)[1]


def export_extractor(source: Path, output: Path, overwrite: bool) -> tuple[str, int]:
    """Write the fine-tuned folder of a checkpoint: the checkpoint's name and how many weights it has.

    Raises:
        CheckpointError: the checkpoint is damaged, or `output` would be destroyed.
    """
    folder, state = find(source)
    check_files(folder, state["checksums"], DESCRIPTION_FOLDER, DESCRIPTION)
    check_free_name(output, overwrite, EXTRACTOR)
    description = Description.read(folder)
    weights = on_cpu(read_whole(folder, WEIGHTS))
    of_spe = {name: value for name, value in weights.items() if name.startswith(SPE)}
    heads = {name: value for name, value in weights.items() if not name.startswith(SPE)}
    settings = description.settings
    parts = parts_of(of_spe, dict(description.bert_config), network_parts(settings), description.tokenizer)
    model = joint_model(spe_model_of(parts), description.labels, settings, parts.config.model.dropout)
    _fill_heads(model, heads)
    facts = {**description.facts, "epoch": state["step"] // description.steps_per_epoch, "checkpoint": folder.name}
    save_extractor(output, model, description.tokenizer, description.labels, settings, facts)
    return folder.name, sum(value.numel() for value in weights.values())


def _fill_heads(model: JointModel, heads: Mapping[str, Any]) -> None:
    expected = {name for name in model.state_dict() if not name.startswith(SPE)}
    if expected != heads.keys():
        raise CheckpointError(f"the checkpoint's weights do not fit its labels and settings: {expected ^ heads.keys()}")
    model.load_state_dict(heads, strict=False)
    model.eval()
