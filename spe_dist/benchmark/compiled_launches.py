"""What compiled code launches on a GPU, counted without one.

torch.compile hands over its graphs as they are on `meta`, where packed attention stands inside of them. Each graph is
taken to the CPU, without data, and through inductor: autograd, decompositions, fusion, and the code that would call
the kernels, which is read and not compiled. Inductor fuses for GPUs by the same rules, with other limits of size, so
that the numbers are near those of a GPU and not the same.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import fx

from spe_dist.benchmark.launches import LaunchCounter

FUSED = re.compile(r"\b(cpp_fused\w*)\(")
OTHER = re.compile(r"\b(extern_kernels\.\w+|torch\.ops\.[\w.]+|aten\.\w[\w.]*)\(")


class CompiledCounter(LaunchCounter):
    """Counts compiled parts, too: fused kernels as "fused", products and attention by their names."""

    def __init__(self, device: torch.device | str) -> None:
        super().__init__(device)
        self._numbers = nullcontext()  # torch.compile would take it for a part of the code
        self.inside = False  # a compiled part, whose operations are not launched one by one

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled code runs in spite of the mode."""
        return True

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if self.inside:
            return func(*args, **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs)

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """torch.compile counts inside and runs each graph as it is."""
        real = torch.compile

        def compile(*args: Any, **given: Any) -> Any:
            return real(*args, **{**given, "backend": self._backend})

        with mock.patch.object(torch, "compile", compile):
            yield

    def _backend(self, graph: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        forward, backward = kernels(graph, inputs)

        def run(*args: Any) -> tuple[Any, ...]:
            return _Part.apply(self, graph, forward, backward, *args)

        return run

    def add(self, names: Sequence[str]) -> None:
        """Count these launches."""
        for name in names:
            self.launches[self._phase, name] += 1


class _Part(torch.autograd.Function):
    """Runs a graph on `meta`, and counts what it would launch in either direction."""

    @staticmethod
    def forward(
        ctx: Any, counter: CompiledCounter, graph: fx.GraphModule, names: list[str], backward: list[str], *args: Any
    ) -> tuple[Any, ...]:
        ctx.counter, ctx.backward_names, ctx.inputs = counter, backward, args
        counter.add(names)
        counter.inside = True
        try:
            return tuple(graph.forward(*args))
        finally:
            counter.inside = False

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        ctx.counter.add(ctx.backward_names)
        wanted = ctx.needs_input_grad[4:]
        return (
            None,
            None,
            None,
            None,
            *(torch.empty_like(value) if wants else None for value, wants in zip(ctx.inputs, wanted, strict=True)),
        )


def kernels(graph: fx.GraphModule, inputs: Sequence[Any]) -> tuple[list[str], list[str]]:
    """Names of what a graph launches forward and backward, "fused" for each kernel that inductor makes."""
    from torch._functorch import config
    from torch._functorch.aot_autograd import make_boxed_func
    from torch._inductor.compile_fx import compile_fx

    found: dict[bool, list[str]] = {False: [], True: []}

    def read(part: fx.GraphModule, part_inputs: Sequence[Any], is_backward: bool = False, **given: Any) -> Any:
        found[is_backward] = _launched(_code(part, part_inputs, is_backward, given.get("is_inference", False)))
        return make_boxed_func(part.forward)

    with _mode_of(inputs), config.patch(force_non_lazy_backward_lowering=True):
        compile_fx(copy.deepcopy(graph), [_on_cpu(value) for value in inputs], inner_compile=read)
    return found[False], found[True]


def _mode_of(inputs: Sequence[Any]) -> Any:
    """The mode that holds the symbols of a graph's sizes."""
    from torch._dynamo.utils import detect_fake_mode

    return detect_fake_mode(inputs)


def _on_cpu(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return torch.empty_strided(
        value.size(), value.stride(), dtype=value.dtype, device="cpu", requires_grad=value.requires_grad
    )


def _code(part: fx.GraphModule, inputs: Sequence[Any], is_backward: bool, is_inference: bool) -> str:
    """The Python code that calls a graph's kernels."""
    from torch._inductor import compile_fx
    from torch._inductor.debug import DebugContext
    from torch._inductor.graph import GraphLowering
    from torch._inductor.virtualized import V
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    mode = _mode_of(inputs)
    compile_fx.view_to_reshape(part)
    with torch.no_grad():
        FakeTensorProp(part, mode).propagate_dont_convert_inputs(*inputs)
    compile_fx.record_original_output_strides(part)
    with V.set_fake_mode(mode):
        compile_fx._recursive_post_grad_passes(part, is_inference=is_inference)
    lowered = GraphLowering(
        part, example_inputs=inputs, shape_env=mode.shape_env, is_inference=is_inference, is_backward=is_backward
    )
    with V.set_graph_handler(lowered), V.set_fake_mode(mode), V.set_debug_handler(DebugContext()):
        lowered.run(*inputs)
        code, _ = lowered.codegen()
    return code.value


def _launched(code: str) -> list[str]:
    calls = code[code.index("def call(") :]
    return ["fused"] * len(FUSED.findall(calls)) + [
        name.split(".")[-2 if "ops" in name else -1] for name in OTHER.findall(calls)
    ]
