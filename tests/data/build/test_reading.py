"""What a build reads: formats, units, wrapped lines, markup and bad lines."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from project import SHARED

from spe_dist.data.build.reading import choose_reader, choose_unit
from spe_dist.data.build.settings import BuildSettings
from spe_dist.data.text.files import read_parts
from spe_dist.data.text.lines import BAD_JSON, BLANK, NO_TEXT_FIELD, UNDECODABLE, Skips, check_bad_lines
from spe_dist.data.text.markup import MARKUP, OTHER_MARKUP, UNKNOWN_MARKS
from spe_dist.errors import ConfigError, DataError

pytest.importorskip("spacy")
CASES = SHARED / "cases" / "text"
LINES = [f"This is sentence number {i} ." for i in range(200)]
TEXT = "".join(f"{line}\n" for line in LINES).encode()


def read(files: list[Path], part_bytes: int = 1 << 20, **choices: str) -> tuple[list[str], Skips, Counter[str]]:
    """(the sentences, with single spaces; what was skipped; what was noticed)."""
    reader, _ = choose_reader(files, BuildSettings(**choices))
    skips, noticed = Skips(), Counter[str]()
    parts = read_parts(files, reader.break_at, part_bytes, chunks=reader.chunks)
    found = [" ".join(text.split()) for part in parts for text, _ in reader.sentences(part, skips, noticed)]
    return found, skips, noticed


def sentences(files: list[Path], **choices: str) -> tuple[list[str], Skips]:
    return read(files, **choices)[:2]


def test_json_lines_are_recognised_and_bad_ones_counted_by_reason(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [
        json.dumps({"text": "One two three."}),
        "{broken",
        json.dumps({"body": "x"}),
        "",
        json.dumps({"text": "A\nB"}),
    ]
    path.write_text("\n".join(rows))
    found, skips = sentences([path])
    assert found == ["One two three.", "A", "B"]
    assert (skips.counts[BAD_JSON], skips.counts[NO_TEXT_FIELD], skips.counts[BLANK], skips.lines) == (1, 1, 1, 5)
    assert skips.first_bad is not None and "a.jsonl, line 2" in skips.first_bad


def test_another_text_field_can_be_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("\n".join(json.dumps({"body": line}) for line in LINES))
    assert sentences([path], text_field="body")[0] == LINES


def test_undecodable_lines_are_counted_and_fatal_beyond_the_limit(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT + b"\xff\xfe bad line\n" * 6)
    found, skips = sentences([path])
    assert found == LINES and skips.counts[UNDECODABLE] == 6
    check_bad_lines(skips, max_bad_share=0.05)
    with pytest.raises(DataError, match=r"6 of 206 lines .*a\.txt, line 201.*max_bad_share"):
        check_bad_lines(skips, max_bad_share=0.01)


def test_json_lines_may_be_strings_where_the_file_is_named_so(tmp_path):
    text = "".join(json.dumps(line) + "\n" for line in LINES)
    for name in ("strings.jsonl", "quotes.txt"):
        (tmp_path / name).write_text(text)
    assert sentences([tmp_path / "strings.jsonl"])[0] == LINES
    assert sentences([tmp_path / "quotes.txt"])[0] == text.splitlines()


def test_the_unit_is_chosen_by_sentence_ends_inside_lines():
    one = ["He came home.", "Mr. A. B. Smith saw the U.S. team .", "It rained ."]
    assert choose_unit("auto", [one])[0] == "sentences"
    assert choose_unit("auto", [["He came home. She left. They met again."] * 3])[0] == "documents"
    wrapped = ["the first line of a paragraph which is wrapped", "by hand. Its sentences go on over lines and"] * 9
    assert choose_unit("auto", [wrapped])[0] == "documents"
    assert choose_unit("auto", [wrapped], "separate")[0] == "sentences"
    assert choose_unit("sentences", [wrapped])[0] == "sentences"


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"unit": "lines"}, "unit='lines' is unknown"),
        ({"format": "xml"}, "format='xml' is unknown"),
        ({"lines": "long"}, "lines='long' is unknown"),
        ({"unit": "sentences", "lines": "wrapped"}, "choose one of them"),
    ],
)
def test_choices_that_do_not_exist_or_contradict_each_other_are_refused(choices, message):
    with pytest.raises(ConfigError, match=message):
        BuildSettings(**choices)


def test_documents_are_split_into_sentences_over_wrapped_lines_but_not_over_headings(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(
        "A Heading\nDr. Smith came home to the small town where he\nwas born. It rained!\n\n"
        'A second paragraph. "Why did it rain?"\n'
    )
    found, _ = sentences([path], unit="documents")
    assert found[:3] == ["A Heading", "Dr. Smith came home to the small town where he was born.", "It rained!"]
    assert found[3:] == ["A second paragraph.", '"Why did it rain?"']


@pytest.mark.parametrize("part_bytes", [200, 900, 1 << 20])
def test_parts_of_any_size_give_the_same_sentences(tmp_path, part_bytes):
    path = tmp_path / "a.txt"
    text = "\n\n".join(
        f"The first line of paragraph {i} ends without\nan end. Then comes another one." for i in range(90)
    )
    path.write_text(text)
    assert read([path], part_bytes)[0] == [
        sentence
        for i in range(90)
        for sentence in (f"The first line of paragraph {i} ends without an end.", "Then comes another one.")
    ]


def test_each_file_is_joined_by_its_own_lines(tmp_path):
    wrapped, separate = tmp_path / "wrapped.txt", tmp_path / "separate.txt"
    wrapped.write_text("This text is wrapped by hand at a column, so that its\nlines go on. It has two.\n\n" * 9)
    separate.write_text("One line is a paragraph. It has two sentences\nAnother one\n" * 9)
    reader, decisions = choose_reader([wrapped, separate], BuildSettings())
    assert [file.full_line is not None for file in reader.files] == [True, False] and reader.unit == "documents"
    assert decisions[-1] == "lines: joined to paragraphs in 1 of 2 files"


def test_abbreviations_make_no_sentences_of_their_own(tmp_path):
    (tmp_path / "a.txt").write_text("Smith et al. (2019) moved to the U.S. He lives near Fig. 3 of the map.\n")
    assert read([tmp_path / "a.txt"])[0] == [
        "Smith et al. (2019) moved to the U.S.",
        "He lives near Fig. 3 of the map.",
    ]


needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")


@needs_cases
@pytest.mark.parametrize(
    ("language", "sentences"), [("russian", 6), ("arabic", 4), ("hindi", 3), ("chinese", 6), ("japanese", 3)]
)
def test_paragraphs_of_other_scripts_are_split_at_their_full_stops(language, sentences):
    found, _, _ = read([CASES / f"{language}_paragraphs.txt"])
    assert len(found) == 120 * sentences


@needs_cases
def test_posts_one_a_line_are_not_joined():
    posts = (CASES / "posts.txt").read_text().splitlines()
    assert read([CASES / "posts.txt"], unit="sentences")[0] == posts
    found, _, _ = read([CASES / "posts.txt"])
    assert " ".join(found) == " ".join(posts) and len(posts) == 420
    assert all(any(sentence in post for post in set(posts)) for sentence in found)


@needs_cases
def test_articles_of_wikiextractor_lose_their_tags_titles_and_entities():
    found, skips, _ = read([CASES / "wiki_00"])
    assert found[:4] == [
        "Engine 0 & its boiler were built in 1800.",
        "It pulled trains for years on the northern line <1>.",
        "It was scrapped later.",
        "Nothing of it is left.",
    ]
    assert len(found) == 60 * 4 and skips.counts[MARKUP] == 60 * 3
    assert not any("doc" in sentence or "ref" in sentence for sentence in found)


@needs_cases
def test_wikitext_loses_its_headings_and_gets_its_hyphens_and_commas_back():
    found, skips, noticed = read([CASES / "wikitext.txt"])
    assert found[0] == "The album was recorded in 1970 by <unk> and sold 1,200 copies ."
    assert found[1] == "It was well-received by critics ."
    assert len(found) == 160 and skips.counts[MARKUP] == 160 and noticed[UNKNOWN_MARKS] == 80


@needs_cases
@pytest.mark.parametrize(("name", "form"), [("wiki_00", "wikiextractor"), ("wikitext.txt", "wikitext")])
def test_markup_is_kept_where_a_file_is_called_plain_text(name, form):
    assert choose_reader([CASES / name], BuildSettings())[0].files[0].format == form
    found, skips, _ = read([CASES / name], format="text")
    assert not skips.counts[MARKUP] and any("doc" in sentence or "@" in sentence for sentence in found)


@needs_cases
@pytest.mark.parametrize(
    ("name", "field", "described", "sentences"),
    [
        ("array.json", "text", "JSON (a list, or objects over several lines)", 2),
        ("array_indented.json", "text", "JSON (a list, or objects over several lines)", 2),
        ("strings.jsonl", "text", "JSON lines", 2),
        ("nested.jsonl", "body.paragraphs", "JSON lines", 3),
        ("table.csv", "text", "table with commas between cells, a header, text in column 2", 2),
    ],
)
def test_records_of_every_form_give_their_text(name, field, described, sentences):
    _, decisions = choose_reader([CASES / name], BuildSettings(text_field=field))
    assert decisions[0] == f"format: {described} (1 file)"
    found, skips, noticed = read([CASES / name], text_field=field)
    assert len(found) == 280 * sentences and skips.lines == 280 and not skips.counts and not noticed
    assert found[:2] == [
        "The bridge over the river Tarn was opened in 1600, and the storm was broken.",
        "The poet met a quiet friend.",
    ]
    assert found[-1] == ("A second paragraph stands here." if sentences == 3 else "The poet met a quiet friend.")


@pytest.mark.parametrize("part_bytes", [300, 1 << 20])
@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.parquet", "a.json.gz"])
def test_records_are_the_same_in_parts_of_any_size(tmp_path, name, part_bytes):
    rows = [{"id": i, "text": f'Line {i} of "it"\nis over. It was {i}.'} for i in range(60)]
    path = tmp_path / name
    if name == "a.parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif name == "a.csv":
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([("id", "text"), *((row["id"], row["text"]) for row in rows)])
    else:
        data = json.dumps(rows, indent=1).encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    found, skips, _ = read([path], part_bytes, unit="documents")
    assert len(found) == 60 * 2 and skips.lines == 60
    assert found[:2] == ['Line 0 of "it" is over.', "It was 0."]


def test_a_record_without_text_is_counted_by_its_place_in_the_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,text\n1,One two three.\n2\n3,Four five six.\n")
    found, skips, _ = read([path])
    assert found == ["One two three.", "Four five six."] and skips.counts[NO_TEXT_FIELD] == 1
    assert skips.first_bad is not None and "a.csv, row 2: no text under 'text'" in skips.first_bad


def test_a_damaged_list_is_an_error_that_names_the_way_out(tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "One two three."},\n{"text": "Fou')
    with pytest.raises(DataError, match=r"a\.json, line 2, .*damaged JSON.*--format text"):
        read([tmp_path / "a.json"])


def test_files_of_several_formats_are_named_by_format(tmp_path):
    (tmp_path / "a.csv").write_text("id,text\n1,One two three.\n")
    (tmp_path / "b.txt").write_text("One two three.\n")
    (tmp_path / "c.txt").write_text("One two three.\n")
    _, decisions = choose_reader([tmp_path / name for name in ("a.csv", "b.txt", "c.txt")], BuildSettings())
    assert decisions[0] == (
        "format: table with commas between cells, a header, text in column 2 (1 file: a.csv); "
        "plain text (2 files: b.txt, c.txt)"
    )


def test_what_looks_like_other_markup_is_kept_and_counted(tmp_path):
    kept = ["<p>One two three.</p>", "One &amp; two.", "See [[Berlin]] and {{cite}} here.", "A \\textbf{bold} word."]
    plain = ["I <3 you & 3 < 4 > 2.", "A {set} of [1] things.", "AT&T; and so on.", "A word that is <unk> here."]
    (tmp_path / "a.html").write_text("\n".join([*kept, *plain]) + "\n")
    found, _, noticed = read([tmp_path / "a.html"], unit="sentences")
    assert found == [*kept, *plain] and noticed == {OTHER_MARKUP: len(kept)}


def test_markup_is_counted_by_sentence_also_in_long_records(tmp_path):
    paragraphs = ["One two three. See R&amp;D here. Four five six."] * 3 + ["Seven eight nine. Ten eleven twelve."] * 5
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "\n\n".join(paragraphs)}) + "\n")
    found, skips, noticed = read([tmp_path / "a.jsonl"], unit="documents")
    assert len(found) == 19 and skips.lines == 1 and noticed == {OTHER_MARKUP: 3}
