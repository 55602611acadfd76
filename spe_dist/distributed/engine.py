"""The one place that imports deepspeed: a ZeRO engine around the pre-training model.

DeepSpeed keeps the float32 masters and Adam's moments sharded over the ranks and the working weights in the run's
precision. The optimizer is handed in, which spares the compilation of DeepSpeed's own. On a CPU, DeepSpeed would also
compile a shared-memory all-reduce at the first start; a rank killed meanwhile leaves a lock that hangs every later
run, and each run leaves large files in /dev/shm, so gloo does that work here.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spe_dist.distributed.context import RankContext
from spe_dist.distributed.deepspeed_config import DTYPES, Precision, fit_to_model
from spe_dist.distributed.fragments.engine import EngineFragments
from spe_dist.distributed.fused_checks import fuse_checks
from spe_dist.distributed.local_gradients import LocalGradients
from spe_dist.moco.fragments import Fragment, FragmentSource
from spe_dist.utils.memory import map_tensors_of_stage_3, release_free_memory


def import_deepspeed(device_type: str) -> Any:
    """deepspeed, set up for the device and quiet. Must be the first import of it in the process."""
    if device_type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("DS_LOG_LEVEL", "warning")
    import deepspeed
    from deepspeed.utils import logger

    warnings.filterwarnings("ignore", "`torch.distributed.*is deprecated", FutureWarning)  # names deepspeed still uses

    logger.setLevel(logging.WARNING)
    logger.addFilter(_is_of_use)
    # It prints the memory in use six times, and collects garbage before each: 3 s of a start.
    deepspeed.runtime.bf16_optimizer.see_memory_usage = lambda *_, **__: None
    if device_type == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _is_of_use(record: logging.LogRecord) -> bool:
    """Whether a line of DeepSpeed's log tells a user something.

    Stage 3 warns that its hooks miss tensors in a dataclass. Only modules without weights of their own take or give
    gradients by such tensors: every weight is in a module below.
    """
    return "A module has unknown inputs or outputs type" not in record.getMessage()


class TrainingEngine:
    """DeepSpeed's engine with the few calls that training needs."""

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        ds_config: dict[str, Any],
        precision: Precision,
        context: RankContext,
    ) -> None:
        self.context = context
        self.precision = precision
        self.dtype = DTYPES[precision]
        self.zero_stage: int = ds_config["zero_optimization"]["stage"]
        self._deepspeed = import_deepspeed(context.device.type)
        if self.zero_stage == 3 and context.device.type == "cpu":
            map_tensors_of_stage_3()
        model = model.to(context.device)
        ds_config = fit_to_model(ds_config, sum(_numel(p) for p in model.parameters() if p.requires_grad))
        engine_config = ds_config if self.zero_stage else {**ds_config, "gradient_clipping": 0.0}
        offloads = bool(ds_config["zero_optimization"].get("offload_optimizer"))
        # Whether parameters may be without a gradient in a step, on all ranks alike, for which zeros are taken then.
        # Stage 3 and offloading keep what a gradient was before.
        self.takes_missing_gradients = self.zero_stage < 3 and not offloads
        self._engine, *_ = self._deepspeed.initialize(
            model=model, optimizer=make_optimizer(model), config=engine_config, dist_init_required=False
        )
        if context.device.type == "cpu":
            release_free_memory()  # the weights were copied
        self.module: nn.Module = self._engine.module
        self._local: LocalGradients | None = None
        if self.zero_stage == 0:
            self._local = LocalGradients(self.module, ds_config["gradient_clipping"])
            self._engine.enable_backward_allreduce = False  # it would copy all gradients there and back for one rank
        self.note = fuse_checks(self._engine.optimizer)  # for the user, or None
        self._keep_smallest_loss_scale()
        self._state = EngineFragments(self._engine.optimizer, self.module, self.zero_stage, context)

    def __call__(self, *inputs: Any) -> Any:
        """The model's forward, with the engine's hooks (ZeRO-3 gathers weights in them)."""
        if self.zero_stage < 3:
            return self._engine(*inputs)
        with self.context.waiting:
            return self._engine(*inputs)

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients; the engine divides by accumulation and averages over ranks."""
        with self.context.waiting:
            self._begin_backward()
            self._engine.backward(loss)

    def _begin_backward(self) -> None:
        """What DeepSpeed does at the start of a backward pass, from hooks on the tensors that the forward gave.

        It finds them in tuples and dictionaries, not in a dataclass. Without it the bfloat16 optimizer of stage 1
        counts the gradients of earlier micro-batches again and again, and offloaded gradients of all but the first
        micro-batch are lost.
        """
        from deepspeed.runtime.base_optimizer import ZeROOptimizer

        optimizer = self._engine.optimizer
        if isinstance(optimizer, ZeROOptimizer):
            optimizer.set_gradient_accumulation_boundary(self._engine.is_gradient_accumulation_boundary())
            optimizer.backward_prologue()

    def step(self) -> None:
        """At the last micro-batch of a step: reduce, clip, update, unless float16 gradients overflowed."""
        local = self._local if self._engine.is_gradient_accumulation_boundary() else None
        if local is not None:
            local.clip()
        with self.context.waiting:
            self._engine.step()
        if local is not None:
            local.clear()

    def was_step_applied(self) -> bool:
        return bool(self._engine.was_step_applied())

    def train(self) -> None:
        self._engine.train()

    def eval(self) -> None:
        self._engine.eval()

    def set_learning_rate(self, learning_rate: float) -> None:
        """One rate for all parameter groups."""
        self.set_learning_rates([learning_rate] * len(self._engine.optimizer.param_groups))

    def set_learning_rates(self, learning_rates: Sequence[float]) -> None:
        """One rate for each parameter group, in the order that the optimizer was made with."""
        for group, learning_rate in zip(self._engine.optimizer.param_groups, learning_rates, strict=True):
            group["lr"] = learning_rate

    def grad_norm(self) -> float | Tensor:
        """Global gradient norm of the last step before clipping; inf where it was skipped.

        It may be a tensor of the device, which is best read when several steps are.
        """
        norm = self._engine.get_global_grad_norm() if self._local is None else self._local.norm
        return float("nan") if norm is None else norm

    def loss_scale(self) -> float:
        """The divisor of float16's gradients; 1 in other precisions."""
        return float(self._engine.optimizer.loss_scale) if self.precision == "float16" else 1.0

    def n_parameters(self) -> int:
        """How many parameters the model has, whatever the stage."""
        return sum(_numel(p) for p in self.module.parameters())

    def master_weights(self, all_ranks: bool = False) -> dict[str, Tensor]:
        """Float32 masters by parameter name, on the CPU of rank 0 (others: empty) or of all ranks. Collective."""
        from deepspeed.utils import safe_get_full_fp32_param

        if self.zero_stage == 0:
            return {name: _on_cpu(parameter) for name, parameter in self.module.named_parameters()}
        masters = {}
        for name, parameter in self.module.named_parameters():
            full = safe_get_full_fp32_param(parameter)
            if self.context.is_main or all_ranks:
                assert full is not None, name
                masters[name] = _on_cpu(full).reshape(_full_shape(parameter))
        return masters

    def fragments(self) -> list[Fragment]:
        """What this rank's checkpoint keeps of the engine: its part of masters and moments, by parameter name."""
        return self._state.fragments()

    def values(self) -> dict[str, Any]:
        """What a checkpoint keeps of the engine beside that: Adam's steps, float16's loss scale."""
        return self._state.values()

    def load(self, source: FragmentSource) -> None:
        """Continue from a checkpoint of any number of ranks, stage and precision; a collective.

        Settings of the optimizer and of clipping stay this run's.

        Raises:
            CheckpointError: the checkpoint is of another model.
        """
        self._state.load(source)

    def _keep_smallest_loss_scale(self) -> None:
        """Skip on at the smallest loss scale: DeepSpeed would raise there, before `max_skipped_steps` can say why."""
        if self.precision == "float16":
            self._engine.optimizer.loss_scaler.raise_error_at_min_scale = False


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True)


def _numel(parameter: Tensor) -> int:
    return getattr(parameter, "ds_numel", parameter.numel())


def _full_shape(parameter: Tensor) -> torch.Size:
    return getattr(parameter, "ds_shape", parameter.shape)
