"""Relations between concepts that are mentioned several times: between which mentions they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import product

from spe_dist.extraction.annotations.document import AnnotatedRelation, AnnotatedSpan
from spe_dist.extraction.annotations.settings import ConceptPairs
from spe_dist.extraction.formats.notices import note

CONCEPTS = {
    "all": "relations between concepts, placed between all pairs of their mentions in a sentence",
    "nearest": "relations between concepts, placed between their nearest mentions in a sentence",
}
NO_MENTION = "relations of concepts that have no mention each, left out"
NO_PAIR = "relations between concepts that share no sentence (each is one between sentences, of the nearest mentions)"


class Mentions:
    """The mentions of a document's concepts.

    Args:
        spans: the mentions.
        sentences: the number of the sentence of each.
        choice: what a relation of two concepts becomes where they share a sentence: relations between "all" pairs of
            their mentions in each sentence that they share, or one between the "nearest".
        notices: is given what was decided, by reason.
    """

    def __init__(
        self, spans: Sequence[AnnotatedSpan], sentences: Sequence[int], choice: ConceptPairs, notices: Counter[str]
    ) -> None:
        self.spans, self.sentences, self.choice, self.notices = spans, sentences, choice, notices

    def relations(
        self,
        heads: Collection[int],
        tails: Collection[int],
        type: str,
        place: str,
        evidence: Collection[int] = (),
    ) -> list[AnnotatedRelation]:
        """The relations between mentions for one between concepts.

        Args:
            heads, tails: the mentions of both concepts, as positions among the spans.
            type: that of the relation.
            place: file and line, for messages.
            evidence: the sentences that say so, where the file names them: of those that hold both concepts, only these
                count, if any of them does.
        """
        pairs = [pair for pair in product(heads, tails) if pair[0] != pair[1]]
        if not pairs:
            note(self.notices, NO_MENTION, place)
            return []
        together = [pair for pair in pairs if self.sentences[pair[0]] == self.sentences[pair[1]]]
        together = [pair for pair in together if self.sentences[pair[0]] in evidence] or together
        if not together:
            note(self.notices, NO_PAIR, place)
        else:
            self.notices[CONCEPTS[self.choice]] += 1
        if not together or self.choice == "nearest":
            together = [min(together or pairs, key=self._distance)]
        return [AnnotatedRelation(head, tail, type) for head, tail in together]

    def _distance(self, pair: tuple[int, int]) -> int:
        """Characters between two mentions."""
        first, second = sorted((self.spans[position] for position in pair), key=lambda span: span.start)
        return max(0, second.start - first.end)
