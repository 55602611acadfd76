"""Files that are no corpus: each is refused with its place, the value and the remedy."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
import zstandard
from corpora import DYGIE, EXAMPLES, SPERT, WORD_FORMATS, changed, put
from hypothesis import given, settings
from hypothesis import strategies as st

from spe_dist.errors import ConfigError, DataError
from spe_dist.extraction.formats import read_corpus, write_corpus

DAMAGED_FILES = {
    "empty": (b"", "is empty"),
    "only space": (b" \n\n", "is empty"),
    "empty list": (b"[]", "empty list"),
    "binary": (bytes(range(256)), "binary"),
    "latin-1": ('{"tokens": ["caf\xe9"]}'.encode("latin-1"), "line 1 is not UTF-8"),
    "utf-16": (json.dumps(SPERT).encode("utf-16"), "UTF-16"),
    "utf-32": (json.dumps(SPERT).encode("utf-32"), "iconv -f UTF-32 -t UTF-8"),
    "plain text": (b"EU rejects\nGerman call .\n", "line 1 begins with"),
    "cut gzip": (gzip.compress(json.dumps(SPERT).encode())[:-9], "damaged"),
    "cut zstandard": (zstandard.compress(f"{json.dumps(SPERT)}\n".encode() * 3)[:-1], "cut short"),
    "more than zstandard": (zstandard.compress(json.dumps(SPERT).encode()) + b"junk", "damaged"),
    "infinite": (b'{"tokens": [], "entities": [], "relations": [], "score": 1e999}', "1e999 is beyond the range"),
    "cut line": (f"{json.dumps(SPERT)}\n{json.dumps(SPERT)[:-9]}".encode(), "line 2, column"),
    "cut list": (json.dumps([SPERT, SPERT])[:-9].encode(), "item 2"),
    "list without end": (json.dumps([SPERT, SPERT])[:-1].encode(), "after item 2"),
    "list with more": (b"[%s] 3" % json.dumps(SPERT).encode(), "more follows"),
    "NaN": (json.dumps(changed(SPERT, ["entities", 0, "start"], float("nan"))).encode(), "NaN is not a JSON number"),
    "field twice": (b'{"tokens": [], "tokens": []}', "'tokens' occurs twice"),
    "half a character": (b'{"tokens": ["\\ud800"], "entities": [], "relations": []}', "half of a character"),
    "list of numbers": (b"[1, 2]", "item 1 is 1"),
    "other fields": (b'{"text": "Ada", "summary": []}', "no known format"),
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
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be read: Not a directory; check its folder's permissions"):
        read_corpus(tmp_path / "file" / "inner.json")


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
    with pytest.raises(ConfigError, match="'connll' is unknown"):
        read_corpus(put(tmp_path, DYGIE), format="connll")


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for key, item in inner for p in _paths(item, (*path, key)))]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=120)
@given(data=st.data())
def test_no_change_of_a_value_leads_to_anything_but_a_corpus_or_a_data_error(
    tmp_path: Path, data: st.DataObject
) -> None:
    record = EXAMPLES[data.draw(st.sampled_from(WORD_FORMATS))]
    keys = data.draw(st.sampled_from([path for path in _paths(record) if path]))
    path = put(tmp_path, changed(record, keys, data.draw(JSON | st.just(KeyError))))
    try:
        corpus = read_corpus(path)
    except DataError as error:
        assert str(path) in str(error)
    else:
        for name in WORD_FORMATS:
            write_corpus(corpus, tmp_path / "out.json", name)
            read_corpus(tmp_path / "out.json", format=name)


@pytest.mark.parametrize("field", ["entities", "more"])
def test_brackets_in_brackets_are_refused_at_every_depth(tmp_path: Path, field: str) -> None:
    path = tmp_path / "nested.json"
    for depth in range(880, 1010):
        left, right = "[" * depth, "]" * depth
        start = f"{left}{right}" if field == "entities" else "0"
        more = f', "more": {left}"\\ud83d\\ude00"{right}' if field == "more" else ""
        record = (
            f'{{"tokens": ["a"], "entities": [{{"type": "P", "start": {start}, "end": 1}}], "relations": []{more}}}'
        )
        path.write_text(f"{record}\n", encoding="utf-8")
        try:
            read_corpus(path)
        except DataError as error:
            assert "nested.json" in str(error)
        else:
            assert field == "more"


def test_a_small_file_that_unpacks_to_far_more_than_a_corpus_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("spe_dist.extraction.formats.records.MAX_UNPACKED_BYTES", 1 << 20)
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b"[" + b" " * (8 << 20)))
    with pytest.raises(DataError, match="unpacks to more than 1 MiB"):
        read_corpus(path)
    plain = tmp_path / "a.json"
    plain.write_text("\n" * (2 << 20) + '{"tokens": ["a"], "entities": [], "relations": []}')
    assert len(read_corpus(plain).documents) == 1, "of a plain file the size is what it is"


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom"])
def test_what_has_no_end_is_not_read_to_it(device):
    with pytest.raises(DataError, match="holds zero bytes"):
        read_corpus(Path(device))


def test_a_pipe_without_an_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("spe_dist.extraction.formats.records.MAX_PIPE_BYTES", 1000)
    read, write = os.pipe()
    os.write(write, b"x" * 2000)
    os.close(write)
    with pytest.raises(DataError, match="more than 0 MiB"):
        read_corpus(Path(f"/dev/fd/{read}"))
    os.close(read)
