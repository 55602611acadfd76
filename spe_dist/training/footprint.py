"""How much memory and disk a training takes, for `--dry_run`: arithmetic for weights, a measured forward for the rest.

What a backward pass needs of its forward is measured on a few sentences and scaled by the word pieces of a micro-batch,
so it holds for any network. Everything is for one rank, in bytes. The figures are estimates: allocators round up and
fragment, and a long sentence may fall into one micro-batch with others of its kind.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spe_dist.distributed.deepspeed_config import DEFAULT_BUCKET_ELEMENTS, DTYPES, Precision
from spe_dist.model.encoder import Layers

GIB = 2**30
ADAM_BYTES = 8  # two moments in float32
MASTER_BYTES = 4
GRADIENT_BYTES = 4  # they are accumulated in float32 (`grad_accum_dtype`)
# Peak of forward and backward over what autograd saves: gradients of activations, and blocks that the allocator keeps.
# Measured on a CPU with 6 layers x 384 and 1,210 and 4,893 pieces: 1.78 and 1.68 with a heap that keeps what is freed,
# 1.35 and 1.20 in the first step, which is nearer to a GPU's allocator.
BACKWARD_FACTOR = {"cpu": 1.75, "cuda": 1.35}
ENGINE_PROCESS_BYTES = 90 << 20  # DeepSpeed and TensorBoard, which a dry run does not load


def engine_memory(
    parameters: int, ds_config: Mapping[str, Any], precision: Precision, ranks: int, device_type: str = "cuda"
) -> dict[str, int]:
    """What ZeRO takes on one rank at the peak of a step, by what it is.

    The terms are those that DeepSpeed 0.19 allocates on CPU ranks (tests/distributed/test_memory_formula.py).

    Args:
        parameters: of the trained model.
        ds_config: a complete DeepSpeed config, fitted to the model; its stage says what is sharded over the ranks.
        precision: of the working weights.
        ranks: of the run.
        device_type: whose memory is asked for: of "cuda" what is offloaded takes none.
    """
    zero = ds_config["zero_optimization"]
    stage, width = zero["stage"], DTYPES[precision].itemsize
    if stage == 0:  # the masters are the weights
        held = {"weights": width, "gradients": GRADIENT_BYTES, "moments": ADAM_BYTES}
        return {name: size * parameters for name, size in held.items()}
    shard = -(-parameters // ranks)
    bucket = min(parameters, zero.get("reduce_bucket_size", parameters)) if ranks > 1 else 0
    offloaded = (zero.get("offload_optimizer") or {}).get("device", "none") != "none"
    there = not offloaded or device_type == "cpu"
    memory = {
        "weights": width * (parameters if stage < 3 else shard),
        "gradients": _gradient_bytes(parameters, shard, stage, precision, ranks),
        "masters": MASTER_BYTES * shard * there,
        "moments": ADAM_BYTES * shard * there,
        "bucket": width * bucket,
        "gradients being sent": _sent_bytes(parameters, bucket, stage, precision, ranks),
    }
    if offloaded and device_type == "cpu":  # gradients wait beside the masters, at stage 2 the new weights too
        memory["copies for the offloaded optimizer"] = (GRADIENT_BYTES + (width if stage < 3 else 0)) * shard
    if stage == 3:
        memory["gathered weights"] = width * min(parameters, int(zero.get("stage3_max_live_parameters", 10**9)))
        copied = GRADIENT_BYTES * min(shard, int(zero.get("sub_group_size", 10**9)))  # once those two are freed
        memory["gradients being applied"] = max(0, copied - memory["gathered weights"] - memory["gradients being sent"])
    return memory


def _gradient_bytes(parameters: int, shard: int, stage: int, precision: Precision, ranks: int) -> int:
    width = DTYPES[precision].itemsize
    if stage > 1:
        return GRADIENT_BYTES * shard + (width * parameters if ranks == 1 else 0)
    if precision == "bfloat16":  # each rank sums all of them up in float32
        return (GRADIENT_BYTES + width) * parameters
    return width * parameters + (GRADIENT_BYTES * shard if width < GRADIENT_BYTES else 0)


def _sent_bytes(parameters: int, bucket: int, stage: int, precision: Precision, ranks: int) -> int:
    """Of the copies that gradients are sent from, beside the bucket that they are collected in."""
    width = DTYPES[precision].itemsize
    if stage == 1:  # in bfloat16 all at once, in both types and without a bucket
        both = (GRADIENT_BYTES + width) * min(parameters, DEFAULT_BUCKET_ELEMENTS) - width * bucket
        return both if precision == "bfloat16" and ranks > 1 else 0
    cast = GRADIENT_BYTES * -(-bucket // ranks) if stage == 3 and width < GRADIENT_BYTES else 0
    return width * bucket + cast


def saved_activations(model: nn.Module, forward: Callable[[], Any]) -> int:
    """Bytes that a backward pass needs of `forward()`, which runs `model`: what autograd saves, and the outputs twice.

    The outputs count twice because a loss keeps what it makes of them. Weights are not counted.
    """
    own = {_identity(parameter) for parameter in model.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _identity(tensor) not in own:
            saved[_identity(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = forward()  # alive until the end, so that no identity is given out twice
    return sum(saved.values()) + 2 * sum(tensor.nbytes for tensor in _tensors(outputs))


def activations(model: nn.Module, layers: Layers, forward: Callable[[], Any]) -> int:
    """`saved_activations`, and where `layers` recompute theirs, those of the one that the backward pass is at."""
    kept = saved_activations(model, forward)
    if not layers.recompute:
        return kept
    layers.recompute = False
    whole = saved_activations(model, forward)
    layers.recompute = True
    return kept + (whole - kept) // len(layers.layer)


def _identity(tensor: Tensor) -> int:
    """Of the memory beneath a tensor, on the device `meta` too, where there is none."""
    return tensor.untyped_storage()._cdata


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif dataclasses.is_dataclass(value):
        for part in dataclasses.fields(value):
            yield from _tensors(getattr(value, part.name))
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)


def rank_memory(held: Mapping[str, int], saved: int, device_type: str, process: int) -> dict[str, int]:
    """The memory of a rank by what takes it.

    Args:
        held: what is there all the time, such as `engine_memory`.
        saved: what autograd saves for the backward pass of a micro-batch.
        device_type: "cuda" or "cpu".
        process: what Python and its libraries take, which counts on a CPU.
    """
    passes = int(saved * BACKWARD_FACTOR[device_type])
    if device_type == "cuda":
        return {**held, "forward and backward": passes}
    return {**held, "forward and backward": passes, "the process itself": process + ENGINE_PROCESS_BYTES}


def memory_line(parts: Mapping[str, int], device_type: str) -> str:
    """The estimate in words."""
    total = sum(parts.values())
    listed = ", ".join(f"{name} {_size(size)}" for name, size in parts.items() if size)
    where = "of a GPU (beside about 0.5 GiB of CUDA itself)" if device_type == "cuda" else "of main memory"
    return f"memory: about {_size(total)} a rank {where}: {listed}"


def saving_lines(checkpoint: int, ranks: int, background: bool) -> list[str]:
    """What saving in the background takes of main memory, on any device: a copy of a rank's share."""
    if not background:
        return []
    copy = _size(-(-checkpoint // ranks))
    return [f"saving: a copy of about {copy} a rank in main memory while a checkpoint is written (background_saving)"]


def disk_line(checkpoint: int, keep: int, output: str) -> str:
    """What the checkpoints of a run take, beside what is free where they go."""
    folder = Path(output).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    needed = checkpoint * (keep + 1)  # the next one is written before the oldest goes
    verdict = "" if needed < free else ": TOO LITTLE, lower keep_checkpoints or choose another --output"
    return (
        f"disk: a checkpoint about {_size(checkpoint)}, {keep} kept and one being written {_size(needed)}; "
        f"{_size(free)} free in {folder}{verdict}"
    )


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:,.1f} MiB"
