"""Annotated corpora: read in many formats, which are recognised by content, and written.

    corpus = read_corpus("train.json")
    write_corpus(corpus, "train_spert.json", "spert")

What is named here is imported when it is asked for: modules of `annotations`, which reading takes, build on others of
this package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spe_dist.extraction.formats.corpus_files import (
        WRITTEN_FORMATS,
        read_corpus,
        read_record,
        write_corpus,
        written_format,
    )
    from spe_dist.extraction.formats.detect import FORMATS
    from spe_dist.extraction.formats.notices import Losses

__all__ = ["FORMATS", "WRITTEN_FORMATS", "Losses", "read_corpus", "read_record", "write_corpus", "written_format"]

_MODULES = {"FORMATS": "detect", "Losses": "notices"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'corpus_files')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
