"""Relations between given entities: like the plain form, and like those of entities that the model found itself."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace

import pytest
from predicted import check_places, parse_records

from spe_dist import Extractor
from spe_dist.errors import ConfigError, DataError
from spe_dist.extraction.corpora.corpus import Corpus, Document, Entity, Sentence
from spe_dist.extraction.joint.examples import ExampleMaker, make_examples
from spe_dist.extraction.joint.features import Features
from spe_dist.extraction.predicting import given
from spe_dist.extraction.predicting.stream import StreamSettings, predict_sentences

LENGTHS = [4, 0, 31, 1, 60, 9, 9, 45, 2, 17, 5]
TEXT = "John Smith works for IBM in Boston. He likes it, but \U0001f600 she (Ann) went to Paris in 1990."
SPERT = {"tokens": ["Ann", "left", "Bonn"], "entities": [{"type": "X", "start": 0, "end": 1}], "relations": []}


TYPES = Features(pair=("types",), size=3)


@pytest.fixture(scope="module")
def extractor(extractor_folder) -> Extractor:
    return Extractor.from_pretrained(extractor_folder, "cpu", bfloat16=False)


def predict(joint, sentences, given_entities, notices=None, max_pieces=40, features=None, **options):
    maker = ExampleMaker(joint.tokenizer(), None, max_pieces)
    model = joint.build_model(seed=1, features=features)
    settings = StreamSettings(given_entities=given_entities, **options)
    return list(predict_sentences(model, maker, sentences, settings, notices=notices))


def _best(type_logits):
    """The number of the most probable type, whatever None has."""
    return int(type_logits[1:].argmax())


def related(sentence):
    """Relations by the places of their arguments, with probabilities to 6 digits."""
    return sorted((r.head.span, r.tail.span, r.type, round(r.probability, 6)) for r in sentence.relations)


@pytest.mark.parametrize(("batch_pieces", "features"), [(1, None), (60, None), (10_000, None), (60, TYPES)])
def test_what_the_model_found_itself_gives_the_same_relations_when_it_is_given(joint, batch_pieces, features):
    found = predict(joint, joint.random_sentences(2, LENGTHS), False, features=features)
    given_again = [replace(sentence, relations=()) for sentence in found]
    again = predict(joint, given_again, True, features=features, batch_pieces=batch_pieces)
    assert again == found and sum(len(sentence.relations) for sentence in found) > 10
    assert [related(sentence) for sentence in again] == [related(sentence) for sentence in found]
    assert [e.probability for s in again for e in s.entities] == [e.probability for s in found for e in s.entities]


@pytest.mark.parametrize("features", [None, TYPES])
def test_relations_between_given_entities_equal_the_plain_form(joint, features):
    """A relation head that reads types reads those that are given, and of an unknown one the most probable type."""
    sentences = joint.random_sentences(7, LENGTHS)
    for number, sentence in enumerate(sentences):
        renamed = [replace(e, type="unknown") if i % 2 else e for i, e in enumerate(sentence.entities)]
        sentences[number] = replace(sentence, entities=tuple(renamed), relations=())
    notices: Counter[str] = Counter()
    found = predict(joint, sentences, True, notices, features=features)
    model = joint.build_model(seed=1, features=features).eval()
    expected, lost = [], Counter()
    for example, sentence in zip(make_examples(sentences, joint.tokenizer(), None, 40), sentences, strict=True):
        reader, relations = joint.SlowReader(model, example), []
        distinct = set(sentence.entities)
        spans = sorted({entity.span for entity in distinct})
        type_of = {entity.span: entity.type for entity in reversed(sentence.entities)}

        def class_of(span, reader=reader, type_of=type_of):
            known = type_of[span] in joint.LABELS.entity_types
            return 1 + (joint.LABELS.entity_types.index(type_of[span]) if known else _best(reader.type_logits(*span)))

        lost[given.REPEATED_GIVEN] += len(distinct) - len(spans)
        for first, second in itertools.combinations(spans, 2):
            if first[1] > second[0]:
                lost[given.OVERLAPPING_GIVEN] += 1
            elif reader.best_window(first[0], second[1]) is None:
                lost[given.APART_GIVEN] += 1
            else:
                classes = (class_of(first), class_of(second)) if features else (0, 0)
                probability, number = reader.relation_logits(first, second, classes).detach().softmax(0).max(0)
                if number > 0:
                    name = joint.LABELS.relation_types[(int(number) - 1) // 2]
                    pair = (first, second) if number % 2 == 1 else (second, first)
                    relations.append((*pair, name, round(float(probability), 6)))
        expected.append(sorted(relations))
    assert [related(sentence) for sentence in found] == expected
    assert sum(map(len, expected)) > 5 and lost[given.OVERLAPPING_GIVEN] and lost[given.REPEATED_GIVEN]
    assert {name: notices[name] for name in lost} == dict(lost)
    for sentence in found:
        first = {entity.span: entity for entity in reversed(sentence.entities)}
        assert all(argument == first[argument.span] for r in sentence.relations for argument in (r.head, r.tail))


def test_given_entities_stay_as_they_are_and_have_the_probability_1(joint):
    whole, parts = Entity(2, 4, "of no model"), Entity(5, 9, "parts", ((5, 6), (8, 9)))
    sentence = replace(
        joint.random_sentences(2, [12])[0], entities=(whole, parts, Entity(0, 1, "loc", probability=0.5))
    )
    notices: Counter[str] = Counter()
    (found,) = predict(joint, [sentence], True, notices)
    assert found.entities == sentence.entities and [e.probability for e in found.entities] == [1.0, 1.0, 0.5]
    assert notices[given.DISCONTINUOUS_GIVEN] == 1
    assert all(parts not in (relation.head, relation.tail) for relation in found.relations)


def test_results_of_one_call_are_inputs_of_another(extractor):
    (first, second) = found = extractor.predict(TEXT)
    assert extractor.predict(found, entities="given") == found and first.relations
    assert extractor.predict(second, entities="given") == second
    without = replace(first, entities=first.entities[:1], relations=())
    assert extractor.predict([without], entities="given") == [without]
    of_corpus = Sentence(first.words, tuple(Entity(e.start_word, e.end_word, "T") for e in first.entities))
    (by_words,) = extractor.predict([of_corpus], entities="given")
    assert {e.type for e in by_words.entities} == {"T"} and by_words.text == " ".join(first.words)
    assert [(r.type, r.head.start_word) for r in by_words.relations] == [
        (r.type, r.head.start_word) for r in first.relations
    ]
    corpus = Corpus((Document("", (of_corpus,)),))
    (of_document,) = extractor.predict_corpus(corpus, entities="given").sentences
    assert of_document.entities == of_corpus.entities and len(of_document.relations) == len(first.relations)


def test_objects_give_what_the_same_file_gives(extractor, tmp_path):
    records = [{**SPERT, "entities": [*SPERT["entities"], {"type": "Y", "start": 2, "end": 3}]}, SPERT]
    sentences = extractor.predict(records, entities="given")
    assert [[e.text for e in sentence.entities] for sentence in sentences] == [["Ann", "Bonn"], ["Ann"]]
    assert extractor.predict(records[0], entities="given") == sentences[0]
    path = tmp_path / "file.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert list(extractor.predict_files(path, entities="given")) == sentences


def test_offsets_of_entities_given_by_character_are_those_of_the_text(extractor, run, tmp_path):
    found = extractor.predict(TEXT)
    entities = [{"start": e.start_char, "end": e.end_char, "type": e.type} for s in found for e in s.entities]
    record = {"id": "t1", "text": TEXT, "entities": entities, "relations": []}
    again = extractor.predict(record, entities="given")
    assert again == found and extractor.predict([record, record], entities="given") == [found, found]
    assert [e.probability for s in again for e in s.entities] == [1.0] * len(entities)
    path = tmp_path / "text.jsonl"
    path.write_text(json.dumps(record))
    status, out, _ = run(path, "--entities", "given")
    records = parse_records(out)
    assert status == 0 and [(r["id"], r["line"], r["sentence"], r["start"]) for r in records] == [
        ("t1", 1, number, sentence.start_char) for number, sentence in enumerate(found)
    ]
    for record in records:
        check_places(record, TEXT)


def test_texts_with_given_entities_are_cut_into_words_as_the_extractor_cuts_text(extractor, extractor_folder, tmp_path):
    text = "\u5f20\u4e09\u5728\u5317\u4eac\u3002"
    record = {"text": text, "entities": [{"start": 3, "end": 5, "type": "A"}], "relations": []}
    chinese = Extractor.from_pretrained(extractor_folder, "cpu", bfloat16=False, language="zh")
    (words,) = (sentence.words for sentence in chinese.predict(text))
    assert [s.words for s in chinese.predict(record, entities="given")] == [words] == [tuple(text)]
    path = tmp_path / "text.jsonl"
    path.write_text(json.dumps(record))
    assert [s.words for s in chinese.predict_files(path, entities="given")] == [words]


def test_given_entities_that_are_lost_are_among_the_notices(extractor_folder, tmp_path):
    extractor = Extractor.from_pretrained(extractor_folder, "cpu", bfloat16=False)
    entities = [{"start": 0, "end": 99, "type": "T"}, {"start": 1, "end": 20, "type": "T"}]
    record = {"text": "Ann lives in Bonn. Bob too.", "entities": entities, "relations": []}
    found = extractor.predict(record, entities="given")
    assert not any(sentence.entities for sentence in found)
    told = dict(extractor.notices)
    assert told["entities whose offsets are not in their text, left out"] == told[given.ACROSS_GIVEN] == 1
    assert extractor.predict([record] * 2, entities="given") == [found, found]
    assert extractor.notices == {reason: 3 * times for reason, times in told.items()}
    extractor.notices.clear()
    path = tmp_path / "text.jsonl"
    path.write_text(json.dumps(record))
    assert list(extractor.predict_files(path, entities="given")) == found
    assert extractor.notices.keys() >= {given.ACROSS_GIVEN} and extractor.notices.total() == sum(told.values())


def test_entities_across_sentences_are_counted(run, tmp_path):
    path = tmp_path / "documents.jsonl"
    path.write_text(
        json.dumps({"sentences": [["Ann", "left"], ["Bonn"]], "ner": [[[0, 2, "T"]], []], "relations": [[], []]})
    )
    status, out, err = run(path, "--entities", "given")
    assert status == 0 and len(parse_records(out)) == 2 and f"{given.ACROSS_GIVEN}: 1" in err


@pytest.mark.parametrize(
    ("item", "options", "message"),
    [
        (["Ann", "left"], {"entities": "given"}, "input 0 is list, which carries no entities"),
        ("Ann left", {"entities": "given"}, "input 0 is str, which carries no entities"),
        (SPERT, {}, "input 0 is dict, which carries entities; give entities='given'"),
        (
            Sentence(("Ann",), (Entity(0, 2, "T"),)),
            {"entities": "given"},
            "'T' from word 0 to 2 is not in its sentence",
        ),
        ({"text": 5}, {"entities": "given"}, "input 0"),
        ({"tokens": {1, 2}}, {"entities": "given"}, "input 0 is not a JSON object"),
    ],
)
def test_inputs_that_do_not_fit_are_named(extractor, item, options, message):
    with pytest.raises(DataError) as caught:
        extractor.predict([item], **options)
    assert message in str(caught.value)


def test_an_unknown_choice_of_entities_is_refused(extractor):
    with pytest.raises(ConfigError, match="choose 'found' or 'given'"):
        extractor.predict("Ann", entities="gold")


def test_the_command_finds_relations_between_the_entities_of_a_corpus(run, tmp_path):
    words = tmp_path / "words.json"
    words.write_text(json.dumps([{**SPERT, "tokens": text.split(), "entities": []} for text in TEXT.split(".")[:2]]))
    marked, again = tmp_path / "marked.json", tmp_path / "again.json"
    assert run(words, "--format", "corpus", "--output", marked)[0] == 0
    status, _, err = run(marked, "--format", "corpus", "--entities", "given", "--output", again)
    assert status == 0 and again.read_bytes() == marked.read_bytes() and "given entities" in err
    status, out, _ = run(marked, "--entities", "given")
    status_found, out_found, _ = run(marked)
    assert status == status_found == 0 and parse_records(out) == parse_records(out_found)
    assert any(record["relations"] for record in parse_records(out))
    status, _, err = run(marked, "--entities", "given", "--tokenised")
    assert status == 2 and "--entities given reads a corpus as it is, without --tokenised" in err
