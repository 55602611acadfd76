"""The Python call: texts, word lists and streams, the same however they are batched; nothing of DeepSpeed."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from functools import partial
from itertools import count, islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from project import ROOT

from spe_dist import Extractor
from spe_dist.errors import CheckpointError, ConfigError, DataError
from spe_dist.extraction.corpora.corpus import Corpus, Document
from spe_dist.extraction.corpora.corpus import Sentence as CorpusSentence
from spe_dist.extraction.formats.notices import BLANK_WORDS
from spe_dist.extraction.joint.thresholds import Thresholds
from spe_dist.extraction.predicting import extractor as extractor_module
from spe_dist.extraction.predicting.device import choose_device
from spe_dist.extraction.predicting.stream import StreamSettings

TEXT = "John Smith works for IBM in Boston. He likes it, but \U0001f600 she (Ann) went to Paris in 1990."
LONG = " ".join(f"word{i}" for i in range(60)) + "."


@pytest.fixture(scope="module")
def extractor(extractor_folder) -> Extractor:
    return Extractor.from_pretrained(extractor_folder, "cpu", bfloat16=False)


def test_a_text_gives_its_sentences_with_places_and_probabilities(extractor):
    sentences = extractor.predict(TEXT)
    assert len(sentences) == 2
    assert sum(len(sentence.entities) for sentence in sentences) > 2 and any(s.relations for s in sentences)
    for sentence in sentences:
        assert TEXT[sentence.start_char : sentence.end_char] == sentence.text
        assert [TEXT[a:b] for a, b in sentence.word_offsets] == list(sentence.words)
        for entity in sentence.entities:
            assert TEXT[entity.start_char : entity.end_char] == entity.text and 0 < entity.probability <= 1
            assert entity.text.split()[0] == sentence.words[entity.start_word]
        for relation in sentence.relations:
            assert any(relation.head is entity for entity in sentence.entities)
            assert any(relation.tail is entity for entity in sentence.entities)
            assert relation.type in extractor.labels.relation_types and 0 < relation.probability <= 1


def test_half_a_surrogate_pair_is_read_as_a_question_mark(extractor):
    (of_text,), of_words = extractor.predict(["Ann \ud800 left .", ["Ann", "\ud800", "left", "."]])
    assert of_text.words == of_words.words == ("Ann", "?", "left", ".")


def test_words_that_hold_nothing_are_counted(extractor_folder):
    extractor = Extractor.from_pretrained(extractor_folder, "cpu", bfloat16=False)
    extractor.predict([["Ann", "", " "], ["left"]])
    assert extractor.notices == {BLANK_WORDS: 2}


def test_texts_give_lists_and_word_lists_give_sentences(extractor):
    texts = ["", TEXT, " \n", "One. Two.", ""]
    assert [len(sentences) for sentences in extractor.predict(texts)] == [0, 2, 0, 2, 0]
    words = [["John", "works"], [], ["a b", "c"]]
    sentences = extractor.predict(words)
    assert [sentence.words for sentence in sentences] == [("John", "works"), (), ("a b", "c")]
    assert sentences[2].text == "a b c" and sentences[2].word_offsets == ((0, 3), (4, 5))
    assert extractor.predict([sentence.words for sentence in sentences]) == sentences
    assert extractor.predict("") == extractor.predict([]) == []


def test_predictions_are_the_same_streamed_or_not_in_any_batch(extractor, extractor_folder, monkeypatch):
    texts = [TEXT, LONG, "He, too.", "", LONG + " " + TEXT] * 3
    together = extractor.predict(texts)
    assert any(sentence.relations for sentences in together for sentence in sentences)
    streamed = list(extractor.predict_stream(iter(texts)))
    one_by_one = [extractor.predict(text) for text in texts]
    small = Extractor.from_pretrained(extractor_folder, "cpu", bfloat16=False, batch_pieces=1)
    others = [streamed, one_by_one, small.predict(texts)]
    monkeypatch.setattr(extractor_module, "StreamSettings", partial(StreamSettings, buffered_sentences=2))
    for other in (*others, extractor.predict(texts)):
        assert other == together
        for a, b in zip((s for x in other for s in x), (s for x in together for s in x), strict=True):
            assert [e.probability for e in a.entities] == pytest.approx([e.probability for e in b.entities], abs=1e-4)


def test_a_stream_without_end_gives_results_as_it_goes(extractor):
    results = extractor.predict_stream(f"This is number {i}." for i in count())
    assert [sentences[0].words[3] for sentences in islice(results, 3000)] == [str(i) for i in range(3000)]


@given(
    st.text(st.one_of(st.sampled_from("aB1 .,\n\x00\U0001f600"), st.characters(exclude_categories=["Cs"])), max_size=60)
)
@settings(max_examples=40)
def test_entities_of_any_text_stand_where_their_offsets_say(extractor, text):
    for sentence in extractor.predict(text):
        record = sentence.to_dict()
        assert text[record["start"] : record["end"]] == record["text"]
        for entity in record["entities"]:
            first, end = entity["words"]
            assert text[entity["start"] : entity["end"]] == entity["text"]
            assert entity["start"] == record["word_offsets"][first][0]
            assert entity["end"] == record["word_offsets"][end - 1][1]
        for relation in record["relations"]:
            assert relation["head"] != relation["tail"]
            assert 0 <= relation["head"] < len(record["entities"]) > relation["tail"] >= 0
        line = sentence.to_json()
        assert json.loads(line) == record and len(line.splitlines()) == 1
        assert len(str(sentence).splitlines()) == 1 + len(sentence.relations)


@pytest.mark.parametrize("limit", [0.0, 0.15, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("other", [None, 0.0, 0.3])
def test_limits_leave_out_the_less_probable_and_relations_without_their_entities(extractor, limit, other):
    whole = extractor.predict([TEXT, LONG])
    limited = extractor.predict([TEXT, LONG], min_probability=limit, min_probability_relations=other)
    relation_limit = limit if other is None else other
    for before, after in zip((s for x in whole for s in x), (s for x in limited for s in x), strict=True):
        assert after.entities == tuple(e for e in before.entities if e.probability >= limit)
        assert after.relations == tuple(
            r for r in before.relations if r.probability >= relation_limit and {r.head, r.tail} <= set(after.entities)
        )


def test_a_batch_size_bounds_the_sentences_of_a_batch(extractor, monkeypatch):
    sizes = []
    read = extractor.model._read
    monkeypatch.setattr(extractor.model, "_read", lambda batch: sizes.append(batch.n_examples) or read(batch))
    few = list(extractor.predict_stream([TEXT] * 5, batch_size=3))
    assert sizes == [3, 3, 3, 1]
    assert few == extractor.predict([TEXT] * 5) and sizes[4:] == [10]


def test_a_corpus_comes_back_with_predictions_in_place_of_its_gold(extractor):
    words = [("John", "Smith", "works", "for", "IBM", "."), ("Ann", "left", ".")]
    gold = Corpus(tuple(Document(str(i), (CorpusSentence(w),)) for i, w in enumerate(words)), "x.json", "spert")
    predicted = extractor.predict_corpus(gold)
    assert (predicted.source, predicted.format) == ("x.json", "spert")
    for sentence, found in zip(predicted.sentences, extractor.predict(words), strict=True):
        assert [(e.start, e.end, e.type) for e in sentence.entities] == [
            (e.start_word, e.end_word, e.type) for e in found.entities
        ]
        assert len(sentence.relations) == len(found.relations)
    assert extractor.predict_corpus(gold, min_probability_entities=1).sentences == gold.sentences


def test_several_threads_find_what_one_finds(extractor, extractor_folder):
    texts = [TEXT, LONG, "He, too.", "", LONG + " " + TEXT] * 4
    torch.set_num_threads(3)
    try:
        assert extractor.predict(texts) == Extractor.from_pretrained(extractor_folder, "cpu", bfloat16=False).predict(
            texts
        )
        several = extractor.predict(texts)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    assert several == extractor.predict(texts)


def test_a_printed_extractor_names_its_model_and_types(extractor):
    shown = repr(extractor)
    assert shown.startswith("Extractor(") and "cpu, float32" in shown and "\n" not in shown
    assert all(name in shown for name in (*extractor.labels.entity_types, *extractor.labels.relation_types))


def test_a_printed_extractor_says_that_its_training_found_nothing(extractor, monkeypatch):
    assert extractor.doubt() is None
    scores = {"corpus": "dev.json", "entity": 0.4, "relation": 0.0}
    monkeypatch.setattr(extractor, "facts", {"scores": {"dev": scores}})
    assert "got no relation of dev.json right; train it longer" in repr(extractor)
    monkeypatch.setattr(extractor, "facts", {"scores": {"dev": scores | {"entity": 0.0}}})
    assert "got no entity of dev.json right; train it longer" in repr(extractor)
    monkeypatch.setattr(extractor, "thresholds", Thresholds(0.2, 0.1))  # with which that was not scored
    assert extractor.doubt() is None
    monkeypatch.undo()
    monkeypatch.setattr(extractor, "facts", {"scores": {"dev": scores | {"relation": 0.1}}})
    assert extractor.doubt() is None


@pytest.mark.parametrize("bfloat16", [False, None])
def test_an_extractor_can_be_copied_and_sent_to_another_process(extractor_folder, bfloat16):
    extractor = Extractor.from_pretrained(extractor_folder, "cpu", bfloat16=bfloat16)
    found = extractor.predict([TEXT, LONG])
    for copied in (copy.deepcopy(extractor), pickle.loads(pickle.dumps(extractor))):
        assert copied.notices == extractor.notices and copied.predict([TEXT, LONG]) == found


def test_what_is_no_text_and_what_is_no_model_are_errors(extractor, tmp_path):
    with pytest.raises(DataError, match="input 1 is int; give a text"):
        extractor.predict(["a", 3])
    with pytest.raises(DataError, match="input 0 is list"):
        extractor.predict([["a", None]])
    with pytest.raises(DataError, match="input 0 is dict, which carries entities"):
        extractor.predict({"text": "a"})
    with pytest.raises(DataError, match="was given int"):
        extractor.predict(5)
    few = {"batch_size": np.int64(2), "min_probability": np.float32(0.5)}
    assert extractor.predict(TEXT, **few) == extractor.predict(TEXT, batch_size=2, min_probability=0.5)
    for size in (0, 2.5):
        with pytest.raises(ConfigError, match=f"batch_size={size} must be a whole number from 1 on"):
            extractor.predict("a", batch_size=size)
    for limit in ("0.5", None):
        with pytest.raises(ConfigError, match=f"min_probability of entities={limit!r} is not a probability"):
            extractor.predict("a", min_probability=limit)
    with pytest.raises(ConfigError, match="min_probability of relations=2 is not a probability"):
        extractor.predict_stream(["a"], min_probability_relations=2)
    with pytest.raises(DataError, match=r"none\.txt does not exist"):
        list(extractor.predict_files(tmp_path / "none.txt"))
    with pytest.raises(CheckpointError, match="not a fine-tuned folder"):
        Extractor.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="device='gpu' is unknown"):
        choose_device("gpu")
    with pytest.raises(ConfigError, match="device='meta' is unknown"):
        choose_device("meta")
    with pytest.raises(ConfigError, match="choose cpu"):
        choose_device("cuda:99")


@pytest.mark.slow
def test_the_extractor_needs_no_deepspeed_and_the_package_no_torch(extractor_folder):
    code = (
        "import sys\n"
        "import spe_dist.extraction, spe_dist.extraction.corpora.corpus\n"
        "assert 'torch' not in sys.modules\n"
        "from spe_dist import Extractor\n"
        "extractor = Extractor.from_pretrained(sys.argv[1])\n"
        "assert len(extractor.predict('One here. Two there.')) == 2\n"
        "import spe_dist.extraction.predicting.files\n"
        "assert not [name for name in sys.modules if name.startswith('deepspeed')]\n"
    )
    subprocess.run([sys.executable, "-c", code, str(extractor_folder)], check=True, cwd=ROOT)
