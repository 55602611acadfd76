"""Joint entity and relation extraction: corpora, joint model, decoding, scores, analysis (METHOD, Fine-tuning).

from spe_dist.extraction import Extractor      # predict on text: see extractor.py
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spe_dist.extraction.predicting.extractor import Extractor

__all__ = ["Extractor"]


def __getattr__(name: str) -> Any:
    """The Extractor needs torch, which the tools for corpora and scores do without: it is imported when asked for."""
    if name == "Extractor":
        from spe_dist.extraction.predicting.extractor import Extractor

        return Extractor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
