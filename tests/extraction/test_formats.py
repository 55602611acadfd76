"""Reading and writing corpora: four formats, told apart by content; nothing is lost without being counted."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spe_dist.errors import ConfigError, DataError
from spe_dist.extraction.corpus import Corpus, CrossEntity, CrossRelation, Document, Entity, Relation, Sentence
from spe_dist.extraction.formats import FORMATS, read_corpus, write_corpus

SHARED = Path(__file__).resolve().parents[2] / "../shared/data/extraction"
REAL = ["scierc/dev.json", "scierc/test.json", "conll04/dev.json"]

ADA, CODE, LONDON = Entity(0, 2, "Person"), Entity(3, 4, "Work"), Entity(1, 2, "Place")
DYGIE = {
    "doc_key": "d1",
    "sentences": [["Ada", "Lovelace", "wrote", "code"], ["In", "London", "."]],
    "ner": [[[0, 1, "Person"], [3, 3, "Work"]], [[5, 5, "Place"]]],
    "relations": [[[3, 3, 0, 1, "Made-By"]], []],
    "clusters": [[[0, 1]]],
}
SPERT = {
    "tokens": ["Ada", "Lovelace", "wrote", "code"],
    "entities": [{"type": "Person", "start": 0, "end": 2}, {"type": "Work", "start": 3, "end": 4}],
    "relations": [{"type": "Made-By", "head": 1, "tail": 0}],
    "orig_id": 7,
}
PSPE = {
    "sentId": 0,
    "articleId": "d1",
    "sentText": "Ada Lovelace wrote code",
    "entityMentions": [
        {"emId": "E1", "text": "Ada Lovelace", "offset": [0, 2], "label": "Person"},
        {"emId": "E2", "text": "code", "offset": [3, 4], "label": "Work"},
    ],
    "relationMentions": [
        {"em1Id": "E2", "em1Text": "code", "em2Id": "E1", "em2Text": "Ada Lovelace", "label": "Made-By"}
    ],
    "wordpieceSentText": "kept",
}
NYT = {
    "sentText": "Ada Lovelace wrote code\r\n",
    "articleId": "a1",
    "relationMentions": [{"em1Text": "code", "em2Text": "Ada Lovelace", "label": "Made-By"}],
    "entityMentions": [
        {"start": 0, "label": "Person", "text": "Ada Lovelace"},
        {"start": 1, "label": "Work", "text": "code"},
    ],
}
EXAMPLES: dict[str, dict[str, Any]] = {"dygie": DYGIE, "spert": SPERT, "pspe": PSPE, "nyt": NYT}


def put(folder: Path, *records: Any, name: str = "file.json") -> Path:
    path = folder / name
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def plain(corpus: Corpus) -> list[Document]:
    """Documents without what says from which file they are."""
    return [
        replace(document, sentences=tuple(replace(sentence, origin="") for sentence in document.sentences))
        for document in corpus.documents
    ]


def changed(record: Any, keys: Sequence[str | int], value: Any) -> Any:
    """A deep copy with one value replaced; with KeyError as value, removed."""
    copy = json.loads(json.dumps(record))
    inner = copy
    for key in keys[:-1]:
        inner = inner[key]
    if value is KeyError:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    return copy


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_told_by_content_and_means_the_same(tmp_path: Path, name: str) -> None:
    corpus = read_corpus(put(tmp_path, EXAMPLES[name], name="no_telling_name"))
    sentence = corpus.sentences[0]
    assert corpus.format == name
    assert sentence.words == ("Ada", "Lovelace", "wrote", "code")
    assert sentence.entities == (ADA, CODE)
    assert sentence.relations == (Relation("Made-By", head=CODE, tail=ADA),)
    assert sentence.origin.startswith(f"{tmp_path}/no_telling_name, line 1")


def test_dygie_offsets_count_words_of_the_document_and_other_fields_are_kept(tmp_path: Path) -> None:
    (document,) = read_corpus(put(tmp_path, DYGIE)).documents
    assert document.id == "d1" and document.extra == {"clusters": [[[0, 1]]]}
    assert document.sentences[1].entities == (LONDON,)


def test_dygie_gold_across_sentences_stays_with_the_document(tmp_path: Path) -> None:
    record = changed(DYGIE, ["ner", 0], [[0, 1, "Person"], [3, 4, "Work"]])
    record["relations"] = [[[0, 1, 5, 5, "In"], [3, 4, 0, 1, "Made-By"]], []]
    (document,) = read_corpus(put(tmp_path, record)).documents
    person, work = CrossEntity(0, 2, "Person"), CrossEntity(3, 5, "Work")
    assert document.sentences[0].entities == (ADA,) and document.sentences[0].relations == ()
    assert document.cross_entities == (work,)
    assert document.cross_relations == (
        CrossRelation("In", person, CrossEntity(5, 6, "Place")),
        CrossRelation("Made-By", work, person),
    )


def test_dygie_argument_that_is_no_entity_has_no_type_and_is_counted(tmp_path: Path) -> None:
    corpus = read_corpus(put(tmp_path, changed(DYGIE, ["ner", 0], [[0, 1, "Person"]])))
    assert corpus.sentences[0].relations == (Relation("Made-By", Entity(3, 4, ""), ADA),)
    assert corpus.sentences[0].entities == (ADA,)
    assert [reason for reason in corpus.notices if "no entities" in reason]


def test_dygie_argument_with_several_types_takes_the_last_and_says_so(tmp_path: Path) -> None:
    record = changed(DYGIE, ["ner", 0], [[0, 1, "Writer"], [0, 1, "Person"], [3, 3, "Work"]])
    corpus = read_corpus(put(tmp_path, record))
    assert corpus.sentences[0].relations[0].tail.type == "Person"
    assert len(corpus.sentences[0].entities) == 3
    assert [reason for reason in corpus.notices if "several entity types" in reason]


def test_predictions_of_dygie_are_read_where_asked_or_alone(tmp_path: Path) -> None:
    predicted = {"predicted_ner": [[[3, 3, "Work", 7.5, 0.75]], []], "predicted_relations": [[], []]}
    path = put(tmp_path, {**DYGIE, **predicted})
    gold = read_corpus(path)
    assert len(gold.sentences[0].entities) == 2 and "predicted_ner" not in gold.documents[0].extra
    assert [count for reason, count in gold.notices.items() if "beside the gold" in reason] == [1]
    (entity,) = read_corpus(path, predictions=True).sentences[0].entities
    assert entity == CODE and entity.probability == 0.75
    alone = {key: value for key, value in {**DYGIE, **predicted}.items() if key not in ("ner", "relations")}
    assert read_corpus(put(tmp_path, alone)).sentences[0].entities == (CODE,)


def test_neighbours_with_one_article_are_one_document(tmp_path: Path) -> None:
    lines = [{**PSPE, "articleId": article} for article in ("a", "a", "b", None, None)]
    corpus = read_corpus(put(tmp_path, *lines))
    assert [(document.id, len(document.sentences)) for document in corpus.documents] == [
        ("a", 2),
        ("b", 1),
        ("", 1),
        ("", 1),
    ]


def test_pspe_offset_in_several_parts_is_a_discontinuous_entity(tmp_path: Path) -> None:
    mention = {"emId": "E1", "text": "Ada wrote", "offset": [0, 1, 2, 3], "label": "Person"}
    record = changed(changed(PSPE, ["entityMentions", 0], mention), ["relationMentions"], [])
    path = put(tmp_path, record)
    assert read_corpus(path).sentences[0].entities[0] == Entity(0, 3, "Person", fragments=((0, 1), (2, 3)))
    assert write_corpus(read_corpus(path), tmp_path / "pspe.json", "pspe") == {}
    assert plain(read_corpus(tmp_path / "pspe.json")) == plain(read_corpus(path))
    losses = write_corpus(read_corpus(path), tmp_path / "spert.json", "spert")
    assert losses == {"discontinuous entities, written as one span with the words between their parts": 1}


def test_pspe_words_are_what_stands_between_single_spaces_unless_texts_say_otherwise(tmp_path: Path) -> None:
    double = changed(PSPE, ["sentText"], "Ada Lovelace wrote  code")
    assert read_corpus(put(tmp_path, double)).sentences[0].words == ("Ada", "Lovelace", "wrote", "code")
    counted = changed(double, ["entityMentions", 1, "offset"], [4, 5])
    sentence = read_corpus(put(tmp_path, counted)).sentences[0]
    assert sentence.words == ("Ada", "Lovelace", "wrote", "", "code") and sentence.entities[1].span == (4, 5)


def test_few_differing_texts_of_a_pspe_file_are_counted_and_many_are_refused(tmp_path: Path) -> None:
    other = changed(PSPE, ["entityMentions", 0, "text"], "A. Lovelace")
    corpus = read_corpus(put(tmp_path, *[PSPE] * 10, other))
    assert [count for reason, count in corpus.notices.items() if "text differs" in reason] == [1]
    with pytest.raises(DataError, match=r"line 1: entityMentions\[0\].text is \"A. Lovelace\".*\"Ada Lovelace\""):
        read_corpus(put(tmp_path, other))


def test_nyt_mentions_are_found_by_text_and_none_is_no_relation(tmp_path: Path) -> None:
    none = {"em1Text": "Ada Lovelace", "em2Text": "code", "label": "None"}
    noise = {"em1Text": "Ada Lovelace", "em2Text": "code", "label": "Read", "is_noise": True}
    corpus = read_corpus(put(tmp_path, changed(NYT, ["relationMentions"], [none, noise])))
    assert corpus.sentences[0].relations == () and len(corpus.sentences[0].entities) == 2
    assert sorted(count for reason, count in corpus.notices.items() if "no relation" in reason) == [1, 1]


def test_nyt_text_that_occurs_twice_takes_the_first_or_the_word_that_start_names(tmp_path: Path) -> None:
    record = {
        "sentText": "code is code is law",
        "entityMentions": [
            {"start": 2, "label": "Work", "text": "code"},
            {"start": 1, "label": "Rule", "text": "code"},
        ],
        "relationMentions": [{"em1Text": "code", "em2Text": "law", "label": "Is"}],
    }
    corpus = read_corpus(put(tmp_path, record))
    assert [(entity.start, entity.type) for entity in corpus.sentences[0].entities] == [(2, "Work"), (0, "Rule")]
    (relation,) = corpus.sentences[0].relations
    assert (relation.head, relation.tail) == (Entity(2, 3, "Work"), Entity(4, 5, ""))
    assert any("occurs several times" in reason for reason in corpus.notices)
    assert any("'start' is no word position" in reason for reason in corpus.notices)


def test_same_nyt_mention_listed_twice_is_at_its_two_occurrences(tmp_path: Path) -> None:
    mentions = [{"label": "Work", "text": "code"}] * 2
    record = {"sentText": "code is code", "entityMentions": mentions, "relationMentions": []}
    assert [entity.start for entity in read_corpus(put(tmp_path, record)).sentences[0].entities] == [0, 2]


def test_nyt_mentions_that_are_not_in_the_sentence_are_kept_counted_and_written_again(tmp_path: Path) -> None:
    record = changed(NYT, ["entityMentions", 0, "text"], "Ada Byron")
    record["relationMentions"].append({"em1Text": "Ada Byron", "em2Text": "code", "label": "Wrote"})
    corpus = read_corpus(put(tmp_path, record))
    assert sum(count for reason, count in corpus.notices.items() if "kept aside" in reason) == 2
    write_corpus(corpus, tmp_path / "again.json", "nyt")
    again = json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))
    assert {mention["text"] for mention in again["entityMentions"]} >= {"Ada Byron"}
    assert {mention["label"] for mention in again["relationMentions"]} == {"Made-By", "Wrote"}
    bare = [replace(sentence, entities=(), relations=()) for sentence in corpus.sentences]
    write_corpus(corpus.with_sentences(bare), tmp_path / "predicted.json", "nyt")
    predicted = json.loads((tmp_path / "predicted.json").read_text(encoding="utf-8"))
    assert predicted["entityMentions"] == predicted["relationMentions"] == []


def test_nyt_without_entity_mentions_finds_entities_in_its_relations(tmp_path: Path) -> None:
    corpus = read_corpus(put(tmp_path, changed(NYT, ["entityMentions"], KeyError)))
    assert corpus.sentences[0].entities == (Entity(3, 4, "entity"), Entity(0, 2, "entity"))
    assert any("without entity mentions" in reason for reason in corpus.notices)


@pytest.mark.parametrize("layout", ["lines", "list", "pretty list", "one object", "crlf", "bom", "gz", "xz"])
def test_all_layouts_of_json_are_read(tmp_path: Path, layout: str) -> None:
    line = json.dumps(SPERT)
    texts = {
        "list": f"[{line}]",
        "pretty list": json.dumps([SPERT], indent=2),
        "one object": json.dumps(SPERT, indent=2),
        "crlf": f"{line}\r\n\r\n",
        "bom": f"\ufeff{line}",
    }
    data = texts.get(layout, f"{line}\n").encode("utf-8")
    path = tmp_path / "file"
    path.write_bytes({"gz": gzip.compress, "xz": lzma.compress}.get(layout, bytes)(data))
    corpus = read_corpus(path)
    assert corpus.sentences[0].entities == (ADA, CODE)
    assert not corpus.notices


def test_blank_lines_between_records_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(f"{json.dumps(SPERT)}\n\n \n{json.dumps(SPERT)}\n\n", encoding="utf-8")
    assert read_corpus(path).notices == {"blank lines": 2}


def test_sentences_without_words_and_documents_without_sentences_are_counted(tmp_path: Path) -> None:
    empty = {"doc_key": "e", "sentences": [], "ner": [], "relations": []}
    one = {"doc_key": "f", "sentences": [[]], "ner": [[]], "relations": [[]]}
    corpus = read_corpus(put(tmp_path, empty, one))
    assert [len(document.sentences) for document in corpus.documents] == [0, 1]
    assert corpus.notices == {"documents without sentences": 1, "sentences without words": 1}


def test_unmarked_sentences_do_not_decide_the_format(tmp_path: Path) -> None:
    bare = {"sentText": "Good evening .", "entityMentions": [], "relationMentions": []}
    assert read_corpus(put(tmp_path, bare, NYT)).format == "nyt"
    assert read_corpus(put(tmp_path, bare, PSPE)).format == "pspe"
    assert read_corpus(put(tmp_path, bare)).format == "pspe"
    assert read_corpus(put(tmp_path, bare), format="nyt").format == "nyt"


DAMAGED_FILES = {
    "empty": (b"", "is empty"),
    "only space": (b" \n\n", "is empty"),
    "empty list": (b"[]", "empty list"),
    "binary": (bytes(range(256)), "binary"),
    "latin-1": ('{"tokens": ["caf\xe9"]}'.encode("latin-1"), "line 1 is no UTF-8"),
    "utf-16": (json.dumps(SPERT).encode("utf-16"), "UTF-16"),
    "columns": (b"EU B-ORG\nrejects O\n", "line 1 begins with"),
    "cut gzip": (gzip.compress(json.dumps(SPERT).encode())[:-9], "damaged"),
    "cut zstandard": (zstandard.compress(f"{json.dumps(SPERT)}\n".encode() * 3)[:-1], "cut short"),
    "more than zstandard": (zstandard.compress(json.dumps(SPERT).encode()) + b"junk", "damaged"),
    "infinite": (b'{"tokens": [], "entities": [], "relations": [], "score": 1e999}', "1e999 is beyond the range"),
    "cut line": (f"{json.dumps(SPERT)}\n{json.dumps(SPERT)[:-9]}".encode(), "line 2, column"),
    "cut list": (json.dumps([SPERT, SPERT])[:-9].encode(), "item 2"),
    "list without end": (json.dumps([SPERT, SPERT])[:-1].encode(), "after item 2"),
    "list with more": (b"[%s] 3" % json.dumps(SPERT).encode(), "more follows"),
    "NaN": (json.dumps(changed(SPERT, ["entities", 0, "start"], float("nan"))).encode(), "NaN is no JSON number"),
    "field twice": (b'{"tokens": [], "tokens": []}', "'tokens' occurs twice"),
    "half a character": (b'{"tokens": ["\\ud800"], "entities": [], "relations": []}', "half of a character"),
    "list of numbers": (b"[1, 2]", "item 1 is 1"),
    "other fields": (b'{"text": "Ada", "triple_list": []}', "no known format"),
    "two formats": (f"{json.dumps(SPERT)}\n{json.dumps(DYGIE)}".encode(), "line 2 has the format dygie"),
    "deep": (b'{"tokens":' * 100_000, "line 1"),
}


@pytest.mark.parametrize("case", DAMAGED_FILES)
def test_damaged_files_are_refused_with_their_place(tmp_path: Path, case: str) -> None:
    data, message = DAMAGED_FILES[case]
    path = tmp_path / "file.json"
    path.write_bytes(data)
    with pytest.raises(DataError) as error:
        read_corpus(path)
    assert message in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize("name", ["missing.json", "", "a\0b"])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError):
        read_corpus(tmp_path / name)


FAULTS: list[tuple[str, list[str | int], Any, str]] = [
    ("spert", ["tokens"], "Ada wrote", "tokens"),
    ("spert", ["tokens", 1], 3, "tokens[1] is 3"),
    ("spert", ["entities"], KeyError, "no field 'entities'"),
    ("spert", ["relations"], None, "relations is null"),
    ("spert", ["entities", 0], [0, 1, "Person"], "entities[0]"),
    ("spert", ["entities", 0, "type"], KeyError, "entities[0] has no field 'type'"),
    ("spert", ["entities", 0, "start"], "0", 'entities[0].start is "0"'),
    ("spert", ["entities", 0, "start"], True, "entities[0].start is true"),
    ("spert", ["entities", 0, "start"], 2, "entities[0]"),
    ("spert", ["entities", 1, "end"], 5, "the sentence has 4 words"),
    ("spert", ["relations", 0, "head"], 2, "the sentence has 2 entities"),
    ("spert", ["relations", 0, "head"], -1, "relations[0].head is -1"),
    ("spert", ["relations", 0, "type"], "", "a type needs a name"),
    ("dygie", ["ner"], KeyError, "no field 'ner'"),
    ("dygie", ["ner"], [[]], "it holds 1 lists for 2 sentences"),
    ("dygie", ["ner", 0, 0], [0, 1], "3 values are expected, not 2"),
    ("dygie", ["ner", 0, 0], [1, 0, "Person"], "it ends before it starts"),
    ("dygie", ["ner", 1, 0], [6, 7, "Place"], "the document has 7 words"),
    ("dygie", ["ner", 1, 0], [1, 1, "Place"], "it stands with sentence 2, whose words are 4 to 6"),
    ("dygie", ["relations", 0, 0], [0, 0, 1, "Made-By"], "5 values are expected"),
    ("dygie", ["relations", 0, 0], [4, 4, 5, 5, "In"], "it stands with sentence 1"),
    ("dygie", ["sentences", 0], "Ada wrote", "a list of words is expected"),
    ("pspe", ["sentText"], ["Ada"], "a string is expected, not a list"),
    ("pspe", ["entityMentions"], KeyError, "no field 'entityMentions'"),
    ("pspe", ["entityMentions", 1, "emId"], "E1", "another entity of the sentence has this id"),
    ("pspe", ["entityMentions", 0, "emId"], KeyError, "no field 'emId'"),
    ("pspe", ["entityMentions", 0, "offset"], [0], "pairs of start and end"),
    ("pspe", ["entityMentions", 0, "offset"], [2, 2], "0 <= start < end <= words"),
    ("pspe", ["entityMentions", 1, "offset"], [3, 5], "the sentence has 4 words"),
    ("pspe", ["entityMentions", 1, "offset"], [2, 3], 'the words at offset [2, 3] are "wrote"'),
    ("pspe", ["relationMentions", 0, "em1Id"], "E9", 'there are: ["E1", "E2"]'),
    ("pspe", ["relationMentions", 0, "em1Id"], KeyError, "no field 'em1Id'"),
    ("pspe", ["relationMentions", 0, "label"], KeyError, "no field 'label'"),
    ("nyt", ["relationMentions"], KeyError, "no field 'relationMentions'"),
    ("nyt", ["relationMentions", 0, "em1Text"], 3, "em1Text is 3"),
    ("nyt", ["entityMentions", 0, "text"], " ", "a mention needs words"),
    ("nyt", ["entityMentions", 0, "label"], KeyError, "no field 'label'"),
    ("nyt", ["entityMentions", 0, "start"], "0", 'start is "0"'),
]


@pytest.mark.parametrize(("name", "keys", "value", "message"), FAULTS)
def test_faults_name_line_field_value_and_remedy(
    tmp_path: Path, name: str, keys: list[str | int], value: Any, message: str
) -> None:
    path = put(tmp_path, EXAMPLES[name], changed(EXAMPLES[name], keys, value))
    with pytest.raises(DataError) as error:
        read_corpus(path)
    assert message in str(error.value) and f"{path}, line 2" in str(error.value) and "; " in str(error.value)


def test_another_format_than_asked_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has the format dygie, not spert as asked"):
        read_corpus(put(tmp_path, DYGIE), format="spert")
    with pytest.raises(ConfigError, match="'conll' is unknown"):
        read_corpus(put(tmp_path, DYGIE), format="conll")


def test_a_file_that_cannot_be_written_whole_leaves_what_was_there(tmp_path: Path) -> None:
    path = put(tmp_path, SPERT)
    before = path.read_bytes()
    corpus = Corpus((Document("x", (Sentence(("fine",)), Sentence(("\ud800",)))),))
    with pytest.raises(DataError, match="cannot be written"):
        write_corpus(corpus, path, "spert")
    with pytest.raises(DataError, match="exists"):
        write_corpus(read_corpus(path), path, "spert", overwrite=False)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_documents_and_gold_across_sentences_survive_formats_of_sentences(tmp_path: Path) -> None:
    record = changed(DYGIE, ["ner", 0], [[0, 1, "Person"], [3, 4, "Work"]])
    record["relations"] = [[[3, 4, 0, 1, "Made-By"]], []]
    corpus = read_corpus(put(tmp_path, record, {**record, "doc_key": "d2"}))
    for name in ("spert", "pspe", "nyt"):
        losses = write_corpus(corpus, tmp_path / "out.json", name)
        again = read_corpus(tmp_path / "out.json")
        assert plain(again) == plain(corpus)
        assert [document.extra for document in again.documents] == [{"clusters": DYGIE["clusters"]}] * 2
        assert losses["relations across sentences, kept in 'document_fields', which other tools pass over"] == 2


def test_spert_json_is_a_list_and_jsonl_has_lines_and_gz_is_compressed(tmp_path: Path) -> None:
    corpus = read_corpus(put(tmp_path, SPERT, SPERT))
    for name in ("a.json", "a.jsonl", "a.jsonl.gz", "a.json.xz", "a.jsonl.zst", "a.json.bz2"):
        write_corpus(corpus, tmp_path / name, "spert")
        assert plain(read_corpus(tmp_path / name)) == plain(corpus)
    assert json.loads((tmp_path / "a.json").read_text())[1] == SPERT
    assert json.loads((tmp_path / "a.jsonl").read_text().split("\n")[1]) == SPERT
    assert (tmp_path / "a.jsonl.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert (tmp_path / "a.jsonl.zst").read_bytes()[:4] == b"\x28\xb5\x2f\xfd"


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, bz2.compress, zstandard.compress])
def test_compressed_files_that_were_joined_are_read_to_their_end(tmp_path: Path, compress: Any) -> None:
    data = compress(f"{json.dumps(SPERT)}\n".encode())
    (tmp_path / "joined").write_bytes(data * 3)
    assert read_corpus(tmp_path / "joined").n_sentences == 3


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()), daemon=True)
    reader.start()
    write_corpus(read_corpus(put(tmp_path, SPERT)), pipe, "spert")
    reader.join(timeout=10)
    assert pipe.is_fifo() and json.loads(received[0]) == [SPERT]


@pytest.mark.parametrize("value", [float("inf"), b"no JSON"])
def test_what_json_has_no_form_for_is_refused_when_written(tmp_path: Path, value: Any) -> None:
    corpus = Corpus((Document("x", (Sentence(("fine",), extra={"score": value}),)),))
    with pytest.raises(DataError, match="cannot be written"):
        write_corpus(corpus, tmp_path / "out.json", "spert")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FORMATS)
def test_probabilities_of_predictions_are_written_and_read(tmp_path: Path, name: str) -> None:
    head, tail = Entity(0, 1, "A", probability=0.5), Entity(2, 3, "B", probability=0.25)
    sentence = Sentence(("a", "b", "c"), (head, tail), (Relation("R", head, tail, probability=0.125),))
    write_corpus(Corpus((Document("d", (sentence,)),)), tmp_path / "out.json", name)
    (again,) = read_corpus(tmp_path / "out.json").sentences
    assert [entity.probability for entity in again.entities] == [0.5, 0.25]
    assert again.relations[0].probability == 0.125


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data/extraction")
@pytest.mark.parametrize("file", REAL)
def test_real_corpora_come_back_from_every_format(tmp_path: Path, file: str) -> None:
    corpus = read_corpus(SHARED / file)
    for name in FORMATS:
        write_corpus(corpus, tmp_path / "other.json", name)
        other = read_corpus(tmp_path / "other.json")
        assert other.format == name and plain(other) == plain(corpus)
        assert write_corpus(other, tmp_path / "back.json", corpus.format) == {}
        back = read_corpus(tmp_path / "back.json")
        assert plain(back) == plain(corpus)
        assert [sentence.extra for sentence in back.sentences] == [sentence.extra for sentence in other.sentences]


WORDS = st.one_of(st.sampled_from(["a", "b", "New York", "", "a b", "\u2028", "\t"]), st.text(max_size=3))


@st.composite
def sentences(draw: st.DrawFn) -> Sentence:
    words = draw(st.lists(WORDS, max_size=6))
    entities: list[Entity] = []
    if words:
        spans = st.tuples(st.integers(0, len(words) - 1), st.integers(1, len(words))).filter(lambda s: s[0] < s[1])
        marks = draw(st.lists(st.tuples(spans, st.sampled_from("XYZ")), max_size=5))
        entities = [Entity(start, end, name) for (start, end), name in marks]
    relations = []
    if entities:
        arguments = st.sampled_from([*entities, Entity(0, 1, "")])
        drawn = draw(st.lists(st.tuples(st.sampled_from(["R", "S/T"]), arguments, arguments), max_size=4))
        relations = [Relation(*parts) for parts in drawn]
    return Sentence(tuple(words), tuple(entities), tuple(relations))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    documents=st.lists(
        st.tuples(st.sampled_from(["", "d", "e", "7"]), st.lists(sentences(), min_size=1, max_size=3)), min_size=1
    )
)
def test_what_is_written_without_a_loss_is_read_as_it_was(
    tmp_path: Path, documents: list[tuple[str, list[Sentence]]]
) -> None:
    corpus = Corpus(tuple(Document(name, tuple(parts)) for name, parts in documents))
    for name in FORMATS:
        losses = write_corpus(corpus, tmp_path / "out.json", name)
        again = read_corpus(tmp_path / "out.json", format=name)
        assert [sentence.words for sentence in again.sentences] == [sentence.words for sentence in corpus.sentences]
        assert [s.entities for s in again.sentences] == [s.entities for s in corpus.sentences]
        assert [len(s.relations) for s in again.sentences] == [len(s.relations) for s in corpus.sentences]
        if all("empty type" in reason for reason in losses):
            assert plain(again) == plain(corpus)


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for key, item in inner for p in _paths(item, (*path, key)))]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_change_of_a_value_leads_to_anything_but_a_corpus_or_a_data_error(
    tmp_path: Path, data: st.DataObject
) -> None:
    record = EXAMPLES[data.draw(st.sampled_from(FORMATS))]
    keys = data.draw(st.sampled_from([path for path in _paths(record) if path]))
    path = put(tmp_path, changed(record, keys, data.draw(JSON | st.just(KeyError))))
    try:
        corpus = read_corpus(path)
    except DataError as error:
        assert str(path) in str(error)
    else:
        for name in FORMATS:
            write_corpus(corpus, tmp_path / "out.json", name)
            read_corpus(tmp_path / "out.json", format=name)
