"""Exports of annotation tools: recognised by content, with the same meaning in each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from annotation_tools import (
    DOCCANO,
    ENTITIES,
    LABEL_STUDIO,
    PRODIGY,
    PUBTATOR,
    RELATIONS,
    entities_of,
    relations_of,
)
from project import ROOT, SHARED

from spe_dist.extraction.corpora.statistics import count_corpus
from spe_dist.extraction.formats import read_corpus, write_corpus, written_format
from spe_dist.extraction.scoring.scores import score

CASES = SHARED / "cases/annotations"
EXPORTS: dict[str, str] = {
    "doccano": json.dumps(DOCCANO),
    "label_studio": json.dumps([LABEL_STUDIO], indent=1),
    "prodigy": f"{json.dumps(PRODIGY)}\n",
    "pubtator": PUBTATOR,
}
WORDS = ["🙂 Ada Lovelace wrote code .", "It ran ."]
CASE_ENTITIES = [
    ("Ada Lovelace", "Person"),
    ("Acme", "Organisation"),
    ("Corex", "Organisation"),
    ("Bob", "Person"),
    ("Bob", "Person"),
    ("London", "City"),
    ("she", "Person"),
]


@pytest.mark.parametrize("name", EXPORTS)
def test_each_export_is_told_by_content_and_means_the_same(tmp_path: Path, name: str) -> None:
    path = tmp_path / "no_telling_name"
    path.write_text(EXPORTS[name], encoding="utf-8")
    corpus = read_corpus(path)
    assert corpus.format == name
    assert [" ".join(sentence.words) for sentence in corpus.sentences] == WORDS
    assert entities_of(corpus) == ENTITIES and relations_of(corpus) == RELATIONS
    assert corpus.documents[0].id == "7" and len(corpus.documents) == 1
    assert corpus.sentences[0].origin.startswith(f"{path}, line")
    assert read_corpus(path, name).sentences == corpus.sentences


@pytest.mark.parametrize("name", EXPORTS)
def test_predictions_on_an_export_are_scored_against_it(tmp_path: Path, name: str) -> None:
    path, written = tmp_path / "export", tmp_path / "predicted.jsonl"
    path.write_text(EXPORTS[name], encoding="utf-8")
    gold = read_corpus(path)
    predicted = gold.with_sentences(replace(sentence, relations=()) for sentence in gold.sentences)
    write_corpus(predicted, written, written_format(gold.format))
    again = read_corpus(written)
    assert entities_of(again) == ENTITIES and again.documents[0].text == gold.documents[0].text
    counts = score(gold, again)
    assert counts.entity.f1 == 1 and counts.relation.recall == 0


def case(name: str) -> Any:
    if not CASES.is_dir():
        pytest.skip("the cases beside the project are not here")
    return read_corpus(CASES / name)


@pytest.mark.parametrize("name", ["doccano.jsonl", "label_studio.json", "prodigy.jsonl"])
def test_tools_agree_on_a_text_with_an_emoji(name: str) -> None:
    corpus = case(name)
    assert entities_of(corpus) == CASE_ENTITIES
    assert relations_of(corpus) == [
        ("owns", "Ada Lovelace", "Acme"),
        ("part of", "Acme", "Corex"),
        ("founded", "Ada Lovelace", "Acme"),
        ("left", "Bob", "London"),
    ]
    assert count_corpus(corpus).counts["relations"] == 5  # one is between sentences
    assert any("answer 'reject'" in notice for notice in corpus.notices) == (name == "prodigy.jsonl")


def test_plain_spans_of_doccano_have_no_relations() -> None:
    corpus = case("doccano_spans.jsonl")
    assert entities_of(corpus) == CASE_ENTITIES and not relations_of(corpus)


def test_a_relation_of_concepts_stands_between_their_mentions_in_a_sentence() -> None:
    corpus = case("pubtator.txt")
    assert entities_of(corpus) == [
        ("Aspirin", "Chemical"),
        ("bleeding", "Disease"),
        ("Aspirin", "Chemical"),
        ("bleeding", "Disease"),
        ("aspirin", "Chemical"),
    ]
    assert relations_of(corpus) == [("CID", "Aspirin", "bleeding")] * 2  # one in the title, one in the abstract
    assert list(corpus.notices.values()) == [1]


def test_the_example_of_pubtator_in_the_documentation_is_read(tmp_path: Path) -> None:
    page = (ROOT / "docs/formats.md").read_text(encoding="utf-8")
    lines = page.split('=== "pubtator"')[1].split("```")[1].splitlines()[1:]
    path = tmp_path / "example"
    path.write_text("\n".join(line.removeprefix("    ") for line in lines), encoding="utf-8")
    assert relations_of(read_corpus(path)) == [("CID", "Aspirin", "bleeding")] * 2
