"""JSON that users have beside plain records: strings, empty records, objects over several lines, damaged values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from texts import check_offsets, read

from spe_dist.data.text import sentences as sentence_split
from spe_dist.data.text.lines import Skips
from spe_dist.errors import DataError
from spe_dist.extraction.predicting.inputs import read_inputs
from spe_dist.extraction.predicting.json_input import find_words


@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_of_strings_is_texts_whatever_the_file_is_called(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "texts"
    path.write_text(json.dumps(['He said: "Go." Then he left.', "Two."], indent=indent))
    assert [(place.document, sentence.text) for place, sentence in read(path)] == [
        (0, 'He said: "Go."'),
        (0, "Then he left."),
        (1, "Two."),
    ]


def test_a_list_of_texts_and_other_values_is_json_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "mixed"
    path.write_text('["One.", {"text": "Two."}]')
    assert [sentence.text for _, sentence in read(path)] == ["One.", "Two."]
    path.write_text('["One.", 5]')
    with pytest.raises(DataError, match="item 2 is 5, no text"):
        read(path)


def test_an_item_that_is_no_utf_8_is_named_or_left_out(tmp_path: Path) -> None:
    path = tmp_path / "latin.json"
    path.write_bytes('["One.",\n"Z\xf6e.",\n"Two."]'.encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.json, item 2 is not UTF-8 \(byte 0xf6\)"):
        read(path)
    skips = Skips()
    assert [sentence.text for _, sentence in read(path, skips, skip_bad=True)] == ["One.", "Two."]
    assert skips.bad_lines == 1


def test_a_comma_behind_a_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "commas.jsonl"
    path.write_text('{"text": "One."},\n{"text": "Two."}\n')
    with pytest.raises(DataError, match=r"line 1 is a record with a comma behind it; take the commas away"):
        read(path)
    assert [sentence.text for _, sentence in read(path, skip_bad=True)] == ["Two."]


@pytest.mark.parametrize("text", ['["Hello," he said.]\n', '["Hello", he said.]\n', "[1] Of books.\n"])
def test_text_that_begins_with_a_bracket_is_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "text"
    path.write_text(text)
    assert "".join(sentence.text for _, sentence in read(path)).replace(" ", "") == text.strip().replace(" ", "")


def test_every_record_gives_a_sentence_and_an_empty_one_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    contents = [{"text": " "}, {"sentences": []}, {"tokens": []}, {"tokens": ["", "a"]}]
    records = [{"id": number, **content} for number, content in enumerate(contents, 1)]
    path.write_text("\n".join(map(json.dumps, records)))
    skips = Skips()
    located = read(path, skips)
    assert [(place.id, place.document, sentence.words) for place, sentence in located] == [
        (1, 0, ()),
        (2, 1, ()),
        (3, 2, ()),
        (4, 3, ("", "a")),
    ]
    assert {reason.split(" ", 1)[0]: count for reason, count in skips.counts.items()} == {"sentences": 3, "words": 1}


def test_the_article_of_a_line_of_a_corpus_is_its_id(tmp_path: Path) -> None:
    path = tmp_path / "nyt.json"
    path.write_text('{"sentText": "A b .", "articleId": "/m/vinci8/1", "sentId": 3}\n')
    assert [place.id for place, _ in read(path)] == ["/m/vinci8/1"]


def test_objects_over_several_lines_are_read_one_behind_another(tmp_path: Path) -> None:
    path = tmp_path / "pretty"
    path.write_text("\n\n".join(json.dumps({"text": text}, indent=2) for text in ("One.", "Two.")))
    assert [(place.line, sentence.text) for place, sentence in read(path)] == [(1, "One."), (2, "Two.")]
    path.write_text(path.read_text()[:-3])
    with pytest.raises(DataError, match=r"pretty, line 6, column .*damaged JSON.*--input_format text"):
        read(path)


def test_a_field_given_twice_is_refused_or_left_out(tmp_path: Path) -> None:
    path = tmp_path / "twice.jsonl"
    path.write_text('{"text": "One.", "text": "Two."}\n{"text": "Three."}\n')
    with pytest.raises(DataError, match=r"twice\.jsonl, line 1 .*field 'text' occurs twice"):
        read(path)
    skips = Skips()
    assert [sentence.text for _, sentence in read(path, skips, skip_bad=True)] == ["Three."]
    assert skips.bad_lines == 1


def test_utf16_without_a_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "utf16.txt"
    path.write_bytes("John works.\nHe sleeps.\n".encode("utf-16-le"))
    with pytest.raises(DataError, match=r"utf16\.txt, line 1 is UTF-16 .*; convert the file to UTF-8"):
        read(path)
    path.write_bytes(b"One.\nTw\0o is odd.\nThree.\n")
    assert [sentence.text for _, sentence in read(path)] == ["One.", "Tw\0o is odd.", "Three."]


def test_given_words_without_end_are_cut_and_keep_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence_split.cut_words, "__defaults__", (4,))
    words = [f"w{i}" for i in range(10)]
    (tmp_path / "words.txt").write_text(" ".join(words))
    (tmp_path / "words.jsonl").write_text(json.dumps({"tokens": words}))
    for name in ("words.txt", "words.jsonl"):
        located = read(tmp_path / name, tokenised=name == "words.txt")
        assert [place.sentence for place, _ in located] == [0, 1, 2]
        assert [word for _, sentence in located for word in sentence.words] == words
        starts = [place.start + a for place, sentence in located for a, _ in sentence.char_spans or ()]
        assert starts == list(range(0, 30, 3))


def test_a_number_under_the_name_of_words_is_a_count_beside_a_text(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"text": "Bob lives in Rome.", "tokens": 5, "sentences": 1, "words": null}\n')
    assert [sentence.text for _, sentence in read(path)] == ["Bob lives in Rome."]
    path.write_text('{"tokens": 5}\n')
    with pytest.raises(DataError, match=r"line 1 has 5 under 'tokens', no list"):
        read(path)


@pytest.mark.parametrize("bad", [b"na\xefve\n", b'{"text": }\n'])
def test_what_stands_before_a_fault_is_read(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'"One."\n"Two."\n' + bad + b'"Four."\n')
    found = []
    with pytest.raises(DataError, match="line 3"):
        for _, sentence in read_inputs([str(path)]):
            found.append(sentence.text)
    assert found == ["One.", "Two."]


def test_json_lines_give_text_or_words_and_keep_the_record_s_id(tmp_path: Path) -> None:
    text = "John Smith works. \U0001f600 He sleeps.\n\nThe end."
    records = [
        {"id": "a", "text": text},
        {"tokens": ["Two", "words"]},
        {"doc_key": "d", "sentences": [["Ann", "came", "."], [], ["So", "what", "?"]]},
        {"words": ["Mr", ".", "X"], "text": "  Mr.  X "},
        {"sentences": ["He said: Go. Now.", "Then he went."]},
        {"sentText": "A b , c ."},
        {"sentText": "A b, c. D."},
        {"text": ""},
    ]
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join(map(json.dumps, records)) + "\n\n")
    located = read(path)
    check_offsets([item for item in located if item.place.document == 0], text)
    assert [place.id for place, _ in located][:7] == ["a", "a", "a", None, "d", "d", "d"]
    assert [place.line for place, _ in located] == [1, 1, 1, 2, 3, 3, 3, 4, 5, 5, 6, 7, 8]
    by_line = {line: [item for item in located if item.place.line == line] for line in range(2, 8)}
    assert [sentence.words for _, sentence in by_line[3]] == [("Ann", "came", "."), (), ("So", "what", "?")]
    check_offsets(by_line[3], "Ann came .\n\nSo what ?")
    check_offsets(by_line[4], "  Mr.  X ")
    check_offsets(by_line[5], "He said: Go. Now.\nThen he went.")
    assert by_line[6][0].sentence.words == ("A", "b", ",", "c", ".")
    assert [sentence.words for _, sentence in by_line[7]] == [("A", "b", ",", "c.", "D.")]


def test_sentences_given_as_strings_stand_behind_their_spaces(tmp_path: Path) -> None:
    path = tmp_path / "strings.jsonl"
    path.write_text(json.dumps({"sentences": ["  He said: Go.", "", " \u00e9 Now. "]}) + "\n")
    located = read(path)
    assert [(place.start, sentence.text) for place, sentence in located] == [
        (2, "He said: Go."),
        (15, ""),
        (17, "\u00e9 Now."),
    ]


def test_a_json_list_is_read_item_by_item(tmp_path: Path) -> None:
    path = tmp_path / "corpus.json"
    path.write_text(json.dumps([{"tokens": ["a", "b"], "orig_id": 7}, {"tokens": ["c"]}], indent=1))
    assert [(place.line, place.id, sentence.words) for place, sentence in read(path)] == [
        (1, 7, ("a", "b")),
        (2, None, ("c",)),
    ]


def test_one_json_object_over_several_lines_is_one_record(tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    path.write_text(json.dumps({"doc_key": "d", "sentences": [["a"], ["b", "c"]]}, indent=2))
    assert [(place.id, sentence.words) for place, sentence in read(path)] == [("d", ("a",)), ("d", ("b", "c"))]


def test_a_damaged_json_list_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "corpus.json"
    path.write_text('[{"tokens": ["a"]},\n{"tokens": ["b"}]')
    with pytest.raises(DataError, match=r"corpus\.json, line 2, column 16: damaged JSON"):
        read(path)
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"corpus\.json.*damaged JSON"):
        read(path)


def test_a_text_that_does_not_hold_the_words_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    records = [{"tokens": ["a", "b"], "text": text} for text in (" a\tb", "a x b", None)]
    path.write_text("\n".join(map(json.dumps, records)))
    skips = Skips()
    assert [(place.start, sentence.text) for place, sentence in read(path, skips)] == [
        (1, "a\tb"),
        (0, "a b"),
        (0, "a b"),
    ]
    assert [count for reason, count in skips.counts.items() if "does not hold their words" in reason] == [1]


def test_words_are_found_in_their_text_only_in_order_and_without_rest() -> None:
    assert find_words(["a", "b"], " a\tb ") == [(1, 2), (3, 4)]
    assert find_words(["a", "b"], "a x b") is None
    assert find_words(["a", "a", "ba"], "a aba") == [(0, 1), (2, 3), (3, 5)]
    assert find_words(["b", "a"], "a b") is None


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"text": "a"', r"line 2 is not JSON.*--skip_bad"),
        (b"[1", r"line 2 is not JSON"),
        (b"[1]", r"line 2 is \[1\], no text and no object"),
        (b"3", r"line 2 is 3, no text and no object"),
        (b'{"text": 3}', r"line 2 has 3 under 'text'"),
        (b'{"body": "x"}', r"line 2 has neither text.*'body'.*--text_field"),
        (b'{"tokens": ["a", 1]}', r"line 2 has .*under 'tokens', no list of words"),
        (b'{"sentences": {"a": 1}}', r"line 2 has .*under 'sentences', no list"),
        (b'{"text": "\xff"}', r"line 2 is not UTF-8 \(byte 0xff\)"),
        (b"[" * 100_000, r"line 2 is not JSON"),
    ],
)
def test_a_malformed_record_is_an_error_with_file_line_and_remedy(tmp_path: Path, line: bytes, told: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"text": "Good."}\n' + line + b'\n{"text": "Also good."}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl.*" + told):
        read(path)


def test_half_a_surrogate_pair_becomes_a_question_mark_and_offsets_stay(tmp_path: Path) -> None:
    path = tmp_path / "half.jsonl"
    path.write_text('{"text": "A \\ud83d b \\ud83d\\ude00 c."}\n{"tokens": ["\\udc00x"]}\n')
    located = read(path)
    assert located[0].sentence.text == "A ? b \U0001f600 c." and located[1].sentence.words == ("?x",)
