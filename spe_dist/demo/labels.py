"""Distant supervision for the demo corpus: sentences labelled by the facts of the world, not by what they say.

As NYT was made: names are found in the text, each pair of found names for which the world holds a fact gets its
label. So pairs are labelled that a sentence does not relate (`she visited` for `was born in`), what it states by a
short name goes unlabelled, and a name inside a longer name is lost. The sentences are others than those of the corpus,
about the same world as its train split.
"""

from __future__ import annotations

from pathlib import Path

from spe_dist.demo.sentences import draw_sentences
from spe_dist.demo.world import World, build_worlds
from spe_dist.errors import ConfigError
from spe_dist.extraction.corpora.corpus import Corpus, Document, Entity, Relation, Sentence
from spe_dist.extraction.formats import write_corpus

DEV_SHARE = 0.1


def label_by_text(world: World, words: tuple[str, ...]) -> Sentence:
    """The words with every name of the world that stands in them, the longest first, and every fact between two."""
    found: list[tuple[Entity, int]] = []
    names, longest = _names(world)
    start = 0
    while start < len(words):
        ends = range(min(len(words), start + longest), start, -1)
        end = next((end for end in ends if words[start:end] in names), None)
        if end is not None:
            index = names[words[start:end]]
            found.append((Entity(start, end, world.entities[index].type), index))
        start = end or start + 1
    relations = tuple(
        Relation(relation, head, tail)
        for head, head_index in found
        for tail, tail_index in found
        for relation, tails in sorted(world.tails.items())
        if tail_index in tails.get(head_index, ())
    )
    return Sentence(words, tuple(entity for entity, _ in found), relations)


def _names(world: World) -> tuple[dict[tuple[str, ...], int], int]:
    """The world's full names with the entities that bear them, and the length of the longest in words."""
    names = {entity.name: index for index, entity in enumerate(world.entities)}
    return names, max(map(len, names))


def write_demo_distant(folder: str | Path, sentences: int, seed: int = 0) -> None:
    """Write distant/{train,dev}.json in the format of NYT and distant/text.txt, train's sentences, below `folder`.

    dev holds a tenth of `sentences` more, labelled likewise. Same arguments, same bytes. Raises ConfigError.
    """
    if sentences < 1:
        raise ConfigError(f"distant={sentences}: at least 1 is needed")
    folder = Path(folder) / "distant"
    folder.mkdir(parents=True, exist_ok=True)
    world = build_worlds(seed)["train"]
    dev = max(1, round(DEV_SHARE * sentences))
    drawn = [tuple(sentence.tokens) for sentence in draw_sentences(world, sentences + dev, f"distant {seed}")]
    for split, part in (("train", drawn[:sentences]), ("dev", drawn[sentences:])):
        documents = (Document(f"{split}-{i}", (label_by_text(world, words),)) for i, words in enumerate(part))
        write_corpus(Corpus(tuple(documents)), folder / f"{split}.json", "nyt")
    lines = "".join(" ".join(words) + "\n" for words in drawn[:sentences])
    (folder / "text.txt").write_text(lines, encoding="utf-8")
