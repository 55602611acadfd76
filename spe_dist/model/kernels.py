"""Which fused kernel each part uses, and why: the one place where that is chosen.

torch's own kernels are the default: its LayerNorm and AdamW are fused, the bias of a linear layer is added inside the
matrix product, and `compile` fuses what is left. NVIDIA's apex is used when it is asked for. `auto` never measures, so
that a resumed run computes with the kernels it started with.

Two traps are caught here. `pip install apex` installs an unrelated package of that name, and apex built without its
CUDA extensions imports well and fails at the first step.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spe_dist.config.pretraining import Config
from spe_dist.errors import ConfigError
from spe_dist.model.devices import autocast
from spe_dist.model.products import product_type

APEX_REMEDY = (
    "build NVIDIA's apex from https://github.com/NVIDIA/apex with its CUDA and C++ extensions, or use --kernels torch"
)
BERT_HEAD_SIZE = 64


@dataclass(frozen=True)
class KernelChoice:
    """One line of the table that a run prints at its start."""

    part: str
    kernel: str
    why: str


@dataclass(frozen=True)
class ApexState:
    """What the name `apex` stands for in this environment."""

    kind: Literal["absent", "unrelated", "not built", "nvidia"]
    detail: str

    @property
    def usable(self) -> bool:
        return self.kind == "nvidia"


def find_apex() -> ApexState:
    """Looks for NVIDIA's apex with its CUDA extensions; never raises."""
    try:
        spec = importlib.util.find_spec("apex")
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return ApexState("absent", "apex is not installed")
    where = spec.origin or ", ".join(spec.submodule_search_locations or ["?"])
    try:
        is_nvidias = importlib.util.find_spec("apex.normalization") is not None
    except Exception:  # importing an unrelated package may fail in any way
        is_nvidias = False
    if not is_nvidias:
        return ApexState("unrelated", f"the package 'apex' at {where} is not NVIDIA's (pip's apex is another project)")
    for extension in ("fused_layer_norm_cuda", "amp_C"):
        try:
            importlib.import_module(extension)
        except Exception as error:
            return ApexState("not built", f"NVIDIA's apex at {where} lacks its CUDA extension {extension}: {error}")
    return ApexState("nvidia", f"NVIDIA's apex at {where}")


def use_apex(kernels: str, device: torch.device | None = None) -> bool:
    """Whether apex is used; ConfigError where it is asked for and cannot be."""
    if kernels != "apex":
        return False
    state = find_apex()
    if not state.usable:
        raise ConfigError(f"kernels=apex, but {state.detail}; {APEX_REMEDY}")
    if (device or default_device()).type != "cuda":
        raise ConfigError("kernels=apex, but the run is on a CPU and apex has CUDA kernels only; use --kernels auto")
    return True


def default_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def layer_norm_class(kernels: str = "auto") -> type[nn.Module]:
    """The LayerNorm module to build with: called as `cls(size, eps=eps)`, parameters `weight` and `bias`."""
    if not use_apex(kernels):
        return nn.LayerNorm
    return _in_its_own_type(importlib.import_module("apex.normalization").FusedLayerNorm)


@functools.cache
def _in_its_own_type(apex_norm: Any) -> type[nn.Module]:
    """Apex's LayerNorm as torch's is under autocast: in the type of its weights, where apex's takes autocast's."""

    class FusedLayerNorm(apex_norm):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            with autocast(x.device, enabled=False):
                normed: Tensor = super().forward(x.to(self.weight.dtype))
                return normed

    return FusedLayerNorm


# Ways in which one piece of code is compiled: the last layer and the others; queries with and without gradient, and
# keys; with and without autocast; sizes that happen to be equal at first. torch gives up after 8.
MOST_VERSIONS = 32

P = ParamSpec("P")
T = TypeVar("T")


def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """torch.compile for tensors of any size: one version for all numbers of tokens."""
    _configure()
    return torch.compile(function, dynamic=True)


def _configure() -> None:
    settings = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, MOST_VERSIONS)
    settings.specialize_float = True  # eps and dropout are constants of the code, as sizes of weights are


def compile_model(spe: nn.Module, heads: Sequence[nn.Module | None] = ()) -> None:
    """`compiled`, in place, for encoder layers, span and span pair encoder and `heads`; parameters keep their names.

    Numbers of tokens, words and targets are symbols in the compiled code. They are rounded up to few all the same
    (`PackedBertEncoder.fills_up`): memory is reused, a CPU's 16-bit products have few shapes, and CUDA graphs, which
    hold one size each, can be recorded. What stays as it is: the embeddings, whose gradient on a GPU would be summed in
    any order; the convolution over words and the maximum over spans, which gather and are no chain of small steps;
    attention by groups, whose shapes are others in each batch.

    Args:
        spe: a `SpeModel`.
        heads: further modules, None for those that are off.
    """
    _configure()
    parts: Any = spe
    parts.encoder.fills_up = True
    span_mlp = parts.span_encoder.mlp if parts.span_encoder is not None else None
    layers = parts.encoder.encoder.layer
    for module in (*layers, parts.encoder.pooler, span_mlp, parts.pair_encoder, parts.contrastive_head, *heads):
        if module is not None:
            module.compile(dynamic=True)


def check_compile(device: torch.device, zero_stage: int) -> None:
    """Compile something small, so that what is missing shows before training.

    Raises:
        ConfigError: `compile` is on, and ZeRO's stage or this machine does not go with it.
    """
    if zero_stage == 3:
        raise ConfigError(
            "compile=true, but stage 3 of ZeRO takes weights away between the layers that use them, and every change "
            "of a weight's shape would be compiled again; use stage 1 or 2, or compile=false"
        )
    try:
        if device.type == "cpu":
            from torch._inductor import cpp_builder

            cpp_builder.get_cpp_compiler()  # also where the trial's code is still there from a machine that had one
        compiled(_trial)(torch.ones(64, device=device))
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        needed = "a C++ compiler (apt-get install g++)" if device.type == "cpu" else "triton and a C compiler"
        raise ConfigError(
            f"compile=true, but torch.compile fails here: {reason[:200]}; install {needed}, or use compile=false"
        ) from error


def _trial(x: Tensor) -> Tensor:
    return F.gelu(x) * 2


def kernel_lines(choices: Sequence[KernelChoice], verbose: bool) -> list[str]:
    """The kernels as one line, or all with their reasons."""
    if verbose:
        return [f"kernel: {choice.part}: {choice.kernel} ({choice.why})" for choice in choices]
    kernels = {choice.part: choice.kernel for choice in choices}
    if kernels["attention of keys"] == kernels["attention"]:
        del kernels["attention of keys"]
    return [f"kernels: {', '.join(f'{part} {kernel}' for part, kernel in kernels.items())} (--verbose says why)"]


def choose_kernels(
    config: Config | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    head_size: int | None = None,
) -> list[KernelChoice]:
    """The kernels of a run, one line a part, with the reason of each choice.

    `head_size` is that of the encoder where it was loaded, BERT's 64 if not given; a random start has the config's.
    """
    from spe_dist.model.attention import choose_backend

    config = config or Config()
    device = torch.device(device) if device is not None else default_device()
    if dtype is None:
        dtype = torch.float16 if device.type == "cuda" else torch.float32
    state = find_apex()
    apex = use_apex(config.train.kernels, device)
    default = "kernels=torch" if config.train.kernels == "torch" else f"torch's are the default; {state.detail}"
    is_compiled = config.train.compile
    if head_size is None:
        head_size = BERT_HEAD_SIZE if config.model.encoder else config.model.hidden_size // config.model.attention_heads
    key_dropout = config.model.dropout if config.moco.key_dropout else 0.0
    rows = []
    for part, dropout_p in (("attention", config.model.dropout), ("attention of keys", key_dropout)):
        backend = choose_backend(device, dtype, head_size, dropout_p)
        rows.append(KernelChoice(part, backend.name, backend.why))
    rows.append(
        KernelChoice("LayerNorm", "apex FusedLayerNorm", state.detail)
        if apex
        else KernelChoice("LayerNorm", "torch layer_norm", default)
    )
    rows.append(
        KernelChoice(
            "bias-GELU",
            "compiled with its layer" if is_compiled else "torch linear + gelu",
            "compile=true" if is_compiled else "the product adds the bias; apex's fused one is the tanh approximation",
        )
    )
    rows.append(
        KernelChoice("AdamW", "apex FusedAdam", state.detail)
        if apex
        else KernelChoice("AdamW", "torch AdamW(fused=True)", default)
    )
    if config.objectives.cspo:
        products = product_type(config.moco.contrast_dtype, device)
        rows.append(KernelChoice("contrast", f"products in {products}", f"contrast_dtype={config.moco.contrast_dtype}"))
    how = "torch.compile" if is_compiled else "eager"
    rows.append(KernelChoice("layers, heads and losses", how, f"compile={str(is_compiled).lower()}"))
    return rows
