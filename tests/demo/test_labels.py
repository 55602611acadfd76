"""Distant labels of the demo corpus: facts applied to text, with the noise that this makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from spe_dist.demo.labels import label_by_text, write_demo_distant
from spe_dist.demo.sentences import draw_sentences
from spe_dist.demo.world import Entity, World, build_worlds
from spe_dist.errors import ConfigError
from spe_dist.extraction.corpora.corpus import Sentence
from spe_dist.extraction.formats import read_corpus


@pytest.fixture
def world() -> World:
    world = World()
    person = world.add(Entity("Person", ("Ada", "Lind"), ("Lind",), 0))
    town = world.add(Entity("Place", ("Lund",), ("Lund",), 0))
    museum = world.add(Entity("Organisation", ("Lund", "Museum"), ("Lund", "Museum"), 0))
    world.state(person, "born_in", town)
    world.state(museum, "based_in", town)
    return world


def marked(sentence: Sentence) -> tuple[list[str], list[tuple[str, str, str]]]:
    def name(entity) -> str:
        return " ".join(sentence.words[entity.start : entity.end])

    relations = [(name(relation.head), relation.type, name(relation.tail)) for relation in sentence.relations]
    return [name(entity) for entity in sentence.entities], relations


def test_a_pair_with_a_fact_is_labelled_whatever_the_sentence_says(world: World) -> None:
    assert marked(label_by_text(world, tuple("Ada Lind visited Lund .".split()))) == (
        ["Ada Lind", "Lund"],
        [("Ada Lind", "born_in", "Lund")],
    )


def test_short_names_are_not_found_and_the_longest_name_is_taken(world: World) -> None:
    assert marked(label_by_text(world, tuple("Lind was born in Lund .".split()))) == (["Lund"], [])
    assert marked(label_by_text(world, tuple("Ada Lind left Lund Museum".split()))) == (["Ada Lind", "Lund Museum"], [])


def test_the_written_corpus_is_read_as_nyt_and_is_mostly_but_not_wholly_right(tmp_path: Path) -> None:
    write_demo_distant(tmp_path, sentences=300, seed=0)
    corpus = read_corpus(tmp_path / "distant" / "train.json")
    assert corpus.format == "nyt" and corpus.n_sentences == 300
    assert read_corpus(tmp_path / "distant" / "dev.json").n_sentences == 30
    text = (tmp_path / "distant" / "text.txt").read_text().splitlines()
    assert text == [" ".join(sentence.words) for sentence in corpus.sentences]
    right = wrong = missed = 0
    drawn = draw_sentences(build_worlds(0)["train"], 330, "distant 0")[:300]
    for gold, found in zip(drawn, corpus.sentences, strict=True):
        stated = {(kind, gold.entities[h][1:], gold.entities[t][1:]) for kind, h, t in gold.relations}
        labelled = {(relation.type, relation.head.span, relation.tail.span) for relation in found.relations}
        right, wrong = right + len(stated & labelled), wrong + len(labelled - stated)
        missed += len(stated - labelled)
    assert right > 3 * (wrong + missed)
    assert wrong > 10 and missed > 5


def test_the_same_arguments_write_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_demo_distant(tmp_path / name, sentences=20, seed=1)
    for file in ("train.json", "dev.json", "text.txt"):
        assert (tmp_path / "a/distant" / file).read_bytes() == (tmp_path / "b/distant" / file).read_bytes()
    with pytest.raises(ConfigError, match="at least 1"):
        write_demo_distant(tmp_path, sentences=0)
