"""The Python call: texts, word lists and streams, the same however they are batched; nothing of DeepSpeed."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from itertools import count, islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from project import ROOT

from spe_dist import Extractor
from spe_dist.errors import CheckpointError, ConfigError, DataError
from spe_dist.extraction.corpora.corpus import Sentence
from spe_dist.extraction.predicting import extractor as extractor_module
from spe_dist.extraction.predicting.extractor import choose_device
from spe_dist.extraction.predicting.records import above, char_span, to_line, to_record
from spe_dist.extraction.predicting.sentences import predict_sentences

TEXT = "John Smith works for IBM in Boston. He likes it, but \U0001f600 she (Ann) went to Paris in 1990."
LONG = " ".join(f"word{i}" for i in range(60)) + "."


@pytest.fixture(scope="module")
def extractor(extractor_folder) -> Extractor:
    return Extractor.from_pretrained(extractor_folder, "cpu", bfloat16=False)


def _found(sentence: Sentence):
    """What was found, without probabilities, which depend on the batch in their last digits."""
    return sentence.words, sentence.entities, sentence.relations


def test_a_text_gives_its_sentences_with_places_and_probabilities(extractor):
    sentences = extractor.predict(TEXT)
    assert len(sentences) == 2
    assert sum(len(sentence.entities) for sentence in sentences) > 2 and any(s.relations for s in sentences)
    for sentence in sentences:
        start = sentence.extra["start"]
        assert TEXT[start : start + len(sentence.text)] == sentence.text
        for entity in sentence.entities:
            a, b = char_span(sentence, entity)
            assert TEXT[start + a : start + b].split() and 0 < entity.probability <= 1
        assert all(relation.head in sentence.entities for relation in sentence.relations)


def test_half_a_surrogate_pair_is_read_as_a_question_mark(extractor):
    (of_text,), of_words = extractor.predict(["Ann \ud800 left .", ["Ann", "\ud800", "left", "."]])
    assert of_text.words == of_words.words == ("Ann", "?", "left", ".")


def test_texts_give_lists_and_word_lists_give_sentences(extractor):
    texts = ["", TEXT, " \n", "One. Two.", ""]
    assert [len(sentences) for sentences in extractor.predict(texts)] == [0, 2, 0, 2, 0]
    words = [["John", "works"], [], ["a b", "c"]]
    sentences = extractor.predict(words)
    assert [sentence.words for sentence in sentences] == [("John", "works"), (), ("a b", "c")]
    assert sentences[2].text == "a b c" and sentences[2].char_spans == ((0, 3), (4, 5))
    assert [_found(s) for s in extractor.predict(sentences)] == [_found(s) for s in sentences]
    assert extractor.predict("") == extractor.predict([]) == []


def test_predictions_are_the_same_streamed_or_not_in_any_batch(extractor, extractor_folder, monkeypatch):
    texts = [TEXT, LONG, "He, too.", "", LONG + " " + TEXT] * 3
    together = extractor.predict(texts)
    assert any(sentence.relations for sentences in together for sentence in sentences)
    streamed = list(extractor.predict_stream(iter(texts)))
    one_by_one = [extractor.predict(text) for text in texts]
    small = Extractor.from_pretrained(extractor_folder, "cpu", bfloat16=False, batch_pieces=1)
    others = [streamed, one_by_one, small.predict(texts)]
    monkeypatch.setattr(extractor_module, "predict_sentences", partial(predict_sentences, buffered_sentences=2))
    for other in (*others, extractor.predict(texts)):
        assert [[_found(s) for s in sentences] for sentences in other] == [
            [_found(s) for s in sentences] for sentences in together
        ]
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
        record = to_record(sentence)
        assert text[record["start"] : record["end"]] == record["text"]
        for entity in record["entities"]:
            first, end = entity["words"]
            assert text[entity["start"] : entity["end"]] == entity["text"]
            assert entity["start"] == record["word_offsets"][first][0]
            assert entity["end"] == record["word_offsets"][end - 1][1]
        for relation in record["relations"]:
            assert relation["head"] != relation["tail"]
            assert 0 <= relation["head"] < len(record["entities"]) > relation["tail"] >= 0
        line = to_line(record)
        assert json.loads(line) == record and len(line.splitlines()) == 1


def test_sentences_without_text_are_written_as_their_words_joined(extractor):
    sentence = extractor.predict([Sentence(("John", "Smith", "went"))])[0]
    assert sentence.text is None
    assert to_record(sentence)["text"] == "John Smith went"


def test_a_limit_leaves_out_the_less_probable_and_relations_without_their_entities(extractor):
    sentences = extractor.predict([TEXT, LONG] * 2)
    for sentence in (s for found in sentences for s in found):
        for limit in (0.0, 0.15, 0.2, 0.5, 1.0):
            kept = above(sentence, limit)
            assert set(kept.entities) == {e for e in sentence.entities if e.probability >= limit}
            assert all(r.probability >= limit and {r.head, r.tail} <= set(kept.entities) for r in kept.relations)
            to_record(kept)


def test_what_is_no_text_and_what_is_no_model_are_errors(extractor, tmp_path):
    with pytest.raises(DataError, match="input 1 is int; give a text"):
        extractor.predict(["a", 3])
    with pytest.raises(DataError, match="input 0 is list"):
        extractor.predict([["a", None]])
    with pytest.raises(DataError, match="was given dict"):
        extractor.predict({"text": "a"})
    with pytest.raises(DataError, match="was given int"):
        extractor.predict(5)
    with pytest.raises(CheckpointError, match="no fine-tuned folder"):
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
