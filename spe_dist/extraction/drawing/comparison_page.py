"""The page that compares two systems: scores, what each finds, and the sentences drawn, with filters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from html import escape

from spe_dist.extraction.drawing.comparison_style import SCRIPT, STYLE
from spe_dist.extraction.drawing.sentence import colours_of_sentences, draw_sentence, page
from spe_dist.extraction.scoring.comparison import (
    DRAWN_METRICS,
    ComparedSentence,
    Found,
    SideBySide,
    WrongMarks,
    choose_sentences,
)
from spe_dist.extraction.scoring.counts import Counts, Group, Name
from spe_dist.extraction.scoring.matching import METRICS
from spe_dist.extraction.scoring.table import METRIC_NAMES, p_text, percent, percent_range, points

GOLD_PARTS = (Found.BOTH, Found.ONLY_A, Found.ONLY_B, Found.NEITHER)
WRONG_PARTS = (Found.WRONG_BOTH, Found.WRONG_A, Found.WRONG_B)


def comparison_page(both: SideBySide, title: str, most_sentences: int = 300) -> str:
    """Self-contained HTML. At most `most_sentences` are drawn; the page says how many are left out, and which."""
    body = "\n".join([_summary(both), _scores(both), _types(both), _groups(both), _finds(both)])
    return page(title, body + _sentences(both, most_sentences), style=STYLE, script=SCRIPT)


def _summary(both: SideBySide) -> str:
    a, b = map(escape, both.names)
    notes = "".join(
        f"<li>{name}: {count:,} {escape(why)}</li>"
        for name, scores in zip((a, b), (both.a, both.b), strict=True)
        for why, count in scores.notices.items()
    )
    return (
        f"<p>A is <b>{a}</b>, B is <b>{b}</b>. {both.a.sentences:,} sentences; {escape(both.a.direction)}. "
        "Differences are in percentage points. "
        f"Intervals are 95% bootstraps over {both.a.units.description}; p-values are of approximate randomisation over "
        "the same units, and not corrected for the number of comparisons.</p>"
        + (f'<ul class="dim">{notes}</ul>' if notes else "")
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], class_name: str = "") -> str:
    """Cells are HTML; the first of a row is its header."""
    titles = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    return (
        f'<div class="scroll"><table class="{class_name}"><thead><tr>{titles}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _scores(both: SideBySide) -> str:
    a, b = map(escape, both.names)
    head = ["", *(f"{name} {what}" for name in (a, b) for what in ("P", "R", "F1")), "difference", "95% interval", "p"]
    rows = []
    for metric in METRICS:
        cells = [METRIC_NAMES[metric]]
        for scores, intervals in zip((both.a, both.b), both.intervals, strict=True):
            counts = scores.total(metric)
            cells += [percent(counts.precision), percent(counts.recall)]
            cells.append(
                f"<b>{percent(counts.f1)}</b> <span class='dim'>{percent_range(*intervals[metric, None])}</span>"
            )
        rows.append([*cells, *_difference(both, (metric, None))])
    if both.a.with_direction is not None and both.b.with_direction is not None:
        for metric in ("relation", "ent_rel"):
            cells = [f"{METRIC_NAMES[metric]}, all with direction"]
            for directed in (both.a.with_direction, both.b.with_direction):
                counts = directed.total(metric)
                cells += [percent(counts.precision), percent(counts.recall), percent(counts.f1)]
            rows.append([*cells, "", "", ""])
    return f"<h2>Scores</h2>{_table(head, rows)}"


def _difference(both: SideBySide, name: Name) -> list[str]:
    compared = both.comparisons[name]
    difference, interval = points(compared.difference, compared.low, compared.high)
    return [f"<b>{difference}</b>", interval, p_text(compared.p_value)]


def _types(both: SideBySide) -> str:
    a, b = map(escape, both.names)
    blocks = []
    for metric in METRICS:
        rows = []
        for name in _kinds(both, metric):
            counts_a, counts_b = (scores.by_type(metric).get(str(name[1]), Counts()) for scores in (both.a, both.b))
            gold = max(counts_a.gold, counts_b.gold)
            f1s = [percent(counts.f1) for counts in (counts_a, counts_b)]
            rows.append([escape(str(name[1])), f"{gold:,}", *f1s, *_difference(both, name)])
        head = [METRIC_NAMES[metric], "gold", f"{a} F1", f"{b} F1", "difference", "95% interval", "p"]
        blocks.append(_table(head, rows))
    return f"<details><summary>Scores by type</summary>{''.join(blocks)}</details>"


def _kinds(both: SideBySide, metric: str) -> list[Name]:
    return sorted((name for name in both.comparisons if name[0] == metric and name[1] is not None), key=str)


def _groups(both: SideBySide) -> str:
    """Ent+Rel F1 by number of entities and by length (Figure 5)."""
    parts: Sequence[tuple[str, dict[str, Group], dict[str, Group]]] = (
        ("entities", both.a.by_entities, both.b.by_entities),
        ("words", both.a.by_length, both.b.by_length),
    )
    blocks = []
    for title, groups_a, groups_b in parts:
        names = list(dict.fromkeys([*groups_a, *groups_b]))
        rows = [
            [name, f"{group_a.sentences:,}", f"{group_a.ent_rel.gold:,}", *map(_group_f1, (group_a, group_b))]
            for name in names
            for group_a, group_b in [(groups_a.get(name, Group()), groups_b.get(name, Group()))]
        ]
        head = [title, "sentences", "gold relations", *(f"{escape(name)} Ent+Rel F1" for name in both.names)]
        blocks.append(_table(head, rows))
    return (
        "<details><summary>Ent+Rel F1 by number of entities and by sentence length</summary>"
        f"{''.join(blocks)}</details>"
    )


def _group_f1(group: Group) -> str:
    return percent(group.ent_rel.f1, group.ent_rel.is_empty)


def _finds(both: SideBySide) -> str:
    a, b = map(escape, both.names)
    head = ["gold", "both", f"only {a}", f"only {b}", "neither", "", "both", f"only {a}", f"only {b}"]
    rows: list[Sequence[str]] = []
    for metric in METRICS:
        for name in [(metric, None), *_kinds(both, metric)]:
            counts = both.found.get(name)
            if counts is None:
                continue
            label = (
                f"<b>{METRIC_NAMES[metric]}</b>" if name[1] is None else f'<span class="in">{escape(name[1])}</span>'
            )
            gold = [counts[part] for part in GOLD_PARTS]
            wrong = [counts[part] for part in WRONG_PARTS]
            numbers = [f"{number:,}" for number in (sum(gold), *gold)]
            rows.append([label, *numbers, _bar(gold), *(f"{number:,}" for number in wrong)])
    table = _table(["", *head], rows, "finds")
    legend = " ".join(
        f'<span class="key {part}"></span> {text}'
        for part, text in zip("kabn", ("both", f"only {a}", f"only {b}", "neither"), strict=True)
    )
    groups = (
        '<tr><th></th><th colspan="6" scope="colgroup">gold, found by</th>'
        '<th colspan="3" scope="colgroup">wrongly predicted by</th></tr>'
    )
    return f"<h2>What each finds</h2><p>{legend}</p>{table.replace('<thead>', f'<thead>{groups}', 1)}"


def _bar(parts: Sequence[int]) -> str:
    spans = "".join(
        f'<span class="{name}" style="flex:{part}"></span>' for name, part in zip("kabn", parts, strict=True) if part
    )
    return f'<div class="bar" aria-hidden="true">{spans}</div>'


def _sentences(both: SideBySide, most: int) -> str:
    chosen = choose_sentences(both.sentences, most)
    numbers = _numbers(both)
    every = (sentence for s in chosen for sentence in (s.gold, s.a, s.b))
    colours = colours_of_sentences(every)
    draw = partial(draw_sentence, colours=colours)
    articles = "\n".join(_article(sentence, both, numbers, draw) for sentence in chosen)
    left_out = len(both.sentences) - len(chosen)
    note = ""
    if left_out:
        differing = sum(s.is_different for s in both.sentences) - sum(s.is_different for s in chosen)
        note = (
            f"{left_out:,} of {len(both.sentences):,} sentences are not drawn, {differing:,} of them marked "
            "differently by the two systems. Drawn are first those marked differently, then those that both mark wrong."
        )
    return (
        f"<h2>Sentences</h2><p>Dashed with a cross: predicted, but not gold (for relations: by Ent+Rel). "
        f"Arrows point at the tail. {note}</p>"
        f"{_filters(both, numbers, len(chosen))}<div id='list'>{articles}</div>"
    )


def _numbers(both: SideBySide) -> dict[tuple[str, str], int]:
    """A number for each metric and type, for short tags."""
    names = [(metric, kind) for metric, kind in both.comparisons if metric in DRAWN_METRICS and kind is not None]
    return {name: number for number, name in enumerate(sorted(names))}


def _filters(both: SideBySide, numbers: dict[tuple[str, str], int], drawn: int) -> str:
    a, b = map(escape, both.names)
    shows = {
        "": "all",
        "abxy": f"{a} and {b} differ",
        "a": f"only {a} is right",
        "b": f"only {b} is right",
        "n": "neither finds it",
        "xz": f"{a} is wrong",
        "yz": f"{b} is wrong",
    }
    show = "".join(f'<option value="{letters}">{text}</option>' for letters, text in shows.items())
    of = '<option value="">anything</option>'
    for metric, title in (("entity", "Entities"), ("ent_rel", "Relations (Ent+Rel)")):
        listed = [(kind, number) for (m, kind), number in numbers.items() if m == metric]
        options = "".join(f'<option value="{number}">{escape(kind)}</option>' for kind, number in listed)
        together = ",".join(str(number) for _, number in listed)
        of += f'<optgroup label="{title}"><option value="{together}">all {title.lower()}</option>{options}</optgroup>'
    return (
        f'<form id="filters"><label>Show sentences where <select id="show">{show}</select></label> '
        f'<label>in <select id="of">{of}</select></label> '
        '<label>with the words <input id="words" type="search" size="16"></label> '
        f'<output id="count">{drawn:,} drawn sentences</output></form>'
        "<noscript><p>The filters need JavaScript; all drawn sentences are shown.</p></noscript>"
    )


def _article(
    compared: ComparedSentence,
    both: SideBySide,
    numbers: dict[tuple[str, str], int],
    draw: Callable[..., str],
) -> str:
    tags = " ".join(sorted({f"{found}{numbers[metric, kind]}" for found, metric, kind in compared.tags}))
    words = escape(" ".join(compared.gold.words).lower())
    wrong = WrongMarks(compared.gold, both.a.symmetric)
    origin = f' <span class="dim">{escape(compared.gold.origin)}</span>' if compared.gold.origin else ""
    tallies = _tally(compared, (Found.BOTH, Found.ONLY_A)), _tally(compared, (Found.BOTH, Found.ONLY_B))
    parts = f"<h4>gold</h4>{draw(compared.gold)}"
    for name, predicted, tally in zip(both.names, (compared.a, compared.b), tallies, strict=True):
        parts += f'<h4>{escape(name)} <span class="dim">{tally}</span></h4>{draw(predicted, mark=wrong)}'
    head = f"<h3>Sentence {compared.number:,}{origin}</h3>"
    return f'<article data-tags="{tags}" data-words="{words}">{head}{parts}</article>'


def _tally(compared: ComparedSentence, right: Sequence[Found]) -> str:
    """How many a system has right and wrong in the sentence."""
    wrong = Found.WRONG_A if Found.ONLY_A in right else Found.WRONG_B
    said = []
    for metric, title in zip(DRAWN_METRICS, ("entities", "relations"), strict=True):
        found = Counter(who for who, name, _ in compared.tags if name == metric)
        n_right, n_gold = sum(found[part] for part in right), sum(found[part] for part in GOLD_PARTS)
        n_wrong = found[wrong] + found[Found.WRONG_BOTH]
        said.append(f"{n_right} of {n_gold} {title}" + (f", {n_wrong} wrong" if n_wrong else ""))
    return "; ".join(said)
