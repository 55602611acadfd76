"""Label Studio's export "JSON": a list of tasks, each with the annotations that people made of it.

    [{"id": 1, "data": {"text": "Ada wrote code."}, "annotations": [{"was_cancelled": false, "result": [
      {"id": "a", "from_name": "label", "to_name": "text", "type": "labels",
       "value": {"start": 0, "end": 3, "text": "Ada", "labels": ["Person"]}},
      {"id": "b", "from_name": "label", "to_name": "text", "type": "labels",
       "value": {"start": 10, "end": 14, "text": "code", "labels": ["Work"]}},
      {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right", "labels": ["wrote"]}]}]}]

Offsets are half-open and count UTF-16 units, as a browser does: an emoji is two. Tasks that a script annotated may
count code points, and a line break of two characters may count as one; where the regions' texts show it, that is taken.

Of several annotations of a task one is read: that marked as ground truth, else the newest. Skipped ones, predictions
and what is not labelled text are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from spe_dist.errors import DataError
from spe_dist.extraction.annotations.document import AnnotatedDocument, AnnotatedRelation, AnnotatedSpan
from spe_dist.extraction.annotations.offsets import UTF_16, check_words
from spe_dist.extraction.annotations.settings import AnnotationSettings
from spe_dist.extraction.formats.grouping import document_key
from spe_dist.extraction.formats.node import Node
from spe_dist.extraction.formats.notices import note

LISTS = ("annotations", "completions")  # completions: of versions before 1.0
UNNAMED = "relation"  # type of relations without a label: projects without <Relations> have no others
CANCELLED = "annotations that were skipped or cancelled, left out"
UNFINISHED = "tasks without a finished annotation, left out"
FURTHER = "further annotations of a task, left out (that marked as ground truth is read, else the newest)"
PREDICTIONS = "predictions beside annotations, left out"
OTHER_TASK_TEXT = "regions of another text of the task, left out"
SEVERAL_LABELS = "regions with several labels (each is an entity; relations take the first)"
NO_LABEL = f"relations without a label (taken as type {UNNAMED!r})"
BOTH = "relations in both directions (taken as two)"
NO_REGION = "relations of regions that are not labelled text, left out"


def recognises(fields: dict[str, Any]) -> bool:
    """Whether a record is a task of Label Studio."""
    is_task = isinstance(fields.get("data"), dict) and not fields.keys().isdisjoint({*LISTS, "predictions"})
    return is_task or _is_minimal(fields)


def _is_minimal(fields: dict[str, Any]) -> bool:
    return {"annotation_id", "annotator"} <= fields.keys()


def read(
    records: Iterable[Node], notices: Counter[str], settings: AnnotationSettings | None = None
) -> Iterator[AnnotatedDocument]:
    """The tasks that have a finished annotation, in order.

    Raises:
        DataError: the export lacks relations (JSON-MIN), a task has no text, or a field has another kind of value.
    """
    for record in records:
        if _is_minimal(record.fields()):
            raise DataError(f"{record.place} is of the export JSON-MIN, which has no relations; export as JSON")
        annotation = _choose_annotation(record, notices)
        if annotation is not None:
            yield _Task(record, annotation, notices).read()


def _choose_annotation(record: Node, notices: Counter[str]) -> Node | None:
    nodes = [node for name in LISTS if record.has(name) for node in record.child(name).items()]
    finished = [node for node in nodes if not (node.has("was_cancelled") and node.child("was_cancelled").value)]
    notices[CANCELLED] += len(nodes) - len(finished)
    if record.has("predictions") and isinstance(record.value["predictions"], list):
        notices[PREDICTIONS] += len(record.value["predictions"])
    if not finished:
        note(notices, UNFINISHED, record.place)
        return None
    if len(finished) > 1:
        notices[FURTHER] += len(finished) - 1
    return max(reversed(finished), key=_precedence)  # the last of equals


def _precedence(annotation: Node) -> tuple[bool, str]:
    fields = annotation.fields()
    return bool(fields.get("ground_truth")), str(fields.get("updated_at") or fields.get("created_at") or "")


class _Task:
    def __init__(self, record: Node, annotation: Node, notices: Counter[str]):
        self.record, self.notices = record, notices
        self.results = annotation.child("result").items() if annotation.child("result").value != {} else []
        self.regions = self._regions()
        self.field, self.text = self._find_text()
        self.spans: list[AnnotatedSpan] = []
        self.words: list[str | None] = []  # what the file says that each span covers
        self.positions: dict[str | int, int] = {}  # of the first span of each region, by its id

    def read(self) -> AnnotatedDocument:
        for node in self.regions:
            self._add(node)
        relations = [
            relation
            for node in self.results
            if node.child("type").value == "relation"
            for relation in self._relations(node)
        ]
        data = self.record.child("data").fields()
        document = AnnotatedDocument(
            document_key(self.record, "id"),
            self.text,
            tuple(self.spans),
            tuple(relations),
            origin=self.record.place,
            extra={name: value for name, value in data.items() if name != self.field},
        )
        return check_words(document, self.words, self.notices, UTF_16)

    def _regions(self) -> list[Node]:
        """The results that label a part of the text; others are counted."""
        regions: list[Node] = []
        for node in self.results:
            kind = node.child("type").string()
            if kind == "relation":
                continue
            if kind != "labels" or not all(type(_value(node, name)) is int for name in ("start", "end")):
                note(self.notices, f"results of the type {kind!r} that label no plain text, left out", node.place)
            elif regions and node.value.get("to_name") != regions[0].value.get("to_name"):
                note(self.notices, OTHER_TASK_TEXT, node.place)
            else:
                regions.append(node)
        return regions

    def _find_text(self) -> tuple[str, str]:
        """The field of the task's data that was annotated, and its text: what the regions fit, of several."""
        data = self.record.child("data")
        texts = {name: value for name, value in data.fields().items() if isinstance(value, str)}
        if not texts:
            data.fail("the task needs a text", "export a project that labels plain text (<Text> and <Labels>)")
        wanted = ["text", *(node.value["to_name"] for node in self.regions[:1] if node.has("to_name"))]
        order = sorted(texts, key=lambda name: wanted.index(name) if name in wanted else len(wanted))
        said = [_bare(text) for node in self.regions if (text := _said(node))]
        bared = ((name, _bare(texts[name])) for name in order if len(order) > 1)
        name = next((name for name, text in bared if said and all(part in text for part in said)), order[0])
        return name, texts[name]

    def _add(self, node: Node) -> None:
        """A span for each label of a region; the first one is what relations mean by its id."""
        value = node.child("value")
        labels = [label.label() for label in value.child("labels").items()] if value.has("labels") else []
        if len(labels) > 1:
            note(self.notices, SEVERAL_LABELS, node.place)
        identity = node.child("id").identity() if node.has("id") else None
        for label in labels or [""]:
            is_named = identity is not None and identity not in self.positions
            if identity is not None and is_named:
                self.positions[identity] = len(self.spans)
            pieces = ((_value(node, "start"), _value(node, "end")),)
            self.spans.append(AnnotatedSpan(pieces, label, str(identity) if is_named else None))
            self.words.append(_said(node))

    def _relations(self, node: Node) -> Iterator[AnnotatedRelation]:
        """A relation for each of its labels, from head to tail; the arrow may point to the left, or both ways."""
        ends = [node.child(name).identity() for name in ("from_id", "to_id")]
        direction = node.value.get("direction") or "right"
        if direction not in ("right", "left", "bi"):
            node.child("direction").fail("a direction is 'right', 'left' or 'bi'", "give one of them")
        labels = [label.label() for label in node.child("labels").items()] if node.value.get("labels") else []
        if not all(end in self.positions for end in ends):
            note(self.notices, NO_REGION, node.place)
            return
        if not labels:
            note(self.notices, NO_LABEL, node.place)
        if direction == "bi":
            note(self.notices, BOTH, node.place)
        head, tail = (self.positions[end] for end in ends)
        for label in labels or [UNNAMED]:
            if direction != "left":
                yield AnnotatedRelation(head, tail, label)
            if direction != "right":
                yield AnnotatedRelation(tail, head, label)


def _value(node: Node, name: str) -> Any:
    """A field of a result's value; None where there is none."""
    value = node.value.get("value")
    return value.get(name) if isinstance(value, dict) else None


def _said(node: Node) -> str | None:
    """What a region says that it covers, where it does; older exports have line breaks as two letters there."""
    text = _value(node, "text")
    return text.replace("\\n", "\n") if isinstance(text, str) else None


def _bare(text: str) -> str:
    """A text without its white space."""
    return "".join(text.split())
