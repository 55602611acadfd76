"""Prodigy: one task a line, with its own tokens.

    {"text": "Ada wrote code.", "tokens": [{"text": "Ada", "start": 0, "end": 3, "id": 0, "ws": true}, ...],
     "spans": [{"start": 0, "end": 3, "token_start": 0, "token_end": 0, "label": "Person"}, ...],
     "relations": [{"head": 0, "child": 2, "head_span": {"start": 0, "end": 3, "label": "Person"},
                    "child_span": {"start": 10, "end": 14, "label": "Work"}, "label": "wrote"}], "answer": "accept"}

Offsets are half-open and count code points. The tokens are the words. `head` and `child` number tokens, those at the
ends of their spans; `head_span` and `child_span` say which spans they are. The child is the relation's tail. Tasks that
were rejected or ignored are left out; without an answer a task counts as accepted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from spe_dist.extraction.annotations.document import AnnotatedDocument, AnnotatedRelation, AnnotatedSpan, Characters
from spe_dist.extraction.annotations.settings import AnnotationSettings
from spe_dist.extraction.formats.grouping import document_key
from spe_dist.extraction.formats.node import Node
from spe_dist.extraction.formats.notices import note

OWN_FIELDS = {"id", "text", "tokens", "spans", "relations", "answer"}
ANSWERS = ("accept", "reject", "ignore")
NO_LABEL = "spans without a label, left out"
NO_SPAN = "relation arguments that are not labelled spans (kept without a type)"
SEVERAL = "tasks whose text stood in an earlier task (each is read; merge them in Prodigy if they complete each other)"
NO_TOKENS = "tasks without tokens, beside others that have them (words are found in the text)"


def recognises(fields: dict[str, Any]) -> bool:
    """Whether a record is a task of Prodigy with a text."""
    return isinstance(fields.get("text"), str) and (
        "spans" in fields or fields.get("answer") in ANSWERS or "_input_hash" in fields
    )


def read(
    records: Iterable[Node], notices: Counter[str], settings: AnnotationSettings | None = None
) -> Iterator[AnnotatedDocument]:
    """The accepted tasks, in order.

    Raises:
        DataError: a field is missing or has another kind of value, or a relation names an unknown token.
    """
    texts: set[str] = set()
    with_tokens = without_tokens = 0
    for record in records:
        answer = record.child("answer") if record.has("answer") else None
        if answer is not None and answer.value not in ANSWERS:
            answer.fail(f"an answer is one of {', '.join(ANSWERS)}", "give one of them, or remove the field")
        if answer is not None and answer.value != "accept":
            notices[f"tasks with the answer {answer.value!r}, left out"] += 1
            continue
        document = _Task(record, notices).read()
        if document.text in texts:
            note(notices, SEVERAL, record.place)
        texts.add(document.text)
        with_tokens += document.tokens is not None
        without_tokens += document.tokens is None
        yield document
    notices[NO_TOKENS] += without_tokens if with_tokens else 0


class _Task:
    def __init__(self, record: Node, notices: Counter[str]):
        self.record, self.notices = record, notices
        self.text = record.child("text").string()
        self.tokens: dict[int, Characters] = {}
        for number, node in enumerate(_list(record, "tokens")):
            identity = node.child("id").integer() if node.has("id") else number
            self.tokens[identity] = _characters(node)
        self.spans: list[AnnotatedSpan] = []
        self.positions: dict[tuple[Characters, str], int] = {}

    def read(self) -> AnnotatedDocument:
        for node in _list(self.record, "spans"):
            label = _label(node)
            if label:
                self._add(_characters(node), label)
            else:
                note(self.notices, NO_LABEL, node.place)
        relations = [
            AnnotatedRelation(self._argument(node, "head"), self._argument(node, "child"), node.child("label").label())
            for node in _list(self.record, "relations")
        ]
        return AnnotatedDocument(
            document_key(self.record, "id"),
            self.text,
            tuple(self.spans),
            tuple(relations),
            tokens=tuple(self.tokens.values()) or None,
            origin=self.record.place,
            extra={
                name: value
                for name, value in self.record.fields().items()
                if name not in OWN_FIELDS and not name.startswith("_")
            },
        )

    def _add(self, characters: Characters, label: str) -> int:
        position = len(self.spans)
        self.spans.append(AnnotatedSpan((characters,), label))
        self.positions.setdefault((characters, label), position)
        return position

    def _argument(self, node: Node, role: str) -> int:
        """The position among the spans of a relation's argument, which becomes one without a type if it is none."""
        if node.has(f"{role}_span"):
            span = node.child(f"{role}_span")
            characters, label = _characters(span), _label(span)
        else:
            token = node.child(role)
            if token.integer() not in self.tokens:
                token.fail("the task has no token of this number", "give the id of a token, or remove the relation")
            characters, label = self._span_of_token(self.tokens[token.value])
        for key in ((characters, label), (characters, "")):
            if key in self.positions:
                return self.positions[key]
        note(self.notices, NO_SPAN, node.place)
        return self._add(characters, "")

    def _span_of_token(self, token: Characters) -> tuple[Characters, str]:
        """The span that ends with a token, else the first one that holds it, else the token itself."""
        holding = [span for span in self.spans if span.start <= token[0] and token[1] <= span.end]
        holding.sort(key=lambda span: span.end != token[1])
        return ((holding[0].start, holding[0].end), holding[0].type) if holding else (token, "")


def _list(record: Node, name: str) -> list[Node]:
    """The entries of a field that may be missing or null."""
    return record.child(name).items() if record.has(name) and record.value[name] is not None else []


def _characters(node: Node) -> Characters:
    return node.child("start").integer(), node.child("end").integer()


def _label(node: Node) -> str:
    """The label of a span; empty where it has none."""
    if not node.has("label") or node.value["label"] is None:
        return ""
    return node.child("label").label_or_none()
