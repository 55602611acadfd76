"""A checkpoint folder of ours as a run leaves it, made from a model in memory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from spe_dist.config.loading import resolve, to_yaml
from spe_dist.config.pretraining import Config
from spe_dist.data.text.vocabulary import tokenizer_from_pieces
from spe_dist.distributed import checkpoint
from spe_dist.distributed.fragments.index import Entry, Index, Part, rank_file, write_index
from spe_dist.model.loading import load_encoder
from spe_dist.model.spe import PretrainingModel
from spe_dist.model.start.build import build_pretraining_model
from spe_dist.utils.files import file_sha256

WORDS = "Anna Berg moved from Lund to the city council of Oslo , where she now heads a small choir .".split()
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(WORDS) - {"council"}), "coun", "##cil", "##s", "x"]
SMALL = {
    "hidden_size": 32,
    "layers": 2,
    "attention_heads": 4,
    "intermediate_size": 48,
    "cnn_channels": 6,
    "span_size": 20,
    "attention_size": 16,
    "position_size": 5,
    "tbo_offset_size": 8,
    "tbo_offset_rows": 10,
    "contrastive_size": 24,
    "queue_keys": 8,
}


@dataclass
class Made:
    folder: Path  # the step folder
    run: Path
    config: Config
    model: PretrainingModel
    average: dict[str, Tensor]
    tokenizer: Any


def make_checkpoint(
    run: Path, step: int = 7, seed: int = 3, pooler_trained: bool = False, language: str = "auto", **settings: Any
) -> Made:
    """RUN/checkpoints/step_N with weights that no start value is left of, and an average unlike them."""
    config = resolve([SMALL, settings, {"output": str(run), "seed": seed}])
    tokenizer = tokenizer_from_pieces(PIECES, do_lower_case=False)
    loaded = load_encoder(None, config.model, len(tokenizer), seed)
    model = build_pretraining_model(config, loaded.encoder).eval()
    generator = torch.Generator().manual_seed(seed)

    def disturbed(tensor: Tensor) -> Tensor:
        return tensor.detach() + 0.1 * torch.randn(tensor.shape, generator=generator)

    model.load_state_dict({name: disturbed(tensor) for name, tensor in model.state_dict().items()})
    average = {name: disturbed(tensor) for name, tensor in model.spe.state_dict().items()}

    folder = run / "checkpoints" / f"step_{step:08d}"
    (folder / "start").mkdir(parents=True)
    sections = {"weights": model.state_dict(), **({"key_average": average} if config.objectives.cspo else {})}
    write_tensors(folder, {f"{section}/{n}": t for section, tensors in sections.items() for n, t in tensors.items()})
    (folder / "config.yaml").write_text(to_yaml(config))
    loaded.bert_config.to_json_file(str(folder / "start" / "config.json"))
    tokenizer.save_pretrained(str(folder / "start"))
    save_file(loaded.pooler_state, folder / "start" / "pooler.safetensors")
    note = {"encoder": None, "pooler_trained": pooler_trained, "language": language}
    (folder / "start" / "start.json").write_text(json.dumps(note))
    write_state(folder, step)
    (run / "checkpoints" / "latest").write_text(folder.name)
    return Made(folder, run, config, model, average, tokenizer)


def write_tensors(folder: Path, tensors: dict[str, Tensor]) -> None:
    """The tensors of a checkpoint as two ranks would write them, each with half of every one."""
    parts, index = [{}, {}], {}
    (folder / "tensors").mkdir()
    for name, tensor in tensors.items():
        flat = tensor.detach().contiguous().view(-1)
        half = flat.numel() // 2
        cut = [(0, flat[:half]), (half, flat[half:])]
        for part, (start, numbers) in zip(parts, cut, strict=True):
            part[f"{name}@{start}"] = numbers.clone()
        written = tuple(Part(rank_file(rank), start, numbers.numel()) for rank, (start, numbers) in enumerate(cut))
        index[name] = Entry(tensor.dtype, tuple(tensor.shape), tuple(part for part in written if part.numel))
    for rank, part in enumerate(parts):
        save_file(part, folder / "tensors" / rank_file(rank))
    write_index(folder / "tensors", Index(index, {"adam_step": 7, "adam_steps": {}}))


def write_state(folder: Path, step: int = 7) -> None:
    """state.json with the checksums of what lies in the folder now."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "state.json"]
    state = {
        "step": step,
        "ranks": 2,
        "zero_stage": 2,
        "precision": "bfloat16",
        "data": {"sentences_consumed": 128},
        "checksums": {str(file.relative_to(folder)): file_sha256(file) for file in files},
    }
    checkpoint.write_state(folder, state)
