"""The page that compares two systems: scores, what each finds, and the sentences drawn, with filters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spe_dist.extraction.drawing.pages import has_probability, render
from spe_dist.extraction.drawing.sentence import DrawnSentence, Kinds, drawn_sentence
from spe_dist.extraction.scoring.comparison import (
    DRAWN_METRICS,
    ComparedSentence,
    Found,
    SideBySide,
    WrongMarks,
    choose_sentences,
)
from spe_dist.extraction.scoring.counts import Counts, Group, Name
from spe_dist.extraction.scoring.matching import METRICS
from spe_dist.extraction.scoring.scores import Scores
from spe_dist.extraction.scoring.table import METRIC_NAMES, p_text, percent, percent_range, points
from spe_dist.utils.wording import how_many

GOLD_PARTS = (Found.BOTH, Found.ONLY_A, Found.ONLY_B, Found.NEITHER)
WRONG_PARTS = (Found.WRONG_BOTH, Found.WRONG_A, Found.WRONG_B)


@dataclass(frozen=True)
class FindsRow:
    """Who finds the gold of a metric, or of one of its types, in the order of GOLD_PARTS and WRONG_PARTS."""

    metric: str
    kind: str | None
    gold: list[int]
    wrong: list[int]


@dataclass(frozen=True)
class Article:
    """A sentence as gold, and by each system: its name, how much it has right, the drawing."""

    number: int
    origin: str
    tags: str
    gold: DrawnSentence
    systems: list[tuple[str, str, DrawnSentence]]


def comparison_page(both: SideBySide, title: str, most_sentences: int = 300) -> str:
    """The comparison of two systems as HTML that needs nothing but a browser.

    Args:
        both: of `scoring.comparison.compare_systems`.
        title: of the page, plain text.
        most_sentences: how many sentences are drawn at most; the page says how many are left out, and which.
    """
    chosen = choose_sentences(both.sentences, most_sentences)
    predicted = [sentence for s in chosen for sentence in (s.a, s.b)]
    kinds, numbers = Kinds.of((s.gold for s in chosen), predicted), _numbers(both)
    a, b = both.names
    return render(
        "comparison.html",
        title=title,
        both=both,
        kinds=kinds,
        has_probability=has_probability(predicted),
        metric_names=METRIC_NAMES,
        percent=percent,
        percent_range=percent_range,
        points_of=lambda compared: points(compared.difference, compared.low, compared.high),
        p_text=p_text,
        types_of=lambda metric: _types_of(both, metric),
        gold_of=lambda name: max(_counts(scores, name).gold for scores in (both.a, both.b)),
        f1_of=lambda scores, name: _counts(scores, name).f1,
        groups=[("entities", _groups(both, "by_entities")), ("words", _groups(both, "by_length"))],
        finds=list(_finds(both)),
        not_drawn=_not_drawn(both, chosen),
        shows={
            "": "all",
            "abxy": f"{a} and {b} differ",
            "a": f"only {a} is right",
            "b": f"only {b} is right",
            "n": "neither finds it",
            "xz": f"{a} is wrong",
            "yz": f"{b} is wrong",
        },
        tag_options={
            title: {kind: number for (of, kind), number in numbers.items() if of == metric}
            for metric, title in zip(DRAWN_METRICS, ("Entities", "Relations (Ent+Rel)"), strict=True)
        },
        sentences=[_article(sentence, both, numbers, kinds) for sentence in chosen],
    )


def _types_of(both: SideBySide, metric: str) -> list[Name]:
    return sorted((name for name in both.comparisons if name[0] == metric and name[1] is not None), key=str)


def _counts(scores: Scores, name: Name) -> Counts:
    return scores.by_type(name[0]).get(str(name[1]), Counts())


def _groups(both: SideBySide, attribute: str) -> list[tuple[str, Group, Group]]:
    """Groups of sentences that either system has (Figure 5)."""
    a, b = (getattr(scores, attribute) for scores in (both.a, both.b))
    return [(name, a.get(name, Group()), b.get(name, Group())) for name in dict.fromkeys([*a, *b])]


def _finds(both: SideBySide) -> Iterator[FindsRow]:
    for metric in METRICS:
        for name in [(metric, None), *_types_of(both, metric)]:
            counts = both.found.get(name)
            if counts is not None:
                parts = ([counts[part] for part in of] for of in (GOLD_PARTS, WRONG_PARTS))
                yield FindsRow(metric, name[1], *parts)


def _not_drawn(both: SideBySide, chosen: Sequence[ComparedSentence]) -> str:
    left_out = len(both.sentences) - len(chosen)
    if not left_out:
        return ""
    differing = sum(s.is_different for s in both.sentences) - sum(s.is_different for s in chosen)
    return (
        f"{left_out:,} of {how_many(len(both.sentences), 'sentence')} {'is' if left_out == 1 else 'are'} not drawn, "
        f"{differing:,} of them marked differently by the two systems. Drawn are first those marked differently, then "
        "those that both mark wrong."
    )


def _numbers(both: SideBySide) -> dict[tuple[str, str], int]:
    """A number for each metric and type, for short tags."""
    names = [(metric, kind) for metric, kind in both.comparisons if metric in DRAWN_METRICS and kind is not None]
    return {name: number for number, name in enumerate(sorted(names))}


def _article(
    compared: ComparedSentence, both: SideBySide, numbers: dict[tuple[str, str], int], kinds: Kinds
) -> Article:
    wrong = WrongMarks(compared.gold, both.a.symmetric)
    tallies = _tally(compared, (Found.BOTH, Found.ONLY_A)), _tally(compared, (Found.BOTH, Found.ONLY_B))
    return Article(
        compared.number,
        compared.gold.origin.rpartition("/")[2],  # the file's name and the line
        tags=" ".join(sorted({f"{found}{numbers[metric, kind]}" for found, metric, kind in compared.tags})),
        gold=drawn_sentence(compared.gold, kinds),
        systems=[
            (name, tally, drawn_sentence(predicted, kinds, wrong))
            for name, tally, predicted in zip(both.names, tallies, (compared.a, compared.b), strict=True)
        ],
    )


def _tally(compared: ComparedSentence, right: Sequence[Found]) -> str:
    """How many a system has right and wrong in the sentence."""
    wrong = Found.WRONG_A if Found.ONLY_A in right else Found.WRONG_B
    said = []
    for metric, nouns in zip(DRAWN_METRICS, (("entity", "entities"), ("relation", "relations")), strict=True):
        found = Counter(who for who, name, _ in compared.tags if name == metric)
        n_right, n_gold = sum(found[part] for part in right), sum(found[part] for part in GOLD_PARTS)
        n_wrong = found[wrong] + found[Found.WRONG_BOTH]
        said.append(f"{n_right} of {how_many(n_gold, *nouns)}" + (f", {n_wrong} wrong" if n_wrong else ""))
    return "; ".join(said)
