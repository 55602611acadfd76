"""Pages of drawn sentences: HTML files that need nothing but a browser.

The templates, styles and scripts lie in `templates`; a page carries them all in itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from spe_dist.extraction.corpora.corpus import Sentence
from spe_dist.extraction.drawing.sentence import NO_TYPE, Drawable, Kinds, annotated, drawn_sentence
from spe_dist.utils.wording import counted, how_many

if TYPE_CHECKING:
    from jinja2 import Environment


def predictions_page(
    sentences: Iterable[Drawable],
    *,
    places: Iterable[str] = (),
    title: str = "Entities and relations",
    model: str = "",
    totals: str = "",
    left_out: str = "",
) -> str:
    """A page of sentences with their entities in colour and their relations as arcs.

        sentences = extractor.predict("John Smith works for IBM in Boston.")
        Path("page.html").write_text(predictions_page(sentences), encoding="utf-8")

    Args:
        sentences: of `Extractor.predict`, or of a corpus.
        places: where each comes from, as "notes.txt, line 3"; none for sentences that stand alone.
        title: of the page, plain text.
        model: the name of the model, for the page's head.
        totals: a sentence on what was found in all; counted here where it is empty.
        left_out: a sentence on what is not drawn.

    Returns:
        HTML that holds its styles and scripts. It follows the width of the window and the light or dark colours of the
        system, filters by type and probability, and can be printed.
    """
    drawn = [annotated(sentence) for sentence in sentences]
    kinds = Kinds.of(drawn)
    return render(
        "predictions.html",
        title=title,
        model=model,
        totals=totals or _totals(drawn),
        left_out=left_out,
        kinds=kinds,
        has_probability=has_probability(drawn),
        sentences=[
            (place, drawn_sentence(s, kinds)) for s, place in zip(drawn, chain(places, repeat("")), strict=False)
        ],
    )


def render(template: str, **context: Any) -> str:
    """A page from one of the templates."""
    return _environment().get_template(template).render(no_type=NO_TYPE, how_many=how_many, counted=counted, **context)


def has_probability(sentences: Iterable[Sentence]) -> bool:
    """Whether any entity or relation has a probability, so that a filter by it makes sense."""
    return any(
        any(entity.probability is not None for entity in sentence.entities)
        or any(relation.probability is not None for relation in sentence.relations)
        for sentence in sentences
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("spe_dist.extraction.drawing"),
        autoescape=lambda name: name is None or name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=False,
    )


def _totals(sentences: Sequence[Sentence]) -> str:
    entities, relations = (sum(len(getattr(s, name)) for s in sentences) for name in ("entities", "relations"))
    return (
        f"{how_many(len(sentences), 'sentence')}, {how_many(entities, 'entity', 'entities')}, "
        f"{how_many(relations, 'relation')}."
    )
