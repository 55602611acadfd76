"""From sentences to examples: pieces in windows that the encoder can read, and gold by number.

What no window of a sentence holds (see `windows`) is counted and stays gold for the scores.

What the model cannot represent, counted in `notices` and kept in the scores' denominator: discontinuous entities;
further types on one span and further relations on one pair (the first in the file is trained); relations between
overlapping spans. Of entities that overlap, the longest ones give the tags and all are candidates for typing.

Document context: up to `context_pieces` pieces of neighbouring sentences of the same document on each side, as far as
there is room. They are read by the encoder alone: context words are no words of the example.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spe_dist.data.text.vocabulary import PieceEncoder
from spe_dist.errors import ConfigError
from spe_dist.extraction.corpora.corpus import Corpus, Labels, Sentence
from spe_dist.extraction.joint.tags import flat_spans, tags_of_spans
from spe_dist.extraction.joint.windows import Pieces, Span, Window, cut_into_windows


@dataclass(frozen=True)
class Gold:
    """What the model can represent of a sentence's gold, spans in words of the sentence."""

    tags: np.ndarray  # int64 [words]: see `tags`
    spans: np.ndarray  # int64 [E, 2]: continuous entities, once each; and arguments that are no entities
    classes: np.ndarray  # int64 [E]: see `Labels`; 0 for arguments that are no entities
    pairs: np.ndarray  # int64 [R, 2]: rows of `spans`, by position
    pair_classes: np.ndarray  # int64 [R]


@dataclass(frozen=True)
class Example:
    """One sentence, whole: all windows of it belong into one batch."""

    sentence: int  # index in the list that was given
    n_words: int
    windows: tuple[Window, ...]  # one, unless the sentence is longer than the encoder reads
    gold: Gold

    @property
    def n_pieces(self) -> int:
        """Pieces that the encoder reads, [CLS], [SEP] and context included."""
        return sum(len(window.piece_ids) for window in self.windows)


SENTENCES_TOGETHER = 1000  # whose words are looked up at once

NO_GOLD = Gold(*(np.zeros(shape, dtype=np.int64) for shape in (0, (0, 2), 0, (0, 2), 0)))


class ExampleMaker:
    """Turns sentences into examples; keeps the pieces of known words between calls."""

    def __init__(self, tokenizer: Any, labels: Labels | None, max_pieces: int, context_pieces: int = 0):
        """Make examples for one model.

        Args:
            tokenizer: of transformers, WordPiece.
            labels: the types that the model tells apart; None for sentences without gold.
            max_pieces: of a window, [CLS] and [SEP] included.
            context_pieces: of the document, on each side of a sentence.

        Raises:
            ConfigError: `max_pieces` or `context_pieces` is too small.
        """
        if max_pieces < 3:
            raise ConfigError(f"max_pieces={max_pieces} leaves no piece between [CLS] and [SEP]; set 3 or more")
        if context_pieces < 0:
            raise ConfigError(f"context_pieces={context_pieces} is negative; set 0 for none")
        self.pieces = PieceEncoder(tokenizer)
        self.cls_id, self.sep_id, self.unk_id = (
            tokenizer.cls_token_id,
            tokenizer.sep_token_id,
            tokenizer.unk_token_id,
        )
        self.labels = labels
        self.max_pieces = max_pieces
        self.window_pieces = max_pieces - 2  # without [CLS] and [SEP]
        self.context_pieces = context_pieces
        entity_types, relation_types = ((), ()) if labels is None else (labels.entity_types, labels.relation_types)
        self.entity_class = {name: i + 1 for i, name in enumerate(entity_types)}
        self.relation_class = {name: 2 * i + 1 for i, name in enumerate(relation_types)}

    def examples(
        self, sentences: Sequence[Sentence], notices: Counter[str], documents: Sequence[Hashable] | None = None
    ) -> list[Example]:
        """One example for each sentence, in their order; arguments as those of `make_examples`."""
        of_words: list[list[Pieces]] = []
        for first in range(0, len(sentences), SENTENCES_TOGETHER):
            some = sentences[first : first + SENTENCES_TOGETHER]
            self.pieces.learn(word for sentence in some for word in sentence.words)
            of_words += [self._word_pieces(sentence.words, notices) for sentence in some]
        result = []
        for number, (sentence, pieces) in enumerate(zip(sentences, of_words, strict=True)):
            before, behind = self._context(number, of_words, documents)
            windows = cut_into_windows(pieces, self.window_pieces, self.cls_id, self.sep_id, before, behind)
            if len(windows) > 1:
                notices["sentences longer than the encoder reads, read in windows"] += 1
            gold = NO_GOLD if self.labels is None else self._gold(sentence, windows, notices)
            result.append(Example(number, len(sentence.words), windows, gold))
        return result

    def _word_pieces(self, words: Sequence[str], notices: Counter[str]) -> list[Pieces]:
        of_words = self.pieces.pieces(words)
        if all(0 < len(pieces) <= self.window_pieces for pieces in of_words):
            return of_words
        notices["words cut because they are longer than the encoder reads"] += sum(
            len(pieces) > self.window_pieces for pieces in of_words
        )
        return [pieces[: self.window_pieces] or (self.unk_id,) for pieces in of_words]

    def _context(
        self, number: int, of_words: Sequence[Sequence[Pieces]], documents: Sequence[Hashable] | None
    ) -> tuple[list[int], list[int]]:
        """Pieces before and behind a sentence: as many as wanted and as fit, half of the free pieces for each side."""
        if not self.context_pieces or documents is None:
            return [], []
        sides: list[list[int]] = []
        for step in (-1, 1):
            found: list[int] = []
            other = number + step
            while 0 <= other < len(of_words) and documents[other] == documents[number]:
                if len(found) >= self.context_pieces:
                    break
                ids = [piece for pieces in of_words[other] for piece in pieces]
                found = ids + found if step < 0 else found + ids
                other += step
            sides.append(found)
        free = max(0, self.window_pieces - sum(map(len, of_words[number])))
        n_before, n_behind = (min(len(side), self.context_pieces) for side in sides)
        n_before = min(n_before, max(free // 2, free - n_behind))
        n_behind = min(n_behind, free - n_before)
        return sides[0][len(sides[0]) - n_before :], sides[1][:n_behind]

    def _gold(self, sentence: Sentence, windows: Sequence[Window], notices: Counter[str]) -> Gold:
        entities = self._gold_entities(sentence, notices)
        flat = flat_spans(entities)
        notices["entities that overlap others, typed but not tagged"] += len(entities) - len(flat)
        pairs = self._gold_pairs(sentence, windows, notices)
        spans = sorted({*entities, *(span for pair in pairs for span in pair)})
        spans = self._held(spans, windows, notices)
        row = {span: i for i, span in enumerate(spans)}
        return Gold(
            tags_of_spans(flat, len(sentence.words)),
            np.array(spans, dtype=np.int64).reshape(-1, 2),
            np.array([entities.get(span, 0) for span in spans], dtype=np.int64),
            np.array([(row[a], row[b]) for a, b in pairs], dtype=np.int64).reshape(-1, 2),
            np.array(list(pairs.values()), dtype=np.int64),
        )

    def _gold_entities(self, sentence: Sentence, notices: Counter[str]) -> dict[Span, int]:
        entities: dict[Span, int] = {}
        for entity in dict.fromkeys(sentence.entities):
            entity_class = self.entity_class.get(entity.type)
            if entity.fragments:
                notices["discontinuous entities, not trained"] += 1
            elif entity_class is None:
                notices["entities of types the model does not know"] += 1
            elif entities.setdefault(entity.span, entity_class) != entity_class:
                notices["further types on one span, not trained"] += 1
        return entities

    def _gold_pairs(
        self, sentence: Sentence, windows: Sequence[Window], notices: Counter[str]
    ) -> dict[tuple[Span, Span], int]:
        pairs: dict[tuple[Span, Span], int] = {}
        for relation in dict.fromkeys(sentence.relations):
            head, tail = relation.head, relation.tail
            relation_class = self.relation_class.get(relation.type)
            if relation_class is None:
                notices["relations of types the model does not know"] += 1
                continue
            if head.fragments or tail.fragments:
                notices["relations of discontinuous entities, not trained"] += 1
                continue
            head_first = head.span <= tail.span
            first, second = (head.span, tail.span) if head_first else (tail.span, head.span)
            if first[1] > second[0]:
                notices["relations between overlapping spans, not trained"] += 1
                continue
            if not any(window.holds(first[0], second[1]) for window in windows):
                notices["relations that no window holds, not trained"] += 1
                continue
            relation_class += 0 if head_first else 1
            if pairs.setdefault((first, second), relation_class) != relation_class:
                notices["further relations on one pair, not trained"] += 1
            elif not (head.type and tail.type):
                notices["relations with an argument that is not an entity"] += 1
        return pairs

    def _held(self, spans: list[Span], windows: Sequence[Window], notices: Counter[str]) -> list[Span]:
        if len(windows) == 1:
            return spans
        held = [span for span in spans if any(window.holds(*span) for window in windows)]
        notices["entities that no window holds, tagged but not typed"] += len(spans) - len(held)
        return held


def make_examples(
    sentences: Sequence[Sentence],
    tokenizer: Any,
    labels: Labels | None,
    max_pieces: int,
    context_pieces: int = 0,
    documents: Sequence[Hashable] | None = None,
    notices: Counter[str] | None = None,
) -> list[Example]:
    """One example for each sentence, in their order.

    Args:
        sentences: in reading order.
        tokenizer, labels, max_pieces, context_pieces: as for `ExampleMaker`.
        documents: the document of each sentence (see `document_ids`), which context does not leave; without it there
            is no context.
        notices: takes the counts of what the model cannot represent.
    """
    maker = ExampleMaker(tokenizer, labels, max_pieces, context_pieces)
    counts: Counter[str] = Counter()
    examples = maker.examples(sentences, counts, documents)
    if notices is not None:
        notices.update(+counts)
    return examples


def document_ids(corpus: Corpus) -> list[int]:
    """The number of the document that each sentence of the corpus belongs to."""
    return [number for number, document in enumerate(corpus.documents) for _ in document.sentences]


def count_pieces(examples: Iterable[Example]) -> int:
    """Pieces of all examples, [CLS], [SEP] and context included."""
    return sum(example.n_pieces for example in examples)
