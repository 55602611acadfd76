"""What is found in a text: sentences, their entities and relations, as objects, as text and as JSON records.

`Extractor.predict` gives `Sentence` objects, `spe predict` writes their `to_dict()`, one JSON record a line:

    {"file": "notes.txt", "document": 0, "line": 1, "sentence": 0,
     "text": "John Smith works for IBM.", "start": 0, "end": 25,
     "words": ["John", "Smith", "works", "for", "IBM", "."],
     "word_offsets": [[0, 4], [5, 10], [11, 16], [17, 20], [21, 24], [24, 25]],
     "entities": [{"type": "Peop", "text": "John Smith", "start": 0, "end": 10, "words": [0, 2], "probability": 0.99},
                  {"type": "Org", "text": "IBM", "start": 21, "end": 24, "words": [4, 5], "probability": 0.98}],
     "relations": [{"type": "Work_For", "head": 0, "tail": 1, "probability": 0.95}]}

file, document, line, sentence: only of sentences that were read from a file, "-" for standard input; with "id" where
the JSON record has one. document: paragraphs of text or JSON records, counted from 0 over all inputs. line: from 1,
where the sentence begins. sentence: in its document, from 0. start, end and word_offsets: characters, half-open, of the
input (see text_input.py). words of an entity: half-open, in the sentence's words. head, tail: positions in "entities".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

from spe_dist.data.text.characters import without_line_breaks
from spe_dist.errors import ConfigError
from spe_dist.extraction.corpora import corpus
from spe_dist.extraction.corpora.corpus import Span
from spe_dist.extraction.predicting.json_input import place_words

if TYPE_CHECKING:
    from spe_dist.extraction.predicting.text_input import Place

PROBABILITY_DIGITS = 4  # in JSON
NOTHING_FOUND = "nothing found"
# Line breaks to some readers, which JSON lets stand; and halves of characters (in ids, in names of files that are no
# UTF-8), which UTF-8 cannot hold.
_ESCAPED = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029, *range(0xD800, 0xE000))}
_SPACE = re.compile(r"\s+")


def _in_one_line(text: str) -> str:
    """A text that may go over lines, with single spaces, and none where a line break stands for none."""
    return _SPACE.sub(" ", without_line_breaks(text)[0])


@dataclass(frozen=True, order=True, slots=True, repr=False)
class Entity:
    """A typed span of a text, such as `John Smith [Peop 0.98]`; sorts by position.

    Entities are equal where position, type and text are, whatever their probability.

    Attributes:
        start_char: first character (Unicode code point) of the text that was read.
        end_char: the character behind the last one.
        text: these characters.
        start_word: first word, in the words of its sentence.
        end_word: the word behind the last one.
        probability: P(the span is an entity | the tags are valid) P(type | span); it means the same for entities of
            one word and of many.
    """

    start_char: int
    end_char: int
    type: str
    text: str
    start_word: int
    end_word: int
    probability: float = field(compare=False)

    def __str__(self) -> str:
        return f"{_in_one_line(self.text)} {self._mark()}"

    def __repr__(self) -> str:
        return f"Entity({self})"

    def _mark(self) -> str:
        return f"[{self.type} {self.probability:.2f}]"


@dataclass(frozen=True, order=True, slots=True, repr=False)
class Relation:
    """A directed, typed relation of two entities, such as `John Smith --Work_For--> IBM, 0.95`.

    Relations are equal where entities, direction and type are, whatever their probability.

    Attributes:
        head: its first argument, one of the sentence's `entities`.
        tail: its second argument, likewise.
        probability: P(relation and direction | the two entities).
    """

    head: Entity
    tail: Entity
    type: str
    probability: float = field(compare=False)

    def __str__(self) -> str:
        head, tail = (_in_one_line(entity.text) for entity in (self.head, self.tail))
        return f"{head} --{self.type}--> {tail}, {self.probability:.2f}"

    def __repr__(self) -> str:
        return f"Relation({self})"


@dataclass(frozen=True, slots=True, repr=False)
class Sentence:
    """A sentence with the entities and relations that were found in it; `print` shows them in its text.

    Attributes:
        text: the sentence as it stands in the input; half of a surrogate pair is a question mark.
        start_char: first character, in the input.
        end_char: the character behind the last one.
        words: what the model read.
        word_offsets: (first character, end) of each word, in the input.
        entities: in reading order; those that were given, in their own.
        relations: between two of `entities`.
        place: file and line, of a sentence that was read from a file.
    """

    text: str
    start_char: int
    end_char: int
    words: tuple[str, ...]
    word_offsets: tuple[Span, ...]
    entities: tuple[Entity, ...]
    relations: tuple[Relation, ...]
    place: Place | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return "\n  ".join([self._marked_text(), *map(str, self.relations)])

    def __repr__(self) -> str:
        return f"Sentence({'; '.join([self._marked_text(), *map(str, self.relations)])})"

    def _marked_text(self) -> str:
        """`John Smith [Peop 0.98] works for IBM [Org 0.97].`, in one line."""
        parts, position = [], 0
        for entity in sorted(self.entities, key=lambda entity: entity.end_char):  # given ones may overlap
            end = entity.end_char - self.start_char
            parts.append(f"{self.text[position:end]} {entity._mark()}")
            position = end
        parts.append(self.text[position:] if self.entities else f"{self.text} ({NOTHING_FOUND})")
        return _in_one_line("".join(parts)).strip()

    def to_dict(self) -> dict[str, Any]:
        """The JSON record that `spe predict` writes for this sentence; probabilities have four digits."""
        record: dict[str, Any] = {}
        if self.place is not None:
            record = {"file": self.place.file, "document": self.place.document}
            record |= {"id": self.place.id} if self.place.id is not None else {}
            record |= {"line": self.place.line, "sentence": self.place.sentence}
        rows = {entity: number for number, entity in enumerate(self.entities)}
        return record | {
            "text": self.text,
            "start": self.start_char,
            "end": self.end_char,
            "words": list(self.words),
            "word_offsets": [list(span) for span in self.word_offsets],
            "entities": [
                {
                    "type": entity.type,
                    "text": entity.text,
                    "start": entity.start_char,
                    "end": entity.end_char,
                    "words": [entity.start_word, entity.end_word],
                    "probability": round(entity.probability, PROBABILITY_DIGITS),
                }
                for entity in self.entities
            ],
            "relations": [
                {
                    "type": relation.type,
                    "head": rows[relation.head],
                    "tail": rows[relation.tail],
                    "probability": round(relation.probability, PROBABILITY_DIGITS),
                }
                for relation in self.relations
            ],
        }

    def to_json(self) -> str:
        """`to_dict()` as one line of JSON, without the line feed, whatever the text holds: a line of `spe predict`."""
        line = json.dumps(self.to_dict(), ensure_ascii=False, separators=(", ", ": "))
        return line if line.isascii() else line.translate(_ESCAPED)


def result_of(predicted: corpus.Sentence, start: int, place: Place | None = None) -> Sentence:
    """A sentence as users see it, from a prediction in words. `start`: its first character in the input."""
    if predicted.text is None or predicted.char_spans is None:
        _, placed = next(place_words([predicted.words]))
        predicted = replace(predicted, text=placed.text, char_spans=placed.char_spans)
    assert predicted.text is not None and predicted.char_spans is not None
    offsets = tuple([(first + start, end + start) for first, end in predicted.char_spans])
    found: dict[corpus.Entity, Entity] = {}
    for entity in predicted.entities:
        first, end = offsets[entity.start][0], offsets[entity.end - 1][1]
        text = predicted.text[first - start : end - start]
        assert entity.probability is not None, "entities of a prediction have probabilities"
        found[entity] = Entity(first, end, entity.type, text, entity.start, entity.end, entity.probability)
    relations = []
    for relation in predicted.relations:
        assert relation.probability is not None, "relations of a prediction have probabilities"
        relations.append(Relation(found[relation.head], found[relation.tail], relation.type, relation.probability))
    return Sentence(
        text=predicted.text,
        start_char=start,
        end_char=start + len(predicted.text),
        words=predicted.words,
        word_offsets=offsets,
        entities=tuple(found.values()),
        relations=tuple(relations),
        place=place,
    )


@dataclass(frozen=True)
class MinProbability:
    """Below what probability an entity or a relation is left out.

    Raises:
        ConfigError: a limit is not from 0 to 1.
    """

    entities: float = 0.0
    relations: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, Real) or not 0 <= float(value) <= 1:
                raise ConfigError(
                    f"min_probability of {name}={value!r} is not a probability; give a number from 0 to 1"
                )

    @classmethod
    def of(cls, both: float, entities: float | None = None, relations: float | None = None) -> MinProbability:
        """One limit for both, unless one of them has its own."""
        return cls(both if entities is None else entities, both if relations is None else relations)

    def apply(self, predicted: corpus.Sentence) -> corpus.Sentence:
        """The sentence without what is less probable, and without relations of entities that are left out."""
        if not self.entities and not self.relations:
            return predicted
        entities = tuple(e for e in predicted.entities if (e.probability or 0.0) >= self.entities)
        kept = set(entities)
        relations = tuple(
            r
            for r in predicted.relations
            if (r.probability or 0.0) >= self.relations and r.head in kept and r.tail in kept
        )
        return replace(predicted, entities=entities, relations=relations)
