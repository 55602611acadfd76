"""A model that is sharded while it is built: at ZeRO's stage 3 no rank ever holds all of it.

DeepSpeed's own context for this (`zero.Init`) casts what is drawn to 16 bits first, and gives modules empty weights to
those who draw start values after the constructor. Here every rank draws a module's weights in float32 as it would
without sharding, from the same seed, hands them to DeepSpeed and keeps its part: the weights are those of any other
stage and number of ranks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from spe_dist.distributed.context import RankContext
from spe_dist.distributed.deepspeed_config import DTYPES, Precision
from spe_dist.distributed.engine import import_deepspeed
from spe_dist.model.start.assembly import kept_by


def sharded_start(
    ds_config: Mapping[str, Any], precision: Precision, context: RankContext
) -> AbstractContextManager[None]:
    """The context in which a model for an engine of this config is built; it does nothing below stage 3."""
    if ds_config["zero_optimization"]["stage"] < 3:
        return nullcontext()
    return kept_by(Stage3Keeper(ds_config, precision, context))


class Stage3Keeper:
    """Hands parameters to DeepSpeed, which leaves each rank a part of them in the run's type."""

    def __init__(self, ds_config: Mapping[str, Any], precision: Precision, context: RankContext) -> None:
        self._ds_config = dict(ds_config)
        self._dtype = DTYPES[precision]
        self._device = context.device
        self._deepspeed = import_deepspeed(context.device.type)
        self._first: Any = None  # a parameter that DeepSpeed has

    def keep(self, module: nn.Module) -> None:
        new = [p for p in module.parameters() if not (p.is_meta or hasattr(p, "ds_id"))]
        if not new:
            return
        for parameter in new:
            parameter.data = parameter.data.to(self._dtype)
        if self._first is None:
            os.environ.setdefault("LOCAL_RANK", str(self._device.index or 0))
            self._deepspeed.init_distributed(dist_init_required=False)
            self._deepspeed.zero.Init(
                module=nn.ParameterList(new), config_dict_or_path=self._ds_config, dtype=self._dtype
            )
            self._first = new[0]
        else:
            self._first.convert_to_zero_parameters(param_list=new)

    @contextmanager
    def whole(self, module: nn.Module) -> Iterator[None]:
        own: list[Any] = [p for p in module.parameters(recurse=False) if hasattr(p, "ds_id")]
        for parameter in own:
            parameter.data = torch.empty(parameter.ds_shape)
        yield
        for parameter in own:
            parameter.data = parameter.data.to(self._device, self._dtype)
            parameter.ds_status = type(parameter.ds_status).AVAILABLE
            parameter.partition(has_been_updated=True)

    def read(self, module: nn.Module) -> dict[str, Tensor]:
        own = dict(module.named_parameters(recurse=False))
        with self._deepspeed.zero.GatheredParameters([p for p in own.values() if hasattr(p, "ds_id")]):
            return {name: parameter.detach().clone() for name, parameter in own.items()}
