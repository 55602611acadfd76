"""Documents of gold and predictions are matched by name where both have the same names, else by order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from spe_dist.errors import DataError
from spe_dist.extraction.corpora.corpus import Corpus, Document, Entity, Sentence
from spe_dist.extraction.scoring.alignment import aligned
from spe_dist.extraction.scoring.comparison import compare_systems
from spe_dist.extraction.scoring.gold_entities import check_gold_entities
from spe_dist.extraction.scoring.scores import score
from spe_dist.extraction.thresholds.curves import threshold_curves

NAMES = ["a", "b/c", "r7"]
PATHS = ["texts/a.txt", "r7", "texts/b/c.txt.gz"]


def corpus(names: Sequence[str], words: str = "", probability: float | None = None) -> Corpus:
    """A document of one sentence for each name, whose word it is, as an entity of its own type."""
    documents = []
    for number, name in enumerate(names):
        word = (words or name.removeprefix("texts/").split(".")[0]).split()
        own = word[number] if words else word[0]
        entity = Entity(0, 1, own, probability=probability)
        documents.append(Document(name, (Sentence((own, "is", "here"), (entity,)),)))
    return Corpus(tuple(documents), "a file")


def test_documents_of_the_same_names_are_matched_in_any_order():
    gold = corpus(["r7", "texts/a", "texts/b/c"])
    predicted = corpus(PATHS, probability=0.9)
    found = aligned(gold, predicted)
    assert [document.id for document in found.documents] == ["r7", "texts/a.txt", "texts/b/c.txt.gz"]
    for numbers in (score(gold, predicted), compare_systems(gold, predicted, predicted, draws=2, test_draws=2).b):
        assert numbers.entity.f1 == 1
    assert threshold_curves(gold, predicted).entities[0].entity.f1 == 1
    check_gold_entities(gold, predicted)


def test_folders_that_all_have_in_common_and_endings_do_not_count():
    gold = corpus(["b", "a"])
    assert score(gold, corpus(["x/y/a.txt", "x/y/b.jsonl"], "a b")).entity.f1 == 1


def test_equal_sentences_of_documents_with_other_names_are_not_confused():
    gold, predicted = corpus(["a", "b"], "same same"), corpus(["b", "a"], "same same")
    other = Corpus((predicted.documents[0], corpus(["a"], "same").documents[0]), "a file")
    assert [document.id for document in aligned(gold, other).documents] == ["a", "b"]


@pytest.mark.parametrize("names", [["", "", ""], ["a", "b", "z"], ["b", "a", "c"]])
def test_without_the_same_names_sentences_are_matched_by_order(names):
    gold = corpus(["a", "b", "c"], "x y z")
    predicted = corpus(names, "x y z")
    assert aligned(gold, predicted) is predicted
    with pytest.raises(DataError, match=r"sentence 1 differs at word 1: it is 'x' in gold and is 'q'"):
        aligned(gold, corpus(names, "q y z"))
    with pytest.raises(DataError, match="every gold sentence needs its prediction"):
        aligned(gold, corpus(names[:2], "x y"))
