"""Label Studio: which annotation is read, what its offsets count, and what is no labelled text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from annotation_tools import (
    ENTITIES,
    LABEL_STUDIO,
    REGIONS,
    TEXT,
    arrow,
    entities_of,
    region,
    relations_of,
    task,
)
from corpora import changed, put

from spe_dist.errors import DataError
from spe_dist.extraction.formats import read_corpus

WROTE = ("wrote", "Ada Lovelace", "code")
WRITTEN = ("wrote", "code", "Ada Lovelace")


def count(notices: Mapping[str, int], beginning: str) -> int:
    return sum(number for reason, number in notices.items() if reason.startswith(beginning))


def annotation(*results: dict[str, Any], **further: Any) -> dict[str, Any]:
    return {"was_cancelled": False, "result": list(results), **further}


def of(*annotations: dict[str, Any], **further: Any) -> dict[str, Any]:
    return {"id": 1, "data": {"text": TEXT}, "annotations": list(annotations), **further}


def test_the_newest_annotation_is_read_or_that_marked_as_ground_truth(tmp_path: Path) -> None:
    old = annotation(REGIONS[0], updated_at="2024-01-01T00:00:00Z")
    new = annotation(REGIONS[1], updated_at="2024-02-01T00:00:00Z")
    true = annotation(REGIONS[2], updated_at="2023-02-01T00:00:00Z", ground_truth=True)
    undated = annotation(REGIONS[0]), annotation(REGIONS[2])
    corpus = read_corpus(put(tmp_path, of(new, old), of(old, true, new), of(*undated)))
    assert entities_of(corpus) == [ENTITIES[1], ENTITIES[2], ENTITIES[2]]
    assert count(corpus.notices, "further annotations of a task, left out") == 4


def test_skipped_tasks_and_predictions_are_left_out_and_counted(tmp_path: Path) -> None:
    skipped = annotation(*REGIONS, was_cancelled=True)
    predicted = {"predictions": [{"result": REGIONS}]}
    records = [of(skipped), of(skipped, annotation(REGIONS[0])), of(**predicted), of(annotation(), **predicted)]
    corpus = read_corpus(put(tmp_path, *records))
    assert entities_of(corpus) == [ENTITIES[0]] and len(corpus.documents) == 2  # an empty annotation is one
    assert count(corpus.notices, "annotations that were skipped or cancelled, left out") == 2
    assert count(corpus.notices, "tasks without a finished annotation, left out") == 2
    assert count(corpus.notices, "predictions beside annotations, left out") == 2


def test_older_exports_call_annotations_completions(tmp_path: Path) -> None:
    record = {"id": 1, "data": {"text": TEXT}, "completions": [{"id": 1, "result": REGIONS}]}
    assert entities_of(read_corpus(put(tmp_path, record))) == ENTITIES


def test_arrows_may_point_left_or_both_ways_and_have_several_labels_or_none(tmp_path: Path) -> None:
    arrows = [
        arrow("a", "b", "wrote"),
        arrow("a", "b", "wrote", direction="left"),
        arrow("a", "b", "knew", "saw", direction="bi"),
        arrow("b", "a"),
    ]
    corpus = read_corpus(put(tmp_path, task(*arrows, *REGIONS)))
    both = [(kind, *ends) for kind in ("knew", "saw") for ends in (WROTE[1:], WRITTEN[1:])]
    assert relations_of(corpus) == [WROTE, WRITTEN, *both, ("relation", *WRITTEN[1:])]
    assert count(corpus.notices, "relations in both directions") == 1
    assert count(corpus.notices, "relations without a label (taken as type 'relation')") == 1


def test_what_labels_no_plain_text_is_counted_by_its_type(tmp_path: Path) -> None:
    choice = {"id": "a", "type": "choices", "from_name": "tone", "to_name": "text", "value": {"choices": ["good"]}}
    html = region("h", 0, 3, "Ada", "Person")
    html["type"], html["value"]["start"] = "hypertextlabels", "/div[1]/text()[1]"
    box = {"id": "x", "type": "rectanglelabels", "value": {"x": 1.5, "rectanglelabels": ["Person"]}}
    corpus = read_corpus(put(tmp_path, task(choice, html, box, *REGIONS, arrow("a", "x", "wrote"), arrow("a", "q"))))
    assert entities_of(corpus) == ENTITIES and not relations_of(corpus)
    for kind in ("choices", "hypertextlabels", "rectanglelabels"):
        assert count(corpus.notices, f"results of the type '{kind}' that label no plain text, left out") == 1
    assert count(corpus.notices, "relations of regions that are not labelled text, left out") == 2


def test_a_region_with_several_labels_is_several_entities(tmp_path: Path) -> None:
    several = region("a", 3, 15, "Ada Lovelace", "Person", "Author")
    again = region("a", 3, 15, "Ada Lovelace", "Woman", from_name="other")
    corpus = read_corpus(put(tmp_path, task(several, again, REGIONS[1], arrow("a", "b", "wrote"))))
    assert sorted(entities_of(corpus)) == sorted(
        [*[(ENTITIES[0][0], t) for t in ("Person", "Author", "Woman")], ENTITIES[1]]
    )
    [relation] = corpus.sentences[0].relations
    assert relation.head.type == "Person" and count(corpus.notices, "regions with several labels") == 1


def test_a_region_without_a_label_is_an_argument_and_no_entity(tmp_path: Path) -> None:
    bare = region("a", 3, 15, "Ada Lovelace")
    corpus = read_corpus(put(tmp_path, task(bare, REGIONS[1], arrow("a", "b", "wrote"))))
    assert entities_of(corpus) == [ENTITIES[1]] and relations_of(corpus) == [WROTE]


def test_offsets_count_utf16_units_unless_the_texts_of_regions_show_code_points(tmp_path: Path) -> None:
    points = [region("a", 2, 14, "Ada Lovelace", "Person"), region("b", 21, 25, "code", "Work")]
    units = [changed(found, ["value", "text"], KeyError) for found in REGIONS]
    corpus = read_corpus(put(tmp_path, task(*points), task(*units)))
    assert entities_of(corpus) == [*ENTITIES[:2], *ENTITIES]
    assert count(corpus.notices, "documents whose offsets count characters, as the words") == 1 == len(corpus.notices)


def test_a_line_break_of_two_characters_counts_as_one_where_the_regions_show_it(tmp_path: Path) -> None:
    text = "Ada wrote.\r\n\r\nBob read 🙂 code."
    found = [region("a", 12, 15, "Bob", "Person"), region("b", 24, 28, "code", "Work")]
    exact = [region("a", 14, 17, "Bob", "Person"), region("b", 26, 30, "code", "Work")]
    corpus = read_corpus(put(tmp_path, task(*found, text=text), task(*exact, text=text)))
    assert entities_of(corpus) == [("Bob", "Person"), ("code", "Work")] * 2
    assert count(corpus.notices, "documents whose offsets count UTF-16 units and a line break as one character") == 1


def test_a_region_whose_text_is_another_one_is_left_out_and_counted(tmp_path: Path) -> None:
    corpus = read_corpus(put(tmp_path, task(region("a", 3, 15, "Grace Hopper", "Person"), REGIONS[1])))
    assert sum(corpus.notices.values()) == 1 and '"Grace Hopper"' in next(iter(corpus.notices))
    assert entities_of(corpus) == [ENTITIES[1]]
    spaced = region("a", 3, 15, "Ada\\nLovelace", "Person")
    assert not read_corpus(put(tmp_path, task(spaced))).notices


@pytest.mark.parametrize("data", [{"title": "It.", "body": TEXT}, {"text": "It.", "body": TEXT}, {"n": 1, "x": TEXT}])
def test_the_text_is_the_field_that_the_regions_fit(tmp_path: Path, data: dict[str, Any]) -> None:
    corpus = read_corpus(put(tmp_path, {**task(*REGIONS), "data": data}))
    assert entities_of(corpus) == ENTITIES
    assert corpus.documents[0].extra == {name: value for name, value in data.items() if value != TEXT}


def test_regions_of_a_second_text_are_counted(tmp_path: Path) -> None:
    second = region("z", 0, 2, "No", "Work", to_name="answer")
    corpus = read_corpus(put(tmp_path, {**task(*REGIONS, second), "data": {"text": TEXT, "answer": "No."}}))
    assert entities_of(corpus) == ENTITIES
    assert count(corpus.notices, "regions of another text of the task, left out") == 1


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["data", "text"], ["Ada"], "line 1: data is .* but the task needs a text; export a project that labels plain"),
        (["annotations", 0, "result"], KeyError, r"annotations\[0\] has no field 'result'"),
        (["annotations", 0, "result", 0, "value", "labels"], "Person", r"value.labels is \"Person\", but a list"),
        (["annotations", 0, "result", 3, "direction"], "up", r"result\[3\].direction is \"up\", but a direction is"),
        (["annotations", 0, "result", 3, "from_id"], KeyError, r"result\[3\] has no field 'from_id'"),
        (["annotations", 0], 11, r"annotations\[0\] is 11, but an object"),
    ],
)
def test_damaged_tasks_are_refused_with_their_place(
    tmp_path: Path, keys: list[str | int], value: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_corpus(put(tmp_path, changed(LABEL_STUDIO, keys, value)))


def test_the_export_without_relations_is_refused(tmp_path: Path) -> None:
    record = {"id": 1, "text": TEXT, "label": [REGIONS[0]["value"]], "annotator": 1, "annotation_id": 2}
    with pytest.raises(DataError, match="JSON-MIN, which has no relations; export as JSON"):
        read_corpus(put(tmp_path, record))
