"""The demo corpus: reproducible, rightly annotated, and varied enough that it must be read."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from spe_dist.demo.patterns import RELATIONS
from spe_dist.demo.sentences import (
    MAX_WORDS,
    MIN_WORDS,
    UNSEEN_FILE,
    UNSEEN_SENTENCES,
    patterns,
    write_demo_corpus,
)
from spe_dist.demo.world import build_worlds
from spe_dist.errors import ConfigError

FILES = ("text.txt", "extraction/train.json", "extraction/dev.json", "extraction/test.json")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_demo_corpus(folder, sentences=10_000, seed=0)
    return folder


def load(corpus: Path, split: str) -> list[dict]:
    return json.loads((corpus / "extraction" / f"{split}.json").read_text())


def names(sentences: list[dict], *types: str) -> set[str]:
    return {
        " ".join(sentence["tokens"][entity["start"] : entity["end"]])
        for sentence in sentences
        for entity in sentence["entities"]
        if entity["type"] in types
    }


def test_same_arguments_give_the_same_bytes_and_another_seed_another_world(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_demo_corpus(tmp_path / name, sentences=300, seed=seed)
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        assert (tmp_path / "a" / file).read_bytes() != (tmp_path / "c" / file).read_bytes()


def test_the_first_sentences_do_not_depend_on_how_many_are_asked_for(tmp_path, corpus):
    write_demo_corpus(tmp_path, sentences=200, seed=0)
    assert (corpus / "text.txt").read_text().startswith((tmp_path / "text.txt").read_text())


def test_text_holds_the_training_sentences_one_a_line(corpus):
    lines = (corpus / "text.txt").read_text().splitlines()
    assert lines == [" ".join(sentence["tokens"]) for sentence in load(corpus, "train")]
    assert len(lines) == 10_000


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_offsets_and_argument_types_are_right(corpus, split):
    known = {(e.type, e.name) for e in build_worlds(0)[split].entities}
    known |= {(e.type, e.short) for e in build_worlds(0)[split].entities}
    for sentence in load(corpus, split):
        entities = sentence["entities"]
        taken: list[int] = []
        for entity in entities:
            assert (entity["type"], tuple(sentence["tokens"][entity["start"] : entity["end"]])) in known
            taken += range(entity["start"], entity["end"])
        assert len(taken) == len(set(taken))
        for relation in sentence["relations"]:
            ends = entities[relation["head"]]["type"], entities[relation["tail"]]["type"]
            assert ends == RELATIONS[relation["type"]] or (relation["type"] == "part_of" and ends == ("Place", "Place"))


def test_every_stated_relation_is_a_fact_of_the_split_and_of_no_other(corpus):
    worlds = build_worlds(0)
    facts = {}
    for split, world in worlds.items():
        facts[split] = {
            (world.entities[head].name, relation, world.entities[tail].name)
            for relation, tails in world.tails.items()
            for head, found in tails.items()
            for tail in found
        }
    assert not facts["train"] & (facts["dev"] | facts["test"]) and not facts["dev"] & facts["test"]
    full = {split: {entity.name for entity in world.entities} for split, world in worlds.items()}
    for split in worlds:
        for sentence in load(corpus, split):
            spans = [tuple(sentence["tokens"][e["start"] : e["end"]]) for e in sentence["entities"]]
            for relation in sentence["relations"]:
                head, tail = spans[relation["head"]], spans[relation["tail"]]
                if {head, tail} <= full[split]:  # short names are ambiguous on purpose
                    assert (head, relation["type"], tail) in facts[split]


def test_no_type_is_rare_and_some_sentences_state_nothing(corpus):
    sentences = load(corpus, "train")
    entities = Counter(entity["type"] for sentence in sentences for entity in sentence["entities"])
    relations = Counter(relation["type"] for sentence in sentences for relation in sentence["relations"])
    assert set(entities) == {"Person", "Organisation", "Place", "Work"} and min(entities.values()) > 2_000
    assert set(relations) == set(RELATIONS) and min(relations.values()) > 300
    silent = sum(not sentence["relations"] for sentence in sentences) / len(sentences)
    assert 0.12 < silent < 0.25
    assert sum(len(sentence["relations"]) > 1 for sentence in sentences) / len(sentences) > 0.25


def test_the_same_verb_stands_in_sentences_with_and_without_its_relation(corpus):
    sentences = load(corpus, "train")
    for word, relation in (("founded", "founded"), ("born", "born_in"), ("works", "works_for"), ("leads", "leads")):
        holds = {relation in {r["type"] for r in s["relations"]} for s in sentences if word in s["tokens"]}
        assert holds == {True, False}, word


def test_sentences_are_varied(corpus):
    sentences = load(corpus, "train")
    words = Counter(word for sentence in sentences for word in sentence["tokens"])
    assert len(patterns()) >= 60
    assert len(words) > 2_000
    assert sum(len(word) >= 12 for word in words) > 100  # long names and words: several pieces for any vocabulary
    assert len(names(sentences, "Person")) > 500
    lengths = [len(sentence["tokens"]) for sentence in sentences]
    assert min(lengths) >= MIN_WORDS and max(lengths) <= MAX_WORDS
    assert 15 < sum(lengths) / len(lengths) < 25 and len(set(lengths)) > 20
    assert len({tuple(sentence["tokens"]) for sentence in sentences}) == len(sentences)


def test_names_of_test_are_unseen_in_training(corpus):
    types = ("Person", "Work")
    test, train = names(load(corpus, "test"), *types), names(load(corpus, "train"), *types)
    assert len(test & train) < 0.05 * len(test)


def test_too_many_or_too_few_sentences_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least 1"):
        write_demo_corpus(tmp_path, sentences=0)


def test_unseen_text_is_that_of_the_first_test_sentences_as_people_write_it(corpus):
    paragraphs = (corpus / UNSEEN_FILE).read_text(encoding="utf-8").strip().split("\n\n")
    test = load(corpus, "test")
    assert len(paragraphs) == UNSEEN_SENTENCES
    assert [paragraph.replace(" ", "") for paragraph in paragraphs] == [
        "".join(sentence["tokens"]) for sentence in test[:UNSEEN_SENTENCES]
    ]
    assert not any(f" {sign}" in paragraph for paragraph in paragraphs for sign in ",.;:")


def test_what_one_half_of_a_sentence_names_often_stands_in_the_other_half_too(corpus):
    def repeats(tokens: list[str]) -> bool:
        halves = tokens[: len(tokens) // 2], tokens[len(tokens) // 2 :]
        first, second = ({word for word in half if len(word) > 5} for half in halves)
        return bool(first & second)

    sentences = load(corpus, "train")
    assert sum(repeats(sentence["tokens"]) for sentence in sentences) > 0.4 * len(sentences)
