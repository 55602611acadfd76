"""The demo corpus: English sentences about a made-up world, with gold entities and relations.

Every sentence is drawn from one pattern (what it states), one frame (what stands around it) and the facts of a world
fixed by the seed. About a sixth state no relation, though they hold the same words and names. The same sentences
serve pre-training (text.txt) and extraction (train, dev and test in the format of SpERT); no sentence occurs twice.
Names and common words often stand twice in a sentence, as in real text: what one part says tells of the others.
"""

from __future__ import annotations

import functools
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

from spe_dist.demo import patterns as words
from spe_dist.demo.world import LANGUAGES, World, build_worlds
from spe_dist.errors import ConfigError

VARIABLE_TYPES = {
    **dict.fromkeys("pqr", "Person"),
    **dict.fromkeys("ou", "Organisation"),
    **dict.fromkeys("lm", "Place"),
    **dict.fromkeys("wv", "Work"),
}
NO_RELATION_SHARE = 0.17
MIN_WORDS, MAX_WORDS = 6, 30
EXTRA_SHARE = 0.05  # dev and test, each, of the sentences of train
MIN_EXTRA, MAX_EXTRA = 50, 400
UNSEEN_SENTENCES = 60
TEXT_FILE, UNSEEN_FILE = "text.txt", "unseen.txt"
BIND_TRIES = 50

CHOICE = re.compile(r"\[([^\[\]]*)\]")
AGAIN = "{again}"  # in a frame: the first entity of the pattern once more
SLOT = re.compile(r"\{([a-z]+'?)(?::([a-z]))?\}")


@dataclass(frozen=True)
class Pattern:
    """What one sentence may state: `facts` over variables such as p and o', and its text with slots."""

    facts: tuple[tuple[str, str, str], ...]
    text: str
    variables: tuple[str, ...]  # without quote marks, those of facts first


@dataclass(frozen=True)
class Sentence:
    """Words, entities (type, start, end: word span) and relations (type, head, tail: indices into entities)."""

    tokens: list[str]
    entities: list[tuple[str, int, int]]
    relations: list[tuple[str, int, int]]

    def as_spert(self) -> dict:
        return {
            "tokens": self.tokens,
            "entities": [{"type": t, "start": start, "end": end} for t, start, end in self.entities],
            "relations": [{"type": t, "head": head, "tail": tail} for t, head, tail in self.relations],
        }


@functools.cache
def patterns() -> tuple[Pattern, ...]:
    """All patterns of demo_patterns.PATTERNS, parsed."""
    parsed = []
    for line in words.PATTERNS.strip().splitlines():
        left, text = line.split(" :: ")
        triples = [fact.split() for fact in left.split(";")] if left != "-" else []
        facts = tuple((head, relation, tail) for head, relation, tail in triples)
        names = [name.rstrip("'") for head, _, tail in facts for name in (head, tail)]
        names += [name.rstrip("'") for name, _ in SLOT.findall(text) if name.rstrip("'") in VARIABLE_TYPES]
        parsed.append(Pattern(facts, text.removesuffix(" ."), tuple(dict.fromkeys(names))))
    return tuple(parsed)


def bind(pattern: Pattern, world: World, rng: random.Random) -> dict[str, int] | None:
    """Entities for a pattern's variables such that all its facts hold in the world; None where the draw fails."""
    bound: dict[str, int] = {}
    for head_name, relation, tail_name in pattern.facts:
        head, tail = head_name.rstrip("'"), tail_name.rstrip("'")
        if head in bound and tail in bound:
            if bound[tail] not in world.tails[relation].get(bound[head], ()):
                return None
            continue
        if head not in bound and tail in bound:
            candidates = world.heads[relation].get(bound[tail], [])
            if not candidates:
                return None
            bound[head] = rng.choice(candidates)
            continue
        if head not in bound:
            bound[head] = rng.choice(world.by_type[VARIABLE_TYPES[head[0]]])
        candidates = world.tails[relation].get(bound[head], [])
        if not candidates:
            return None
        bound[tail] = rng.choice(candidates)
    for name in pattern.variables:
        if name not in bound:
            known = next(iter(bound.values()), None)
            language = rng.randrange(len(LANGUAGES)) if known is None else world.entities[known].language
            bound[name] = world.draw(rng, VARIABLE_TYPES[name[0]], language)
    if len(set(bound.values())) < len(bound):
        return None
    return bound


class Filler:
    """Words for the slots of one sentence that are no entities: most of them of one topic, many of them repeated."""

    def __init__(self, rng: random.Random, topic: str):
        self.rng = rng
        self.topic = words.TOPICS[topic]
        self.used: dict[str, list[str]] = {}

    def fill(self, slot: str) -> str:
        """Words for the slots {np}, {year}, {date}, {n}, {nouns}, {adj} and {field}."""
        rng = self.rng
        if slot == "np":
            return self.noun_phrase()
        if slot == "year":
            return str(rng.randrange(1780, 2020))
        if slot == "date":
            return f"{rng.randrange(1, 31)} {rng.choice(words.MONTHS)}"
        if slot == "n":
            return rng.choice(words.NUMBERS)
        return self.word({"nouns": "plurals", "adj": "adjectives", "field": "fields"}[slot])

    def word(self, kind: str) -> str:
        """An adjective, noun, plural or field: one used before, one of the topic or, now and then, any."""
        used = self.used.setdefault(kind, [])
        if used and self.rng.random() < words.REPEATED_SHARE:
            word = self.rng.choice(used)
        elif self.rng.random() < words.OFF_TOPIC_SHARE:
            word = self.rng.choice(getattr(words, kind.upper()))
        else:
            word = self.rng.choice(self.topic[kind])
        used.append(word)
        return word

    def noun_phrase(self) -> str:
        draw = self.rng.random()
        if draw < 0.35:
            return f"the {self.word('adjectives')} {self.word('nouns')}"
        if draw < 0.6:
            return f"the {self.word('nouns')} of the {self.word('plurals')}"
        if draw < 0.75:
            return f"the {self.word('fields')} of {self.word('adjectives')} {self.word('plurals')}"
        if draw < 0.9:
            return f"a {self.word('nouns')} without {self.word('plurals')}"
        return f"the {self.word('nouns')}"


def choose_topic(world: World, bound: dict[str, int], rng: random.Random) -> str:
    """The topic of the trade of the first person in a sentence, else any."""
    for name, index in bound.items():
        if VARIABLE_TYPES[name[0]] == "Person":
            return words.JOB_TOPICS[world.entities[index].traits["job"]]
    return rng.choice(list(words.TOPICS))


def choose_alternatives(text: str, rng: random.Random) -> str:
    """Each [a|b|] replaced by one of its parts, innermost first."""
    while "[" in text:
        text = CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text)
    return text


def draw_sentence(world: World, rng: random.Random) -> Sentence | None:
    """One sentence of a random pattern; None where its draw does not work out or its length is out of bounds."""
    stating, silent = _by_statement()
    pattern = rng.choice(silent if rng.random() < NO_RELATION_SHARE else stating)
    tries = (bind(pattern, world, rng) for _ in range(BIND_TRIES))
    bound = next((binding for binding in tries if binding is not None), None)
    if bound is None:
        return None
    text = rng.choice([frame for frame in _frames() if pattern.variables or AGAIN not in frame]).replace(
        "#", pattern.text
    )
    if pattern.variables:
        text = text.replace(AGAIN, f"{{{pattern.variables[0]}'}}")
    text = choose_alternatives(text, rng).removesuffix(" .") + " ."
    filler = Filler(rng, choose_topic(world, bound, rng))
    tokens: list[str] = []
    entities: list[tuple[str, int, int]] = []
    mentions: dict[str, int] = {}
    for part in text.split():
        slot = SLOT.fullmatch(part)
        if slot is None:
            tokens.append(part)
        elif slot[1].rstrip("'") in VARIABLE_TYPES:
            entity = world.entities[bound[slot[1].rstrip("'")]]
            name = entity.short if slot[1].endswith("'") else entity.name
            mentions.setdefault(slot[1], len(entities))
            entities.append((entity.type, len(tokens), len(tokens) + len(name)))
            tokens.extend(name)
        elif slot[2]:
            tokens.append(world.entities[bound[slot[2]]].traits[slot[1]])
        else:
            tokens.extend(filler.fill(slot[1]).split())
    if not MIN_WORDS <= len(tokens) <= MAX_WORDS:
        return None
    _spell(tokens, entities)
    relations = [(relation, mentions[head], mentions[tail]) for head, relation, tail in pattern.facts]
    return Sentence(tokens, entities, relations)


@functools.cache
def _by_statement() -> tuple[list[Pattern], list[Pattern]]:
    return [p for p in patterns() if p.facts], [p for p in patterns() if not p.facts]


@functools.cache
def _frames() -> tuple[str, ...]:
    return tuple(words.FRAMES.strip().splitlines())


def _spell(tokens: list[str], entities: list[tuple[str, int, int]]) -> None:
    """In place: 'an' before a vowel and a capital at the start, both outside entities."""
    inside = {word for _, start, end in entities for word in range(start, end)}
    for word in range(len(tokens) - 1):
        if tokens[word] == "a" and word not in inside and tokens[word + 1][0] in "aeiou":
            tokens[word] = "an"
    if 0 not in inside:
        tokens[0] = tokens[0][0].upper() + tokens[0][1:]


def draw_sentences(world: World, count: int, seed: str) -> list[Sentence]:
    """`count` different sentences of a world, a function of world, count and seed."""
    rng = random.Random(f"demo sentences {seed}")
    seen: set[tuple[str, ...]] = set()
    sentences: list[Sentence] = []
    for _ in range(20 * count + 1_000):
        if len(sentences) == count:
            return sentences
        sentence = draw_sentence(world, rng)
        if sentence is not None and tuple(sentence.tokens) not in seen:
            seen.add(tuple(sentence.tokens))
            sentences.append(sentence)
    raise ConfigError(f"sentences={count}: this world does not give that many different ones; ask for fewer")


def write_demo_corpus(folder: str | Path, sentences: int = 20_000, seed: int = 0) -> None:
    """Write text.txt, extraction/{train,dev,test}.json and unseen.txt below `folder`.

    text.txt holds the training sentences, one a line. dev and test hold a twentieth of `sentences` each, 50 to 400,
    about people, organisations and works that train does not name. unseen.txt holds the first of test as people would
    write them, a paragraph each. Same arguments, same bytes.

    Raises:
        ConfigError: when fewer than one sentence is asked for, or more than the world gives.
    """
    if sentences < 1:
        raise ConfigError(f"sentences={sentences}: at least 1 is needed")
    folder = Path(folder)
    (folder / "extraction").mkdir(parents=True, exist_ok=True)
    for split, world in build_worlds(seed).items():
        extra = min(MAX_EXTRA, max(MIN_EXTRA, round(EXTRA_SHARE * sentences)))
        drawn = draw_sentences(world, sentences if split == "train" else extra, f"{split} {seed}")
        rows = ",\n".join(json.dumps(sentence.as_spert(), ensure_ascii=False) for sentence in drawn)
        (folder / "extraction" / f"{split}.json").write_text(f"[\n{rows}\n]\n", encoding="utf-8")
        if split == "train":
            lines = "".join(" ".join(sentence.tokens) + "\n" for sentence in drawn)
            (folder / TEXT_FILE).write_text(lines, encoding="utf-8")
        if split == "test":
            paragraphs = "\n".join(f"{as_written(sentence.tokens)}\n" for sentence in drawn[:UNSEEN_SENTENCES])
            (folder / UNSEEN_FILE).write_text(paragraphs, encoding="utf-8")


def as_written(tokens: list[str]) -> str:
    """A sentence as people write it, without spaces before signs."""
    return re.sub(r" ([.,;:])(?= |$)", r"\1", " ".join(tokens))
