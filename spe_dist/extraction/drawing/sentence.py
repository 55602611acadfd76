"""Sentences drawn as HTML: entities coloured, relations as arcs with an arrow head at the tail.

    body = "".join(draw_sentence(sentence, colours) for sentence in sentences)
    html = page("Predictions", body)

Drawings are static SVG, laid out here (drawing_layout.py): no script, no font or file from elsewhere. Each is drawn for
wide and, where that differs, for narrow windows; the page's style shows one of them, in light or dark colours.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise

from spe_dist.extraction.corpora.corpus import Entity, Relation, Sentence
from spe_dist.extraction.drawing.layout import LABEL_PAD, Arc, Box, Layout, lay_out, shown_type, small_width

WIDE_COLUMNS, NARROW_COLUMNS = 104, 40
WORD_HEIGHT, BAND_HEIGHT, ARC_HEIGHT = 20, 15, 19
ROW_GAP, ARROW, LOWEST_ARC = 12, 4, 13
BEND = 5

HUES = tuple(range(5, 360, 24))  # 15 hues, far enough apart to be told from their neighbours
STEP = 4  # neighbours in the order of probing are far apart; coprime to the number of hues

DISTANCES = (48, 24, 0)  # degrees between the hues of two types: the first that still can be had

Colours = Mapping[str, int]  # type -> hue in degrees
Mark = Callable[[Entity | Relation], str]

STYLE = """
.drawn { margin: .4rem 0; overflow-x: auto; }
.drawn svg { display: block; font: 14px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.drawn .narrow { display: none; }
@media (max-width: 920px) { .drawn .narrow { display: block; } .drawn .wide { display: none; } }
.drawn text { fill: var(--text); white-space: pre; }
.drawn .small { font-size: 11px; }
.drawn .box { fill: hsl(var(--hue) 75% 90%); }
.drawn .band { fill: hsl(var(--hue) 70% 80%); }
.drawn .type { fill: hsl(var(--hue) 90% 14%); }
.drawn .arc { fill: none; stroke: hsl(var(--hue) 65% 30%); stroke-width: 1.3; }
.drawn .head { fill: hsl(var(--hue) 65% 30%); }
.drawn .label { fill: hsl(var(--hue) 65% 26%); }
.drawn .back { fill: var(--page); }
.drawn .wrong .box, .drawn .missed .box { fill: none; }
.drawn .wrong rect, .drawn .missed rect { stroke: hsl(var(--hue) 65% 30%); stroke-dasharray: 3 2; }
.drawn .wrong .back, .drawn .missed .back { stroke: none; }
.drawn .wrong .arc, .drawn .missed .arc { stroke-dasharray: 4 3; }
.drawn .untyped .box { fill: none; stroke: var(--dim); stroke-dasharray: 2 2; }
.drawn .untyped .band { fill: none; }
.drawn .untyped .type { fill: var(--dim); }
@media (prefers-color-scheme: dark) {
  .drawn .box { fill: hsl(var(--hue) 45% 22%); }
  .drawn .band { fill: hsl(var(--hue) 45% 32%); }
  .drawn .type { fill: hsl(var(--hue) 60% 94%); }
  .drawn .arc, .drawn .wrong rect, .drawn .missed rect { stroke: hsl(var(--hue) 65% 72%); }
  .drawn .wrong .back, .drawn .missed .back { stroke: none; }
  .drawn .head, .drawn .label { fill: hsl(var(--hue) 65% 76%); }
}
"""

PAGE_STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --text: #1b1d21; --dim: #5f6670; --line: #d5d9df; --soft: #f3f5f7; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15171b; --text: #e8eaed; --dim: #9aa3ad; --line: #373c44; --soft: #1f2329; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 960px; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.dim { color: var(--dim); }
"""


def colours_of(types: Iterable[str]) -> dict[str, int]:
    """A hue for each type: its own by its name, or the next one that is far enough from those of the types before it.

    The same types always have the same hues. Beyond 15 types hues repeat.
    """
    hues: dict[str, int] = {}
    for name in sorted(set(types)):
        start = _own_hue(name)
        order = [HUES[(start + STEP * i) % len(HUES)] for i in range(len(HUES))]
        hues[name] = next(
            hue for apart in DISTANCES for hue in order if all(_distance(hue, h) >= apart for h in hues.values())
        )
    return hues


def _own_hue(name: str) -> int:
    return zlib.crc32(name.encode()) % len(HUES)


def _distance(one: int, other: int) -> int:
    return min((one - other) % 360, (other - one) % 360)


def colours_of_sentences(sentences: Iterable[Sentence]) -> dict[str, int]:
    """Hues of all entity and relation types in the sentences; no entity type shares one with another, nor a relation
    type, as long as there are enough."""
    entities: set[str] = set()
    relations: set[str] = set()
    for sentence in sentences:
        entities.update(entity.type for entity in sentence.entities)
        relations.update(relation.type for relation in sentence.relations)
    return {**colours_of(relations), **colours_of(entities)}


def draw_sentence(
    sentence: Sentence,
    colours: Colours | None = None,
    *,
    columns: Sequence[int] = (WIDE_COLUMNS, NARROW_COLUMNS),
    mark: Mark | None = None,
) -> str:
    """A div with the drawn sentence, for a page with STYLE (which `page` gives).

    `colours` maps types to hues, so that a page uses the same for all its sentences; without, a type's hue follows from
    the sentence. `columns` are the characters of a row for wide and for narrow windows. `mark` gives an entity or
    relation the style "wrong" or "missed", which are dashed with a cross in the label, or "" for none.
    """
    hues = colours_of_sentences([sentence]) if colours is None else colours
    layouts = [lay_out(sentence, width) for width in columns]
    if len(layouts) > 1 and layouts[0].rows == layouts[1].rows:
        layouts = layouts[1:]
    names = ("wide", "narrow") if len(layouts) > 1 else ("",)
    drawn = (_svg(layout, sentence, hues, mark, name) for layout, name in zip(layouts, names, strict=False))
    return f'<div class="drawn">{"".join(drawn)}</div>\n'


def page(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """A self-contained page around `body` (HTML); `title` is text. `style` and `script` are added inline."""
    script = f"<script>\n{script}\n</script>\n" if script else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{PAGE_STYLE}{STYLE}{style}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n{script}"
        "</body>\n</html>\n"
    )


def describe(sentence: Sentence) -> str:
    """The sentence and its relations in words, for readers who do not see the drawing."""
    said = [" ".join(sentence.words)]
    for relation in dict.fromkeys(sentence.relations):
        head, tail = (" ".join(sentence.words[e.start : e.end]) for e in (relation.head, relation.tail))
        said.append(f"{relation.type}: {head} → {tail}")
    return ". ".join(said)


def _svg(layout: Layout, sentence: Sentence, hues: Colours, mark: Mark | None, name: str) -> str:
    baselines = []  # y of the words' upper edge, by row
    y = 0
    for row in range(layout.rows):
        y += layout.arc_levels(row) * ARC_HEIGHT + (LOWEST_ARC if layout.arc_levels(row) else 2)
        baselines.append(y)
        y += WORD_HEIGHT + layout.box_levels(row) * BAND_HEIGHT + ROW_GAP
    parts = [_box(box, baselines, hues, mark) for box in sorted(layout.boxes, key=lambda b: -b.level)]
    parts += [
        f'<text x="{word.x:.1f}" y="{baselines[word.row] + 15}" textLength="{word.width:.1f}">{_text(word.text)}</text>'
        for word in layout.words
    ]
    parts += [_line(arc, baselines[arc.row], hues, mark) for arc in layout.arcs]
    parts += [_label(arc, baselines[arc.row], hues, mark) for arc in layout.arcs]
    width = f"{layout.width:.0f}"
    class_name = f' class="{name}"' if name else ""
    return (
        f'<svg{class_name} width="{width}" height="{y}" viewBox="0 0 {width} {y}" role="img" '
        f'aria-label="{_text(describe(sentence))}">{"".join(parts)}</svg>'
    )


def _text(text: str) -> str:
    """Escaped for HTML; control characters, which HTML does not allow, are shown as their pictures."""
    return escape("".join(chr(0x2400 + ord(c)) if ord(c) < 32 else c for c in text))


def _group(item: Entity | Relation, hues: Colours, mark: Mark | None, inner: str) -> str:
    """Everything of one entity or relation, with its colour and what the pointer shows."""
    name = shown_type(item) if isinstance(item, Entity) else item.type
    classes = [mark(item) if mark else "", "untyped" if isinstance(item, Entity) and not item.type else ""]
    listed = " ".join(c for c in classes if c)
    probability = "" if item.probability is None else f" {item.probability:.3f}"
    class_name = f' class="{listed}"' if listed else ""
    hue = hues.get(item.type, HUES[_own_hue(item.type)])
    return f'<g{class_name} style="--hue:{hue}"><title>{_text(name)}{probability}</title>{inner}</g>'


def _marked(text: str, item: Entity | Relation, mark: Mark | None) -> str:
    return f"✗ {text}" if mark and mark(item) else text


def _small(text: str, class_name: str, centre: float, y: float) -> str:
    return f'<text class="small {class_name}" x="{centre:.1f}" y="{y:.1f}" text-anchor="middle">{_text(text)}</text>'


def _box(box: Box, tops: Sequence[int], hues: Colours, mark: Mark | None) -> str:
    """A box around the words of the lowest level, and a band with the type below them."""
    widest = max(box.segments, key=lambda s: s.right - s.left, default=None)
    parts = []
    for segment in box.segments:
        x, width = f"{segment.left:.1f}", f"{segment.right - segment.left:.1f}"
        top, band = tops[segment.row], tops[segment.row] + WORD_HEIGHT + box.level * BAND_HEIGHT
        if box.level == 0:
            parts.append(_rect("box", x, top, width, WORD_HEIGHT + BAND_HEIGHT - 1))
        parts.append(_rect("band", x, band, width, BAND_HEIGHT - 1))
        if segment is widest:
            centre = (segment.left + segment.right) / 2
            parts.append(_small(_marked(shown_type(box.entity), box.entity, mark), "type", centre, band + 10.5))
    for one, other in pairwise(box.segments):
        if one.row == other.row:  # parts of a discontinuous entity
            y = tops[one.row] + WORD_HEIGHT + box.level * BAND_HEIGHT + BAND_HEIGHT / 2
            parts.append(f'<path class="arc" d="M{one.right:.1f} {y}H{other.left:.1f}"/>')
    return _group(box.entity, hues, mark, "".join(parts))


def _rect(class_name: str, x: str, y: float, width: str, height: float) -> str:
    return f'<rect class="{class_name}" x="{x}" y="{y}" width="{width}" height="{height}" rx="3"/>'


def _line(arc: Arc, top: int, hues: Colours, mark: Mark | None) -> str:
    """The arc and its arrow head, from the upper edge of the words."""
    base, y = top - 1, _arc_y(arc, top)
    bend = min(BEND, (arc.right - arc.left) / 2)
    left = f"M{arc.left:.1f} {base}V{y + bend:.1f}q0 {-bend:.1f} {bend:.1f} {-bend:.1f}"
    right = f"H{arc.right - bend:.1f}q{bend:.1f} 0 {bend:.1f} {bend:.1f}V{base}"
    path = (left if arc.left_end else f"M{arc.left:.1f} {y}") + (right if arc.right_end else f"H{arc.right:.1f}")
    parts = [f'<path class="arc" d="{path}"/>']
    for end, x in ((arc.left_end, arc.left), (arc.right_end, arc.right)):
        if end == "tail":
            points = f"{x - ARROW:.1f},{base - 2 * ARROW} {x + ARROW:.1f},{base - 2 * ARROW} {x:.1f},{base + 1}"
            parts.append(f'<polygon class="head" points="{points}"/>')
    return _group(arc.relation, hues, mark, "".join(parts))


def _arc_y(arc: Arc, top: int) -> int:
    return top - LOWEST_ARC - arc.level * ARC_HEIGHT


def _label(arc: Arc, top: int, hues: Colours, mark: Mark | None) -> str:
    """The label above its arc, on a patch of the page's colour, so that the lines of higher arcs pass behind it."""
    y = _arc_y(arc, top)
    text = _marked(arc.label, arc.relation, mark)
    centre = (arc.label_left + arc.label_right) / 2
    patch = small_width(text) + LABEL_PAD
    back = f'<rect class="back" x="{centre - patch / 2:.1f}" y="{y - 14}" width="{patch:.1f}" height="13"/>'
    return _group(arc.relation, hues, mark, back + _small(text, "label", centre, y - 5))
