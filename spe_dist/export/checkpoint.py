"""The parts of one of our training checkpoints. Neither DeepSpeed nor a launcher is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from spe_dist.config.loading import load_yaml, resolve
from spe_dist.config.pretraining import Config
from spe_dist.data.text.languages import known_language
from spe_dist.distributed.checkpoint import find_checkpoint, read_state
from spe_dist.distributed.fragments.engine import WEIGHTS
from spe_dist.distributed.fragments.index import INDEX_FILE
from spe_dist.distributed.fragments.tensors import read_whole
from spe_dist.errors import CheckpointError, ConfigError
from spe_dist.export.card import BASE_MODEL
from spe_dist.export.folder import load_tensors
from spe_dist.export.parts import POOLER, SPE, Encoder, Parts, PoolerOrigin, exported_settings, on_cpu, seeded_pooler
from spe_dist.moco.encoder import KEY_AVERAGE
from spe_dist.model.loading import read_bert_config
from spe_dist.utils.files import file_sha256, shared_name
from spe_dist.utils.hub import hub_name
from spe_dist.utils.reading.json_file import read_object
from spe_dist.utils.run_files import CONFIG_FILE, START_FOLDER, TENSORS_FOLDER

PUBLISHED = ("view_masks", "normalize", "temperature", "momentum", "learning_rate", "global_batch_sentences", "seed")


def read_checkpoint(source: str | Path, encoder: Encoder = "query") -> Parts:
    """The query's float32 masters, or with `encoder="key"` the average that is the momentum encoder.

    `source` is a step folder, a folder of checkpoints or a run's output folder (its latest checkpoint then). Every file
    that is read is compared with its checksum. Raises CheckpointError.
    """
    folder, state = find(Path(source))
    check_files(folder, state["checksums"], START_FOLDER, "config.json")
    config = _read_config(folder / CONFIG_FILE)
    if encoder == "key" and not config.objectives.cspo:
        raise CheckpointError(
            f"{folder} was trained with cspo=false and has no momentum encoder; export it with --encoder query"
        )
    weights = _read_average(folder) if encoder == "key" else on_cpu(read_whole(folder, WEIGHTS))
    bert_config = _read_bert_config(folder / START_FOLDER / "config.json")
    note = _read_note(folder / START_FOLDER)
    pooler, origin = _read_pooler(folder / START_FOLDER, note, weights, bert_config, config.train.seed)
    return Parts(
        weights=weights,
        settings=exported_settings(config) | _encoder_sizes(bert_config),
        bert_config=bert_config,
        pooler=pooler,
        pooler_origin=origin,
        tokenizer=folder / START_FOLDER,
        encoder=encoder,
        language=known_language(note.get("language")),
        facts=_facts(config, state, folder),
    )


def unfinished(source: str | Path) -> str:
    """In words how far the run of a checkpoint is, where it is not finished; else empty."""
    _, state = find(Path(source))
    step, steps = state["step"], state.get("total_steps", 0)
    return f"step {step:,} of {steps:,}" if step < steps else ""


def find(path: Path) -> tuple[Path, dict[str, Any]]:
    """The checkpoint's folder and its state.json; what else people may hand in gets an error of its own."""
    if path.is_file():
        raise CheckpointError(
            f"{path} is a file; give a checkpoint's folder (OUTPUT/checkpoints/step_N, or the run's OUTPUT). "
            "A file of the predecessor's code goes behind --from_pspe"
        )
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; give a checkpoint's folder or the run's OUTPUT")
    try:
        folder = find_checkpoint(path)
        return folder, read_state(folder)
    except CheckpointError as error:
        raise CheckpointError(f"{error}{_foreign(path)}") from None


def _foreign(path: Path) -> str:
    """What the folder is instead, for the error message."""
    if (path / "spe_config.json").exists():
        return ". It is an exported folder: already plain PyTorch, nothing to convert"
    if (path / "config.json").exists():
        return ". It is a folder of transformers: transformers.AutoModel loads it as it is"
    if (path / "zero_to_fp32.py").exists() or any(path.rglob("*_model_states.pt")):
        return ". DeepSpeed files without our checkpoint around them: convert those with DeepSpeed's zero_to_fp32.py"
    return ""


def check_files(folder: Path, checksums: dict[str, str], described_in: str, description: str) -> None:
    """Compare what an export reads with its checksums: the tensors, and a folder with what belongs to them."""
    folders = (f"{described_in}/", f"{TENSORS_FOLDER}/")
    needed = {CONFIG_FILE, f"{described_in}/{description}", f"{TENSORS_FOLDER}/{INDEX_FILE}"}
    needed |= {name for name in checksums if name.startswith(folders)}
    for name in sorted(needed):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is damaged: {name} is missing; use another checkpoint of the run")
        if name not in checksums:
            raise CheckpointError(f"{folder} is damaged: no checksum of {name}; use another checkpoint of the run")
        if file_sha256(folder / name) != checksums[name]:
            raise CheckpointError(
                f"{folder} is damaged: {name} does not match its checksum; use another checkpoint of the run"
            )


def _read_config(path: Path) -> Config:
    try:
        return resolve([load_yaml(path)])
    except ConfigError as error:
        raise CheckpointError(f"the settings of the checkpoint cannot be read: {error}") from None


def _read_average(folder: Path) -> dict[str, Tensor]:
    average = on_cpu(read_whole(folder, KEY_AVERAGE))
    if not average:
        raise CheckpointError(f"{folder} holds no momentum encoder; use another checkpoint")
    return {name if name.startswith(SPE) else f"{SPE}{name}": tensor for name, tensor in average.items()}


def _read_bert_config(path: Path) -> dict[str, Any]:
    try:
        return read_bert_config(path.parent).to_dict()
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def _read_note(start: Path) -> dict[str, Any]:
    file = start / "start.json"
    return read_object(file, "use another checkpoint of the run", CheckpointError) if file.is_file() else {}


def _read_pooler(
    start: Path, note: dict[str, Any], weights: dict[str, Tensor], bert_config: dict[str, Any], seed: int
) -> tuple[dict[str, Tensor], PoolerOrigin]:
    """The pooler that is carried beside the weights (none where SPE trained it), and where it is from."""
    if any(name.startswith(POOLER) for name in weights):
        return {}, "trained"
    if not (start / "pooler.safetensors").is_file():
        return seeded_pooler(bert_config, seed), "untrained"
    pooler = {f"pooler.{name}": t.float() for name, t in load_tensors(start / "pooler.safetensors").items()}
    return pooler, "start" if note.get("pooler_trained") else "untrained"


def _encoder_sizes(bert_config: dict[str, Any]) -> dict[str, int]:
    """ModelConfig's own sizes describe random starts only; the export has those of its own encoder."""
    return {
        "hidden_size": bert_config["hidden_size"],
        "layers": bert_config["num_hidden_layers"],
        "attention_heads": bert_config["num_attention_heads"],
        "intermediate_size": bert_config["intermediate_size"],
    }


def _facts(config: Config, state: dict[str, Any], folder: Path) -> dict[str, Any]:
    values = {name: value for section in vars(config).values() for name, value in vars(section).items()}
    trained: dict[str, Any] = {n: state[n] for n in ("step", "precision", "zero_stage", "ranks") if n in state}
    consumed = state.get("data", {}).get("sentences_consumed")
    return {
        **trained,
        **({"sentences_consumed": consumed} if consumed is not None else {}),
        "checkpoint": folder.name,
        "start_encoder": shared_name(config.model.encoder) if config.model.encoder else "random weights",
        **({BASE_MODEL: base} if (base := hub_name(config.model.encoder)) else {}),
        **{name: values[name] for name in PUBLISHED},
    }
