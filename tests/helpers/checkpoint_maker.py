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
from spe_dist.model.loading import load_encoder
from spe_dist.model.spe import PretrainingModel, build_pretraining_model
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


def make_checkpoint(run: Path, step: int = 7, seed: int = 3, pooler_trained: bool = False, **settings: Any) -> Made:
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
    (folder / "engine").mkdir()
    (folder / "engine" / "mp_rank_00_model_states.pt").write_bytes(b"not read by the converter")
    save_file({n: tensor.contiguous() for n, tensor in model.state_dict().items()}, folder / "weights.safetensors")
    (folder / "config.yaml").write_text(to_yaml(config))
    if config.objectives.cspo:
        torch.save({"average": average, "compensation": {n: t * 0 for n, t in average.items()}}, folder / "moco.pt")
    loaded.bert_config.to_json_file(str(folder / "start" / "config.json"))
    tokenizer.save_pretrained(str(folder / "start"))
    save_file(loaded.pooler_state, folder / "start" / "pooler.safetensors")
    (folder / "start" / "start.json").write_text(json.dumps({"encoder": None, "pooler_trained": pooler_trained}))
    write_state(folder, step)
    (run / "checkpoints" / "latest").write_text(folder.name)
    return Made(folder, run, config, model, average, tokenizer)


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
    (folder / "state.json").write_text(json.dumps(state))
