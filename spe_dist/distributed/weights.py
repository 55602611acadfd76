"""Where DeepSpeed keeps the float32 master weights, as sources that the key encoder's average follows.

The average follows the masters, not the 16-bit weights: an optimizer step often changes a weight by less than half of
what 16 bits resolve (2^-11 of it in float16, 2^-8 in bfloat16), so the weights that the forward uses stand still
while the masters learn. In a float32 run both are the same.

A source is read on the rank that owns the numbers, without communication; see `spe_dist.moco.WeightSource`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from spe_dist.moco.layout import FlatLayout, Interval, PlainWeights, WeightSource, even_split


class Zero12Masters:
    """Stages 1 and 2: the float32 fragments of this rank's optimizer partition, as views.

    With the optimizer offloaded they lie on the CPU. DeepSpeed gives access to them only through the private
    `_hp_mapping`, None where this rank owns no part of the parameter. It may link them again when it loads a
    checkpoint, so they are looked up at each read.
    """

    def __init__(self, module: nn.Module) -> None:
        layout = FlatLayout.of(module)
        mappings = {name: (p, _mapping(name, p)) for name, p in module.named_parameters()}
        owned = [(name, p, mapping) for name, (p, mapping) in mappings.items() if mapping is not None]
        # Neighbours of a flat group are read as one piece. Not by address: groups may lie in any order in memory.
        owned.sort(key=lambda part: (part[2].param_group_index, part[2].get_hp_fragment_address().start))
        self._owned: list[Any] = [parameter for _, parameter, _ in owned]
        addresses = [(name, mapping.lp_fragment_address) for name, _, mapping in owned]
        self.intervals = [Interval(layout.slots[name].offset + a.start, a.numel) for name, a in addresses]

    def pieces(self) -> list[Tensor]:
        fragments = (parameter._hp_mapping.get_hp_fragment() for parameter in self._owned)
        return [fragment.detach().view(-1) for fragment in fragments]


class Zero3Masters:
    """Stage 3: this rank's float32 partition of each parameter, without the padding at its end.

    Rank r of N holds numbers r * ceil(numel / N) and following. DeepSpeed returns them on the accelerator also when the
    optimizer is offloaded.
    """

    def __init__(self, module: nn.Module) -> None:
        from deepspeed import comm

        parameters: dict[str, Any] = dict(module.named_parameters())
        layout = FlatLayout.of_shapes({name: tuple(p.ds_shape) for name, p in parameters.items()})
        self._owned: list[Any] = []
        self.intervals: list[Interval] = []
        for name, parameter in parameters.items():
            group = parameter.ds_process_group
            part = even_split(parameter.ds_numel, comm.get_rank(group), comm.get_world_size(group))
            if part.length:
                self._owned.append(parameter)
                self.intervals.append(Interval(layout.slots[name].offset + part.start, part.length))

    def pieces(self) -> list[Tensor]:
        from deepspeed.utils import safe_get_local_fp32_param

        masters = (safe_get_local_fp32_param(parameter) for parameter in self._owned)
        return [
            master.detach().view(-1).narrow(0, 0, interval.length)
            for master, interval in zip(masters, self.intervals, strict=True)
        ]


def weight_source(module: nn.Module, rank: int, ranks: int) -> WeightSource:
    """The source that fits how the module's parameters are kept now; `module` may be a part of the engine's module."""
    first = next(module.parameters())
    if hasattr(first, "ds_id"):
        return Zero3Masters(module)
    if hasattr(first, "_hp_mapping"):
        return Zero12Masters(module)
    return PlainWeights(module, rank, ranks)


def _mapping(name: str, parameter: nn.Parameter) -> Any:
    assert hasattr(parameter, "_hp_mapping"), f"{name} has no float32 master: it is frozen or not in the optimizer"
    return parameter._hp_mapping
