"""What an engine trains, by parameter name: float32 masters and Adam's moments as fragments of the parameters.

DeepSpeed keeps them in flat tensors, cut over the ranks in another way at each stage. Each parameter's part of them is
looked up where DeepSpeed keeps it, so that a checkpoint knows nothing of stages, and fits any.

    stage 0        the parameters themselves, whole
    stages 1, 2    `_hp_mapping` of a parameter: its part of this rank's partition of its group, or None
    stage 3        `grad_position`: this rank's part of each parameter, padded at its end, in a group's flat tensor

Parameters that are not trained and buffers have no masters; they are kept in the type that they have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spe_dist.distributed.context import RankContext
from spe_dist.errors import CheckpointError
from spe_dist.moco.fragments import Fragment, FragmentSource, read_replicated, share_of
from spe_dist.moco.layout import even_split

WEIGHTS, BUFFERS = "weights", "buffers"
MOMENTS = ("exp_avg", "exp_avg_sq")
STEP, STEPS, LOSS_SCALER = "adam_step", "adam_steps", "loss_scaler"
SCALER_FIELDS = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


@dataclass(frozen=True)
class OwnedPart:
    """Numbers `start` and following of a trained parameter, which this rank updates in `flat` of its optimizer."""

    name: str
    shape: tuple[int, ...]
    start: int
    flat: Tensor
    offset: int  # in `flat`
    numel: int
    optimizer: torch.optim.Optimizer  # steps `flat`
    group: dict[str, Any]  # of `optimizer`

    def fragment(self, section: str, flat: Tensor) -> Fragment:
        """The part of `flat`, which is the optimizer's tensor or one of its moments."""
        view = flat.detach().view(-1).narrow(0, self.offset, self.numel)
        return Fragment(f"{section}/{self.name}", self.shape, self.start, view)

    @property
    def state(self) -> dict[str, Any]:
        """Adam's; empty before the first step."""
        return self.optimizer.state.get(self.flat, {})

    @property
    def step(self) -> int:
        """Steps that Adam has made with it; apex counts them in the group."""
        return int(self.state.get("step", self.group.get("step", 0))) if self.state else 0


class EngineFragments:
    """The state of a DeepSpeed engine for checkpoints. Its parameters and optimizer must not be exchanged."""

    def __init__(self, optimizer: Any, module: nn.Module, zero_stage: int, context: RankContext) -> None:
        self.optimizer = optimizer
        self.module = module
        self.zero_stage = zero_stage
        self.context = context

    def fragments(self) -> list[Fragment]:
        found: list[Fragment] = []
        for part in self._parts():
            found.append(part.fragment(WEIGHTS, part.flat))
            found += [part.fragment(moment, part.state[moment]) for moment in MOMENTS if part.state]
        shares = {**self._frozen(), **self._buffers()}
        if self.zero_stage == 3:
            found += self._frozen_slices()
        return found + [share_of(n, t, self.context.rank, self.context.ranks) for n, t in shares.items()]

    def values(self) -> dict[str, Any]:
        """How often Adam has stepped, parameters that it stepped less often, and float16's loss scale."""
        steps = {part.name: part.step for part in self._parts()}
        most = max(steps.values(), default=0)
        values: dict[str, Any] = {STEP: most, STEPS: {name: step for name, step in steps.items() if step != most}}
        scaler = getattr(self.optimizer, "loss_scaler", None)
        if getattr(scaler, "dynamic", False):
            values[LOSS_SCALER] = {field: getattr(scaler, field) for field in SCALER_FIELDS}
        return values

    @torch.no_grad()
    def load(self, source: FragmentSource) -> None:
        self._check_names(source)
        if self.zero_stage == 3:
            self.optimizer.checkpoint_event_prologue()
        parts = self._parts()
        wanted = [part.fragment(WEIGHTS, part.flat) for part in parts]
        wanted += self._prepare_moments(parts, source)
        if self.zero_stage == 3:
            wanted += self._frozen_slices()
        source.read(wanted)
        read_replicated(source, {**self._frozen(), **self._buffers()}, self.context)
        self._update_working_weights()
        self._load_loss_scaler(source.values.get(LOSS_SCALER))

    def _parts(self) -> list[OwnedPart]:
        trained = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        if self.zero_stage == 0:
            return list(_whole_parts(self.optimizer, trained))
        return list((_parts_of_stage_3 if self.zero_stage == 3 else _parts_of_stages_1_2)(self.optimizer, trained))

    def _frozen(self) -> dict[str, Tensor]:
        """Parameters that are not trained, where every rank holds them whole."""
        if self.zero_stage == 3:
            return {}
        return {f"{WEIGHTS}/{n}": p for n, p in self.module.named_parameters() if not p.requires_grad}

    def _frozen_slices(self) -> list[Fragment]:
        """Stage 3: this rank's part of the parameters that are not trained."""
        frozen: dict[str, Any] = {n: p for n, p in self.module.named_parameters() if not p.requires_grad}
        found = []
        for name, parameter in frozen.items():
            start, numel = _slice_of_stage_3(parameter)
            view = parameter.ds_tensor.detach().view(-1).narrow(0, 0, numel)
            found.append(Fragment(f"{WEIGHTS}/{name}", tuple(parameter.ds_shape), start, view))
        return found

    def _buffers(self) -> dict[str, Tensor]:
        kept = self.module.state_dict()  # buffers that are made from settings are not in it
        return {f"{BUFFERS}/{name}": buffer for name, buffer in self.module.named_buffers() if name in kept}

    def _check_names(self, source: FragmentSource) -> None:
        """Compare with all parameters, also those of which this rank owns nothing, so that all ranks find the same."""
        expected = {name: _full_shape(p) for name, p in self.module.named_parameters()}
        expected_buffers = {name.removeprefix(f"{BUFFERS}/"): tuple(b.shape) for name, b in self._buffers().items()}
        for section, shapes in ((WEIGHTS, expected), (BUFFERS, expected_buffers)):
            found = {name: source.describe(f"{section}/{name}") for name in {*shapes, *source.names(section)}}
            wrong = sorted(n for n, d in found.items() if d is None or n not in shapes or d[0] != shapes[n])
            if wrong:
                raise CheckpointError(
                    f"the checkpoint does not fit this model: {', '.join(wrong[:5])} ({len(wrong)} {section} differ); "
                    "resume with the model settings of its config.yaml"
                )

    def _prepare_moments(self, parts: list[OwnedPart], source: FragmentSource) -> list[Fragment]:
        """Give the optimizer states to be filled, where the checkpoint has been stepped: the fragments to read."""
        most, others = int(source.values[STEP]), source.values[STEPS]
        prepared: set[int] = set()
        wanted = []
        for part in parts:
            step = int(others.get(part.name, most))
            if id(part.flat) not in prepared:
                prepared.add(id(part.flat))
                _prepare_state(part, most if self.zero_stage else step)
            if step:
                wanted += [part.fragment(moment, part.state[moment]) for moment in MOMENTS]
        return wanted

    def _update_working_weights(self) -> None:
        """Bring the masters into the weights that the forward uses, on all ranks; a collective."""
        if self.zero_stage == 0:
            return
        optimizer = self.optimizer
        if self.zero_stage < 3:
            optimizer.update_lp_params()
            optimizer._hp_optimizer_states_linked = False  # the next step links the states of all groups
            return
        for number in range(len(optimizer.fp32_partitioned_groups_flat)):
            optimizer._reassign_or_swap_out_partitioned_parameters(number)
        optimizer.checkpoint_event_epilogue()

    def _load_loss_scaler(self, saved: Mapping[str, Any] | None) -> None:
        scaler = getattr(self.optimizer, "loss_scaler", None)
        if saved is not None and getattr(scaler, "dynamic", False):
            for field in SCALER_FIELDS:
                setattr(scaler, field, saved[field])


def _whole_parts(optimizer: torch.optim.Optimizer, trained: Mapping[str, Tensor]) -> Iterable[OwnedPart]:
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    for name, p in trained.items():
        yield OwnedPart(name, tuple(p.shape), 0, p, 0, p.numel(), optimizer, groups[id(p)])


def _parts_of_stages_1_2(optimizer: Any, trained: Mapping[str, Any]) -> Iterable[OwnedPart]:
    for name, parameter in trained.items():
        mapping = parameter._hp_mapping
        if mapping is None:
            continue
        group = optimizer.param_groups[mapping.param_group_index]
        own, kept = mapping.lp_fragment_address, mapping.get_hp_fragment_address()
        (flat,) = group["params"]
        yield OwnedPart(
            name, tuple(parameter.shape), own.start, flat, kept.start, kept.numel, optimizer.optimizer, group
        )


def _parts_of_stage_3(optimizer: Any, trained: Mapping[str, Any]) -> Iterable[OwnedPart]:
    for name, parameter in trained.items():
        number, offset, _ = optimizer.grad_position[optimizer.get_param_id(parameter)]
        start, numel = _slice_of_stage_3(parameter)
        kept_back = optimizer.offload_optimizer and optimizer.subgroup_to_device[number] != "cpu"
        stepper = optimizer.backup_optimizer if kept_back else optimizer.optimizer
        group = stepper.param_groups[optimizer.sub_group_to_group_id[number]]
        flat = optimizer.fp32_partitioned_groups_flat[number]
        if numel:
            yield OwnedPart(name, tuple(parameter.ds_shape), start, flat, offset, numel, stepper, group)


def _slice_of_stage_3(parameter: Any) -> tuple[int, int]:
    """Start and length of this rank's part of a parameter, without the padding at its end."""
    from deepspeed import comm

    group = parameter.ds_process_group
    part = even_split(parameter.ds_numel, comm.get_rank(group), comm.get_world_size(group))
    return part.start, part.length


def _prepare_state(part: OwnedPart, step: int) -> None:
    """Give Adam a state of zeros after `step` steps; none after 0, as before the first one."""
    state, flat, group = part.state, part.flat, part.group
    if step == 0:
        part.optimizer.state.pop(flat, None)
        return
    moments = {moment: state[moment].zero_() if state else torch.zeros_like(flat.detach()) for moment in MOMENTS}
    if isinstance(part.optimizer, torch.optim.Adam):
        on_device = group.get("fused") or group.get("capturable")
        counted = torch.tensor(float(step), dtype=torch.float32, device=flat.device if on_device else "cpu")
        part.optimizer.state[flat] = {"step": counted, **moments}
    else:  # apex
        group["step"] = step
        part.optimizer.state[flat] = moments


def _full_shape(parameter: Any) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))
