"""SPE-dist: distributed pre-training of the Span and span Pair Encoder (EMNLP 2020), and extraction with it.

    import spe_dist
    extractor = spe_dist.Extractor.from_pretrained("O/model")
    corpus = spe_dist.read_corpus("test.json")
    print(spe_dist.score(corpus, predicted))

The names below are loaded when they are first used, so that `import spe_dist` is quick and works without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spe_dist.export import SpanPairEncoder
    from spe_dist.extraction.formats import read_corpus
    from spe_dist.extraction.predicting.extractor import Extractor
    from spe_dist.extraction.scoring.scores import score

__version__ = "0.1.0"
__all__ = ["Extractor", "SpanPairEncoder", "__version__", "read_corpus", "score"]

_MODULES = {
    "Extractor": "spe_dist.extraction.predicting.extractor",
    "SpanPairEncoder": "spe_dist.export",
    "read_corpus": "spe_dist.extraction.formats",
    "score": "spe_dist.extraction.scoring.scores",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
