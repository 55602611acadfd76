"""A DeepSpeed JSON file made whole: every "auto" filled in from our config, every contradiction an error.

Users know "auto" from transformers: what depends on the machine (precision) or is set by our config (batch,
accumulation, clipping) stands there once. Imports no deepspeed.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from spe_dist.config.deepspeed_files import find_deepspeed_config
from spe_dist.config.pretraining import Config
from spe_dist.config.shared import EngineSettings, check_batch_divides
from spe_dist.errors import ConfigError
from spe_dist.utils.reading.json_file import is_number, is_whole, read_json, shown
from spe_dist.utils.wording import how_many

Precision = Literal["float16", "bfloat16", "mixed", "float32"]
DEFAULT_BUCKET_ELEMENTS = 500_000_000  # DeepSpeed's reduce_bucket_size
LARGE_MODEL = 500_000_000  # parameters from which stage 3 does not keep what it has gathered
STAGE3_LIVE = 100_000_000  # gathered parameters that it keeps then
STAGE3_SUB_GROUP = 50_000_000  # parameters of a rank's share that it updates at once then
MAX_FILE_BYTES = 1 << 20
BATCH_KEYS = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "steps_per_print")
NUMBERS = ("gradient_clipping", "bucket_size", "live_parameters", "reuse_distance", "persistence_threshold")
DTYPES: dict[Precision, torch.dtype] = {  # of the weights that the forward uses
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "mixed": torch.float32,
    "float32": torch.float32,
}


@dataclass(frozen=True)
class BatchPlan:
    """How a global batch is cut: ranks x accumulation x micro-batch = global batch, all in sentences."""

    global_batch: int
    ranks: int
    accumulation: int
    micro_batch: int
    setting: str = "global_batch_sentences"  # that gives the global batch

    def __str__(self) -> str:
        return (
            f"{self.global_batch} sentences a step = {how_many(self.ranks, 'rank')} x {self.accumulation} accumulated "
            f"x {self.micro_batch} a micro-batch"
        )


def plan_batches(config: Config, ranks: int, device_type: str) -> BatchPlan:
    """The cut of the global batch.

    Raises:
        ConfigError: it does not divide.
    """
    global_batch, micro_batch = config.train.global_batch_sentences, config.train.micro_batch_sentences
    check_batch_divides("global_batch_sentences", global_batch, ranks)
    share = global_batch // ranks
    if micro_batch == 0:
        limit = share if device_type == "cuda" else 32
        micro_batch = max(size for size in range(1, min(limit, share) + 1) if share % size == 0)
    check_batch_divides("global_batch_sentences", global_batch, ranks, micro_batch)
    return BatchPlan(global_batch, ranks, share // micro_batch, micro_batch)


def load_deepspeed_config(name: str | None) -> dict[str, Any]:
    """The content of a JSON file, given by its path or by the name of one that the package brings.

    `None` gives ZeRO stage 1 with everything "auto".

    Raises:
        ConfigError: where there is no such file, or it is no DeepSpeed config.
    """
    if name is None:
        return {"zero_optimization": {"stage": 1}}
    path = find_deepspeed_config(name)
    what = f"DeepSpeed config {path}"
    try:
        content = read_json(path, "correct it or give another", ConfigError, MAX_FILE_BYTES, what, from_pipe=True)
    except FileNotFoundError:
        raise ConfigError(f"{what} does not exist; give another") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{what} must hold a JSON object")
    _check_sections(content, what)
    return content


def _check_sections(content: dict[str, Any], what: str) -> None:
    """Check the parts of a DeepSpeed config that this program reads: their kinds, and numbers that are numbers."""
    zero = content.get("zero_optimization", {})
    sections = {name: content.get(name, {}) for name in ("fp16", "bf16", "zero_optimization", "data_types", "timers")}
    if isinstance(zero, dict):
        sections |= {name: zero.get(name) or {} for name in ("offload_optimizer", "offload_param")}
    if "torch_autocast" in content:  # DeepSpeed would import the modules that it names
        raise ConfigError(f'{what}: "torch_autocast" has no place here; remove it and set precision=mixed or another')
    for name, section in sections.items():
        if not isinstance(section, dict):
            raise ConfigError(f'{what}: "{name}" must be an object such as {{"enabled": "auto"}}, not {shown(section)}')
    for name, values in (("", content), *sections.items()):
        for key, value in values.items():
            place = f'{what}: "{name}.{key}"' if name else f'{what}: "{key}"'
            if key in BATCH_KEYS and value != "auto" and not is_whole(value, 1):
                raise ConfigError(f"{place} is {shown(value)}; give a whole number above 0, or auto")
            if key.endswith(NUMBERS) and value != "auto" and not is_number(value, 0, 1e18):
                raise ConfigError(f"{place} is {shown(value)}; give a number from 0 on, or auto")
            if key == "enabled" and name in ("fp16", "bf16") and value != "auto" and not isinstance(value, bool):
                raise ConfigError(f"{place} is {shown(value)}; give true, false or auto")
            if key == "device" and not isinstance(value, str | None):
                raise ConfigError(f"{place} is {shown(value)}; give cpu, nvme or none")


def choose_precision(
    config: EngineSettings, ds_config: dict[str, Any], device_type: str, fast_cpu: Precision = "bfloat16"
) -> Precision:
    """float16 on a GPU, `fast_cpu` on a CPU that has bfloat16, else float32, unless a file asks for another."""
    asked = {
        name: ds_config.get(key, {}).get("enabled", "auto") for name, key in (("float16", "fp16"), ("bfloat16", "bf16"))
    }
    wanted = [name for name, enabled in asked.items() if enabled is True]
    ours = config.train.precision
    if len(wanted) > 1:
        raise ConfigError('the DeepSpeed config enables fp16 and bf16; set one of them to false or both to "auto"')
    if ours != "auto":
        if wanted and wanted[0] != ours:
            raise _contradiction("precision", ours, f"{_SECTION[wanted[0]]}.enabled", True)
        if ours in asked and asked[ours] is False:
            raise _contradiction("precision", ours, f"{_SECTION[ours]}.enabled", False)
        chosen: str = ours
    elif wanted:
        chosen = wanted[0]
    else:
        automatic = "float16" if device_type == "cuda" else fast_cpu if cpu_has_bfloat16() else "float32"
        refused = asked.get("bfloat16" if automatic == "mixed" else automatic) is False
        chosen = "float32" if refused else automatic
    if chosen == "float16" and device_type == "cpu":
        raise ConfigError("precision=float16: DeepSpeed refuses float16 on a CPU; choose bfloat16, float32 or auto")
    return chosen  # type: ignore[return-value]


def has_float32_weights(precision: Precision) -> bool:
    """Whether the forward uses the masters themselves."""
    return DTYPES[precision] == torch.float32


def product_dtype(precision: Precision) -> torch.dtype | None:
    """Type of the encoder's matrix products where it is not the weights' (`PackedBertEncoder.product_dtype`)."""
    return torch.bfloat16 if precision == "mixed" else None


def check_same_precision(by_rank: Sequence[str]) -> None:
    """Ranks on unlike machines may choose differently, and would then wait for each other endlessly: a ConfigError."""
    found = sorted(set(by_rank))
    if len(found) > 1:
        ranks = "; ".join(f"{name} on ranks {[r for r, p in enumerate(by_rank) if p == name]}" for name in found)
        raise ConfigError(f"precision=auto gives {ranks}, as their machines differ; set precision to one for all")


_SECTION = {"float16": "fp16", "bfloat16": "bf16"}


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (AVX-512 BF16, AMX or ARM's)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    line = next((row for row in flags.splitlines() if row.lower().startswith(("flags", "features"))), "")
    words = set(line.split())
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def complete(
    ds_config: dict[str, Any], config: EngineSettings, plan: BatchPlan, precision: Precision
) -> dict[str, Any]:
    """The DeepSpeed config with every "auto" filled in. Raises ConfigError naming both sides of a contradiction."""
    done = copy.deepcopy(ds_config)
    for section in ("optimizer", "scheduler"):
        if section in done:
            raise ConfigError(
                f"the DeepSpeed config has a section {section!r}, but AdamW and its schedule are set by learning_rate, "
                "warmup_steps, weight_decay and the other settings of this program; remove the section"
            )
    zero = done.setdefault("zero_optimization", {})
    stage = zero.setdefault("stage", 1)
    if not is_whole(stage, 1, 3) and not (stage == 0 and plan.ranks == 1 and has_float32_weights(precision)):
        raise ConfigError(
            f"zero_optimization.stage={shown(stage)}: choose 1, 2 or 3 (stage 0 is for one rank with float32 weights: "
            "with weights in bfloat16 it computes a wrong first update)"
        )
    _fill(done, "train_batch_size", plan.global_batch, plan.setting)
    _fill(done, "train_micro_batch_size_per_gpu", plan.micro_batch, "micro_batch_sentences")
    _fill(done, "gradient_accumulation_steps", plan.accumulation, "the accumulation that the batch settings give")
    _fill(done, "gradient_clipping", config.optimizer.max_grad_norm, "max_grad_norm")
    done.setdefault("fp16", {})["enabled"] = precision == "float16"
    done.setdefault("bf16", {})["enabled"] = precision == "bfloat16"
    done.setdefault("data_types", {})
    _fill(done["data_types"], "grad_accum_dtype", "fp32", "accumulation in float32")
    done.setdefault("steps_per_print", 10**9)
    done.setdefault("wall_clock_breakdown", False)
    done.setdefault("timers", {}).setdefault("throughput", {"enabled": False})  # it waits for the device twice a batch
    if (zero.get("offload_optimizer") or {}).get("device", "none") != "none":
        done.setdefault("zero_force_ds_cpu_optimizer", False)
    _refuse_left_over_auto(done)
    return done


def fit_to_model(ds_config: dict[str, Any], parameters: int) -> dict[str, Any]:
    """The config with sizes that fit a model of so many parameters, and limits of stage 3 for one that is large.

    DeepSpeed allocates its bucket for gradients whole in every micro-batch, by default 500 million elements (2 GB in
    float32), twice with overlap_comm: it is no larger than all of the model's. By default stage 3 keeps up to a billion
    gathered weights, so that none is gathered again for the backward pass; for a large model, where that would be most
    of it or all, `STAGE3_LIVE`. Stage 3 also copies the gradients of as much of a rank's share as it updates at once,
    by default up to a billion: `STAGE3_SUB_GROUP`.
    """
    zero = dict(ds_config["zero_optimization"])
    zero["reduce_bucket_size"] = min(zero.get("reduce_bucket_size", DEFAULT_BUCKET_ELEMENTS), max(parameters, 1))
    if zero["stage"] == 3 and parameters >= LARGE_MODEL:
        for limit in ("stage3_max_live_parameters", "stage3_max_reuse_distance"):
            zero.setdefault(limit, STAGE3_LIVE)
        zero.setdefault("sub_group_size", STAGE3_SUB_GROUP)
    return {**ds_config, "zero_optimization": zero}


def _fill(section: dict[str, Any], key: str, value: Any, ours: str) -> None:
    given = section.get(key, "auto")
    if given != "auto" and given != value:
        raise _contradiction(ours, value, key, given)
    section[key] = value


def _contradiction(ours: str, value: Any, key: str, given: Any) -> ConfigError:
    return ConfigError(
        f"{ours}={value} contradicts {key}={shown(given)} of the DeepSpeed config; "
        f'change one of them, or write "{key.split(".")[-1]}": "auto" there'
    )


def _refuse_left_over_auto(section: Any, path: str = "") -> None:
    if isinstance(section, dict):
        for key, value in section.items():
            _refuse_left_over_auto(value, f"{path}.{key}" if path else key)
    elif section == "auto":
        name = " ".join(path[:80].split())
        raise ConfigError(f'{name}="auto" of the DeepSpeed config is not filled in by this program; give a value')
