"""Building a model piece by piece where no process may hold all of it.

While a keeper is set, each module is handed to it as soon as it becomes a part of another one, so that what a process
holds at once is one module's weights and its own share of the others. Whoever writes start values, or loads them, asks
for a module's parameters with `whole` first. Without a keeper, nothing of this does anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook


class Keeper(Protocol):
    """Who takes over parameters while a model is built; every call is made by all ranks in the same order."""

    def keep(self, module: nn.Module) -> None:
        """Take over the parameters of a module and its parts, but for those on `meta` and those that it has."""

    def whole(self, module: nn.Module) -> AbstractContextManager[None]:
        """The parameters of the module itself, whole and in float32; the values at the end of the context are kept."""

    def read(self, module: nn.Module) -> dict[str, Tensor]:
        """Copies of the parameters of the module itself, whole, in the type that they are kept in."""


_keeper: Keeper | None = None


@contextmanager
def kept_by(keeper: Keeper | None) -> Iterator[None]:
    """In this context modules are handed to `keeper`; None: to nobody, also where another context said otherwise."""
    global _keeper
    before, _keeper = _keeper, keeper
    hook = register_module_module_registration_hook(_hand_over) if keeper is not None and before is None else None
    try:
        yield
    finally:
        _keeper = before
        if hook is not None:
            hook.remove()


def keep(module: nn.Module) -> None:
    """Hand all of a module to the keeper, if there is one."""
    if _keeper is not None:
        _keeper.keep(module)


def is_kept() -> bool:
    """Whether there is a keeper."""
    return _keeper is not None


def whole(module: nn.Module) -> AbstractContextManager[None]:
    """The parameters of the module itself, not of its parts, as they are to be written."""
    return nullcontext() if _keeper is None else _keeper.whole(module)


def read(module: nn.Module) -> dict[str, Tensor]:
    """The parameters of the module itself by name, not of its parts, as they are now: whole, to be read alone."""
    if _keeper is not None:
        return _keeper.read(module)
    return {name: parameter.detach() for name, parameter in module.named_parameters(recurse=False)}


def _hand_over(owner: nn.Module, name: str, module: nn.Module | None) -> None:
    if module is not None:
        keep(module)
