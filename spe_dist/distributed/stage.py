"""The ZeRO stage of a run: the DeepSpeed config's, or 0 where one rank has nothing to share.

ZeRO keeps float32 masters beside the weights and copies gradients into flat buffers. Where one rank trains alone and
its weights are in float32 already, both are second copies without a use; stage 0 updates the weights themselves.
"""

from __future__ import annotations

from typing import Any

from spe_dist.distributed.deepspeed_config import Precision, has_float32_weights

# Of a section "zero_optimization": what says how ranks share, or how gradients are bucketed for that.
ONLY_FOR_SHARING = {
    "stage",
    "allgather_bucket_size",
    "allgather_partitions",
    "contiguous_gradients",
    "ignore_unused_parameters",
    "overlap_comm",
    "reduce_bucket_size",
    "reduce_scatter",
    "round_robin_gradients",
    "use_multi_rank_bucket_allreduce",
}


def choose_stage(
    ds_config: dict[str, Any], precision: Precision, ranks: int, keep: bool = False
) -> tuple[dict[str, Any], str | None]:
    """The complete DeepSpeed config with the stage that the run takes, and a line on it where that needs a reason.

    Args:
        ds_config: a complete DeepSpeed config.
        precision: of the run.
        ranks: of the run.
        keep: take the config's stage in any case (setting `keep_zero_stage`).
    """
    zero = ds_config["zero_optimization"]
    asked: int = zero["stage"]
    if not (ranks == 1 and has_float32_weights(precision) and asked in (1, 2) and not keep):
        return ds_config, None
    if needs := _what_needs_zero(zero):
        return ds_config, f"ZeRO: stage {asked} stays for {', '.join(needs)} of the DeepSpeed config"
    reason = (
        f"ZeRO: stage 0 in place of {asked}, as one rank with weights in float32 has nothing to share "
        f"(--keep_zero_stage true keeps {asked})"
    )
    return {**ds_config, "zero_optimization": {"stage": 0}}, reason


def _what_needs_zero(zero: dict[str, Any]) -> list[str]:
    """Settings of a section "zero_optimization" that do something on one rank too."""
    needs = []
    for name, value in zero.items():
        off = not value or (isinstance(value, dict) and value.get("device") == "none")
        if not off and name not in ONLY_FOR_SHARING and not name.startswith("stage3_"):
            needs.append(f"zero_optimization.{name}")
    return needs
