"""Two systems side by side: which gold entities and relations each finds, what each makes up (paper, appendix C)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from spe_dist.extraction.corpora.corpus import Corpus, Entity, Relation, Sentence
from spe_dist.extraction.scoring.alignment import aligned
from spe_dist.extraction.scoring.counts import Name
from spe_dist.extraction.scoring.matching import (
    METRICS,
    Key,
    Marked,
    ent_rel_key,
    entity_key,
    mark_across,
    mark_gold,
    mark_predicted,
)
from spe_dist.extraction.scoring.scores import Scores, score
from spe_dist.extraction.scoring.significance import DRAWS, TEST_DRAWS, Comparison, compare, confidence_intervals


class Found(StrEnum):
    """What the two systems make of a gold item, or who predicts an item that is not gold; one letter each."""

    BOTH = "k"
    ONLY_A = "a"
    ONLY_B = "b"
    NEITHER = "n"
    WRONG_A = "x"  # predicted by A alone, and not gold
    WRONG_B = "y"
    WRONG_BOTH = "z"


DRAWN_METRICS = ("entity", "ent_rel")  # by which sentences are sorted: a drawn relation is right in Ent+Rel

Tag = tuple[Found, str, str]  # of which metric and type


@dataclass(frozen=True)
class ComparedSentence:
    """One sentence as gold, A and B have it, and what is found in it: a tag for each item."""

    number: int  # in the corpus, from 1
    gold: Sentence
    a: Sentence
    b: Sentence
    tags: tuple[Tag, ...]

    @property
    def is_different(self) -> bool:
        """Whether one system is right, or wrong, where the other is not."""
        return any(found in (Found.ONLY_A, Found.ONLY_B, Found.WRONG_A, Found.WRONG_B) for found, _, _ in self.tags)

    @property
    def is_all_right(self) -> bool:
        return all(found is Found.BOTH for found, _, _ in self.tags)


@dataclass(frozen=True)
class SideBySide:
    """Everything that a comparison says. `found` counts items by metric, type (None: all) and who finds them."""

    names: tuple[str, str]
    a: Scores
    b: Scores
    intervals: tuple[dict[Name, tuple[float, float]], dict[Name, tuple[float, float]]]
    comparisons: dict[Name, Comparison]
    found: dict[Name, Counter[Found]]
    sentences: list[ComparedSentence] = field(repr=False)


def compare_systems(
    gold: Corpus,
    a: Corpus,
    b: Corpus,
    names: tuple[str, str] = ("A", "B"),
    symmetric: Collection[str] = (),
    draws: int = DRAWS,
    test_draws: int = TEST_DRAWS,
    seed: int = 0,
) -> SideBySide:
    """Score both systems, test the difference, and sort all items by who finds them.

        both = compare_systems(read_corpus("test.json"), of_bert, of_spe, names=("BERT", "SPE"))
        Path("page.html").write_text(comparison_page(both, "BERT and SPE"), encoding="utf-8")

    Args:
        gold, a, b: the same sentences, as they are annotated and as the systems predict them.
        names: what the systems are called.
        symmetric: relation types whose direction does not matter.
        draws: of the bootstrap, for intervals.
        test_draws: of the paired test.
        seed: of all draws.

    Raises:
        DataError: the three corpora do not hold the same sentences.
    """
    a, b = aligned(gold, a), aligned(gold, b)
    scores = score(gold, a, symmetric), score(gold, b, symmetric)
    units = scores[0].units, scores[1].units
    sentences: list[ComparedSentence] = []
    found: defaultdict[Name, Counter[Found]] = defaultdict(Counter)
    triples = zip(gold.sentences, a.sentences, b.sentences, strict=True)
    for number, (ours, of_a, of_b) in enumerate(triples, start=1):
        marked = mark_gold(ours, symmetric), mark_predicted(of_a, symmetric), mark_predicted(of_b, symmetric)
        tags = list(_tags(*marked))
        _count(tags, found)
        shown = tuple(tag for tag in tags if tag[1] in DRAWN_METRICS)
        sentences.append(ComparedSentence(number, ours, of_a, of_b, shown))
    _count(_tags_across(gold, a, b, symmetric), found)
    return SideBySide(
        names=names,
        a=scores[0],
        b=scores[1],
        intervals=(confidence_intervals(units[0], draws, seed), confidence_intervals(units[1], draws, seed)),
        comparisons=compare(units[0], units[1], draws, test_draws, seed),
        found=dict(found),
        sentences=sentences,
    )


def _tags(gold: Marked, a: Marked, b: Marked) -> Iterator[Tag]:
    """One for each item of any of the three, for each metric."""
    for metric in METRICS:
        ours, of_a, of_b = gold.keys(metric), a.keys(metric), b.keys(metric)
        for key in ours | of_a | of_b:
            yield _found(key in ours, key in of_a, key in of_b), metric, key[0]


def _found(is_gold: bool, in_a: bool, in_b: bool) -> Found:
    if is_gold:
        return {
            (True, True): Found.BOTH,
            (True, False): Found.ONLY_A,
            (False, True): Found.ONLY_B,
            (False, False): Found.NEITHER,
        }[in_a, in_b]
    return Found.WRONG_BOTH if in_a and in_b else Found.WRONG_A if in_a else Found.WRONG_B


def _tags_across(gold: Corpus, a: Corpus, b: Corpus, symmetric: Collection[str]) -> Iterator[Tag]:
    """Of what lies across sentences."""
    across_a, across_b = mark_across(gold, a, symmetric), mark_across(gold, b, symmetric)
    for number in across_a.gold.keys() | across_a.predicted.keys() | across_b.predicted.keys():
        parts = (across_a.gold, across_a.predicted, across_b.predicted)
        yield from _tags(*(part.get(number, Marked()) for part in parts))


def _count(tags: Iterable[Tag], found: defaultdict[Name, Counter[Found]]) -> None:
    for who, metric, kind in tags:
        found[metric, kind][who] += 1
        found[metric, None][who] += 1


class WrongMarks:
    """Tells drawings which predictions of a sentence are no gold: relations are right where Ent+Rel says so."""

    def __init__(self, gold: Sentence, symmetric: Collection[str] = ()):
        self.symmetric = symmetric
        marked = mark_gold(gold, symmetric)
        self.right: set[Key] = marked.entity
        self.right_relations: set[Key] = marked.ent_rel

    def __call__(self, item: Entity | Relation) -> str:
        if isinstance(item, Relation):
            return "" if ent_rel_key(item, self.symmetric) in self.right_relations else "wrong"
        return "" if entity_key(item) in self.right or not item.type else "wrong"


def choose_sentences(sentences: list[ComparedSentence], most: int) -> list[ComparedSentence]:
    """At most `most` of them, in order of the corpus: rather those that the systems mark differently, then those that
    both mark wrong."""
    ranked = sorted(sentences, key=lambda s: (not s.is_different, s.is_all_right, s.number))
    return sorted(ranked[:most], key=lambda s: s.number)
