"""The stage `parts`: how long the parts of a step of BERT-base take alone, in each of the ways there are.

Legend of the shape suffixes:
    Q sequences, T tokens, H heads, D width of a head, L length of a sequence, B sentences, C width of a key, K keys
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig

from spe_dist.benchmark.gpu_check.commands import Task, give_failure
from spe_dist.benchmark.gpu_check.record import give
from spe_dist.benchmark.gpu_check.stages.timing import device, milliseconds
from spe_dist.benchmark.plain_contrast import plain_contrast
from spe_dist.config.pretraining import Config
from spe_dist.moco.average import KeyAverage, compiled_step
from spe_dist.model.attention import attention, choose_backend
from spe_dist.model.encoder import PackedBertEncoder
from spe_dist.model.kernels import compile_model
from spe_dist.model.spe import SpeModel
from spe_dist.pretraining.contrast import Negatives, queue_loss
from spe_dist.training.optimizer import make_adamw, param_groups
from spe_dist.utils.memory import peak_memory_gib

DROPOUT = 0.1
MOMENTUM = 0.999
TEMPERATURE = 0.2


@dataclass(frozen=True)
class Extent:
    """Sizes of what is measured: a step of the paper's batch on a GPU, little of it in a test."""

    sentences: int = 256
    pieces: int = 28  # of a view
    layers: int = 12
    heads: int = 12
    head_size: int = 64
    vocabulary: int = 28_996
    keys: int = 65_536
    key_size: int = 768
    average: int = 110_000_000  # numbers of the key encoder
    attention_tokens: int = 14_336
    lengths: tuple[int, ...] = (28, 56, 128)
    seconds: float = 0.5

    @property
    def bert(self) -> BertConfig:
        hidden = self.heads * self.head_size
        return BertConfig(
            vocab_size=self.vocabulary,
            hidden_size=hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=4 * hidden,
        )


SMALL = Extent(4, 12, 1, 2, 32, 100, 256, 16, 40_000, 128, (8, 16), 0.01)


def check_parts(task: Task) -> bool:
    """Results on each part; one that fails leaves the others their time."""
    here, extent = device(), SMALL if task.small else Extent()
    parts: dict[str, Callable[[torch.device, Extent], None]] = {
        "contrast": measure_contrast,
        "attention": measure_attention,
        "average": measure_average,
        "optimizer": measure_optimizer,
        "encoder": measure_encoder,
        "encoder, compiled": measure_compiled_encoder,  # last: it may compile until the time is up
    }
    fine = True
    for name, measure in parts.items():
        try:
            measure(here, extent)
        except Exception as error:  # one part's failure is a result; the others are still wanted
            traceback.print_exc()
            fine = give_failure(
                name, f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}"
            )
        if here.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    return fine


def working_dtype(here: torch.device) -> torch.dtype:
    """That of the default path."""
    return torch.float16 if here.type == "cuda" else torch.float32


def measure_encoder(here: torch.device, extent: Extent) -> None:
    """Forward of the keys, forward and backward of the query, by type."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32) if here.type == "cuda" else (torch.float32,):
        give(f"encoder in {_short(dtype)}", **encoder_times(here, extent, dtype, compiled=False))


def measure_compiled_encoder(here: torch.device, extent: Extent) -> None:
    """The encoder through torch.compile, on a GPU alone."""
    if here.type == "cuda":  # on a CPU it takes longer to compile than a check has
        dtype = working_dtype(here)
        give(f"encoder in {_short(dtype)}, compiled", **encoder_times(here, extent, dtype, compiled=True))


def encoder_times(here: torch.device, extent: Extent, dtype: torch.dtype, compiled: bool) -> dict[str, float]:
    """Milliseconds for both views of a step's sentences."""
    bert = extent.bert
    with here:
        encoder = PackedBertEncoder(bert, with_pooler=False).to(dtype)
    if compiled:
        compile_model(SpeModel(encoder))
    n_sequences = 2 * extent.sentences
    n_tokens = n_sequences * extent.pieces
    ids_T = torch.randint(extent.vocabulary, (n_tokens,), device=here)
    positions_T = torch.arange(extent.pieces, device=here).repeat(n_sequences)
    borders_Q1 = torch.arange(0, n_tokens + 1, extent.pieces, dtype=torch.int32, device=here)

    def forward() -> Tensor:
        return encoder(ids_T, positions_T, borders_Q1, extent.pieces)

    def both() -> None:
        forward().float().sum().backward()
        encoder.zero_grad()

    encoder.train()
    both_ms = milliseconds(both, here, extent.seconds)
    encoder.eval()
    with torch.no_grad():
        forward_ms = milliseconds(forward, here, extent.seconds)
    layers = sum(p.numel() for p in encoder.encoder.parameters() if p.ndim == 2)
    flop = 2e-9 * n_tokens * layers  # of linear layers alone, forwards
    return {
        "forward_ms": forward_ms,
        "forward_and_backward_ms": both_ms,
        "linear_layers_tflop_per_s": 3 * flop / both_ms,
        "peak_memory_gib": peak_memory_gib(here),
    }


def measure_attention(here: torch.device, extent: Extent) -> None:
    """As in training and as of keys, at some lengths, beside torch's own on a batch that needs no padding."""
    dtype, heads, size = working_dtype(here), extent.heads, extent.head_size
    for length in extent.lengths:
        n_sequences = max(1, extent.attention_tokens // length)
        n_tokens = n_sequences * length
        borders_Q1 = torch.arange(0, n_tokens + 1, length, dtype=torch.int32, device=here)
        qkv = [torch.randn(n_tokens, heads, size, device=here, dtype=dtype, requires_grad=True) for _ in range(3)]
        padded = [x.detach().view(n_sequences, length, heads, size).transpose(1, 2).contiguous() for x in qkv]
        padded = [x.requires_grad_() for x in padded]

        def train(qkv: list[Tensor] = qkv, borders_Q1: Tensor = borders_Q1, length: int = length) -> None:
            q, k, v = qkv
            attention(q, k, v, borders_Q1, length, DROPOUT).sum().backward()

        def keys(qkv: list[Tensor] = qkv, borders_Q1: Tensor = borders_Q1, length: int = length) -> Tensor:
            q, k, v = qkv
            with torch.no_grad():
                return attention(q, k, v, borders_Q1, length)

        def plain(padded: list[Tensor] = padded) -> None:
            q, k, v = padded
            F.scaled_dot_product_attention(q, k, v, dropout_p=DROPOUT).sum().backward()

        give(
            f"attention at {length} tokens",
            train_ms=milliseconds(train, here, extent.seconds / 2),
            keys_ms=milliseconds(keys, here, extent.seconds / 2),
            padded_sdpa_train_ms=milliseconds(plain, here, extent.seconds / 2),
            sequences=n_sequences,
            backend=choose_backend(here, dtype, size, DROPOUT).name,
        )


def measure_contrast(here: torch.device, extent: Extent) -> None:
    """One of the two losses against a full queue, with its gradient, by type of the products."""
    queries_BC, keys_BC = (
        F.normalize(torch.randn(extent.sentences, extent.key_size, device=here), dim=1) for _ in range(2)
    )
    queue_KC = F.normalize(torch.randn(extent.keys, extent.key_size, device=here), dim=1)
    ids_B = torch.arange(extent.sentences, device=here)
    ids_K = torch.arange(extent.keys, device=here) + (1 << 40)
    fill = torch.tensor(extent.keys, device=here)
    queries_BC.requires_grad_()
    negatives = Negatives(queue_KC, ids_K, fill, ids_B)
    for kind in ("float32", "tf32", "bfloat16", "float16"):

        def loss(kind: str = kind) -> None:
            queue_loss(queries_BC, keys_BC, negatives, TEMPERATURE, kind).loss_B.sum().backward()  # type: ignore[arg-type]

        give(f"contrast, products in {kind}", ms=milliseconds(loss, here, extent.seconds))

    def plain() -> None:
        term = plain_contrast(queries_BC, keys_BC, queue_KC, extent.keys, ids_B, ids_K, TEMPERATURE, False)
        term.loss_sum.backward()

    give("contrast, one matrix of scores", ms=milliseconds(plain, here, extent.seconds))


def measure_average(here: torch.device, extent: Extent) -> None:
    """The update of the key encoder's average: as it is by itself, and by operations over chunks of several sizes."""
    source_P = torch.randn(extent.average, device=here)
    moved = 5 * 4 * extent.average  # bytes of one pass: both numbers read and written, the source read
    for exponent in (None, 16, 18, 20, 21, 22, 24, 27):
        average = KeyAverage(source_P, MOMENTUM, compiled=None if exponent is None else False)
        if exponent is not None:
            average.chunk_numel = 1 << exponent
        taken_ms = milliseconds(partial(average.update, [source_P]), here, extent.seconds / 2)
        way = "by itself" if exponent is None else f"operations on 2^{exponent} numbers"
        give(f"average, {way}", ms=taken_ms, gb_per_s=moved / taken_ms / 1e6)
    if here.type == "cuda":
        give("average, compiled", works=compiled_step(here, 1.0 - MOMENTUM) is not None)


def measure_optimizer(here: torch.device, extent: Extent) -> None:
    """AdamW with clipping by norm over an encoder's parameters in float32, as tensors and as one."""
    config = Config()
    with here:
        many: nn.Module = PackedBertEncoder(extent.bert)
    numel = sum(parameter.numel() for parameter in many.parameters())
    one = nn.ParameterList([nn.Parameter(torch.zeros(numel, device=here))])
    for name, module in (("tensors of an encoder", many), ("one vector", one)):
        parameters = list(module.parameters())
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 1e-3)
        optimizer = make_adamw(param_groups(module, 0.01), config, here)

        def step(parameters: list[nn.Parameter] = parameters, optimizer: torch.optim.Optimizer = optimizer) -> None:
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()

        taken_ms = milliseconds(step, here, extent.seconds / 2)
        give(f"optimizer, {name}", ms=taken_ms, tensors=len(parameters), millions=numel / 1e6)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
