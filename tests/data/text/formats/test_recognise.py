"""What a file is shows in its first bytes."""

from __future__ import annotations

import pytest

from spe_dist.data.text.formats.fields import no_text_message, text_at
from spe_dist.data.text.formats.recognise import Head, recognise


@pytest.mark.parametrize(
    ("text", "name", "form"),
    [
        ("He came home.\nIt rained.\n", "a.txt", "text"),
        ('{"text": "One."}\n{"text": "Two."}\n', "a", "jsonl"),
        ('{"text": "One."},\n{"text": "Two."}\n', "a.jsonl", "jsonl"),
        ('{\n "text": "One."\n}\n', "a", "json"),
        ('{"text":\n "One."}\n', "a.json", "json"),
        ('{"text": "One."\n}\n', "a.json", "json"),
        ('[{"text": "One."}]', "a.txt", "json"),
        ('[\n {"text"', "a", "json"),
        ('["One.", "Two."]', "a", "json"),
        ('["Hello," he said.]\n', "a", "text"),
        ("[1] Of books.\n", "a", "text"),
        ('"One."\n', "a.jsonl", "jsonl"),
        ('"One."\n', "a", "text"),
        ("id,text\n1,One.\n2,Two.\n", "a.txt", "csv"),
        ("a,b\n1,One.\n", "a.tsv", "csv"),
        ("PAR1\0\0", "a", "parquet"),
        ("ARROW1\0\0", "a", "arrow"),
        ('<doc id="1" url="u" title="t">\n', "a", "wikiextractor"),
        ("<p>One</p>\n", "a.html", "text"),
        ("", "a.txt", "text"),
    ],
)
def test_a_format_is_recognised(text, name, form):
    assert recognise(Head(text.encode(), is_whole=True), name) == form
    assert recognise(Head(b"\xef\xbb\xbf" + text.encode(), is_whole=True), name) == form or form in ("parquet", "arrow")


@pytest.mark.parametrize(
    ("record", "path", "text"),
    [
        ({"text": "a"}, "text", "a"),
        ({"body": {"paragraphs": ["a", "b"]}}, "body.paragraphs", "a\n\nb"),
        ({"body.text": "a", "body": {"text": "b"}}, "body.text", "a"),
        ({"sections": [{"text": "a"}, {"title": "x"}, {"text": ["b", "c"]}]}, "sections.text", "a\n\nb\n\nc"),
        ({"text": [["a"], "b"]}, "text", "a\n\nb"),
        ({"text": 5}, "text", None),
        ({"text": ["a", 5]}, "text", None),
        ({"text": "a"}, "text.more", None),
        ({"text": None}, "text", None),
        ([], "text", None),
    ],
)
def test_the_text_of_a_record_is_found_by_its_path(record, path, text):
    assert text_at(record, path) == text


def test_a_record_without_the_field_names_its_fields():
    record = {"id": 1, "body": {"paragraphs": ["a"], "meta": {"x": 1}}, "notes": [{"text": "a"}]}
    assert no_text_message(record, "text") == (
        "no text under 'text'; its fields: 'id', 'body.paragraphs', 'body.meta.x', 'notes.text'; --text_field names one"
    )
