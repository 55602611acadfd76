"""Look into corpora of entities and relations, and convert them between formats.

    spe corpus inspect train.json dev.json test.json
    spe corpus convert scierc/train.json train_spert.json --to spert
    spe corpus convert found.jsonl correct --to brat      what spe predict has found, to be corrected

Formats are told apart by content. Of words: dygie (DyGIE, SciERC, PURE), spert (SpERT), pspe (PSPE, UniRE), nyt
(distant supervision: CoType, ARNOR), triples (CasRel, PFN), conll (BIO and the like), multihead (CoNLL04), docred. Of
characters: plain, brat, doccano, label_studio, prodigy, pubtator, predicted (what spe predict writes).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from spe_dist.cli.exits import run_command
from spe_dist.cli.options.corpora import add_corpus_options, annotation_settings
from spe_dist.cli.options.parser import Parser, choose_command, help_on_commands
from spe_dist.extraction.corpora.known import Check, check, plain, recognise
from spe_dist.extraction.corpora.statistics import (
    ENTITY_COUNTS,
    RELATION_COUNTS,
    SIZES,
    CorpusStatistics,
    count_corpus,
)
from spe_dist.extraction.formats import FORMATS, WRITTEN_FORMATS, read_corpus, write_corpus
from spe_dist.extraction.scoring.ceiling import REASONS, lost_type_lines
from spe_dist.utils.files import goes_to_stream
from spe_dist.utils.tables import aligned
from spe_dist.utils.wording import counted, how_many

Row = tuple[str, list[str]]


def inspect(options: argparse.Namespace) -> int:
    """Count documents, sentences, entities and relations, by type and by what makes them hard to find."""
    settings = annotation_settings(options)
    files = [count_corpus(read_corpus(path, options.format, options.predictions, settings)) for path in options.files]
    known = recognise(files)
    checks = [check(statistics, known) for statistics in files] if known else []
    if options.json:
        report = {
            "files": [statistics.to_json() for statistics in files],
            "corpus": known.name if known else None,
            "alike_types": alike_types(files),
            "checks": [
                {"source": c.source, "split": c.split, "agreed": c.agreed, "warnings": c.warnings} for c in checks
            ],
        }
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print("\n".join(report_lines(files, checks)))
    for result in checks:
        for warning in result.warnings:
            print(f"warning: {warning}", file=sys.stderr)
    return 0


def report_lines(files: Sequence[CorpusStatistics], checks: Sequence[Check]) -> list[str]:
    """The tables that `inspect` prints: one column a file."""
    rows: list[Row] = [("", column_names([statistics.source for statistics in files]))]
    rows.append(("format", [statistics.format for statistics in files]))
    rows += _count_rows(SIZES, files)
    if not all(statistics.has_documents for statistics in files):
        shown = [f"{s.counts['documents']:,}" if s.has_documents else "-" for s in files]
        rows = [(name, shown) if name == SIZES["documents"] else (name, cells) for name, cells in rows]
    rows += _section("entities by type", [statistics.entity_types for statistics in files])
    rows += _section("relations by type", [statistics.relation_types for statistics in files])
    rows += _special("of the entities", ENTITY_COUNTS, files)
    rows += _special("of the relations", RELATION_COUNTS, files)
    rows += _ceilings(files)
    lines = aligned([name, *cells] for name, cells in rows)
    for statistics in files:
        if statistics.longest_at:
            lines.append(f"longest sentence: {statistics.longest_at}")
    for statistics in files:
        lines += [f"{statistics.source}: {text}" for text in counted(statistics.notices)]
        lines += [f"{statistics.source}: {text}" for text in lost_type_lines(statistics.ceiling)]
    lines += [f"types that look alike: {', '.join(names)}" for names in alike_types(files)]
    for result in checks:
        if result.agreed and not result.warnings:
            part = f"{result.split} part" if result.split else "a part"
            lines.append(
                f"{result.source} agrees with {part} of {result.corpus} as published: {', '.join(result.agreed)}"
            )
    return lines


def alike_types(files: Sequence[CorpusStatistics]) -> list[list[str]]:
    """Types that differ in nothing but case, punctuation or the form of their Unicode characters: maybe one type."""
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for kind in ("entity_types", "relation_types"):
        for name in {name for statistics in files for name in getattr(statistics, kind)}:
            groups[f"{kind} {plain(name) or name}"].add(name)
    return [sorted(names) for _, names in sorted(groups.items()) if len(names) > 1]


def column_names(sources: Sequence[str]) -> list[str]:
    """File names without endings; with their folders where they are alike."""
    paths = [Path(source) for source in sources]
    stems = [path.name.split(".")[0] for path in paths]
    return stems if len(set(stems)) == len(stems) else [f"{path.parent.name}/{path.name}" for path in paths]


def _count_rows(names: Mapping[str, str], files: Sequence[CorpusStatistics], indent: str = "") -> list[Row]:
    return [
        (f"{indent}{text}", [f"{statistics.counts[name]:,}" for statistics in files]) for name, text in names.items()
    ]


def _special(title: str, names: Mapping[str, str], files: Sequence[CorpusStatistics]) -> list[Row]:
    """What makes annotations hard to find, as far as any of the files has it."""
    occurring = {name: text for name, text in names.items() if any(statistics.counts[name] for statistics in files)}
    rows = _count_rows(occurring, files, indent="  ") or [("  none overlaps, repeats or leaves its sentence", [])]
    return [("", []), (title, []), *rows]


def _ceilings(files: Sequence[CorpusStatistics]) -> list[Row]:
    """The highest recall that the model can have, and what lowers it."""
    from spe_dist.extraction.scoring.table import METRIC_NAMES, percent  # takes numpy, which --help does without

    rows: list[Row] = [("", []), ("highest recall of the model", [])]
    for metric, name in METRIC_NAMES.items():
        reaches = [statistics.ceiling.of(metric) for statistics in files]
        rows.append((f"  {name}", [percent(reach.recall, not reach.gold) for reach in reaches]))
        said = metric == "ent_rel" and all(s.ceiling.ent_rel == s.ceiling.relation for s in files)
        for reason in () if said else REASONS:
            numbers = [reach.lost.get(reason, 0) for reach in reaches]
            if any(numbers):
                rows.append((f"    lost: {reason}", [f"{number:,}" for number in numbers]))
    return rows


def _section(title: str, types: Sequence[Counter[str]]) -> list[Row]:
    names = sorted({name for counts in types for name in counts})
    if not names:
        return [("", []), (title, []), ("  none", [])]
    return [("", []), (title, []), *((f"  {name}", [f"{counts[name]:,}" for counts in types]) for name in names)]


def convert(options: argparse.Namespace) -> int:
    """Write a corpus in another format, and say what that format has no place for.

    Where the corpus goes to standard output, a device or a pipe, that is said on standard error.
    """
    corpus = read_corpus(options.input, options.format, options.predictions, annotation_settings(options))
    losses = write_corpus(corpus, options.output, options.to, overwrite=options.overwrite)
    counts = count_corpus(corpus).counts
    said = [
        f"{options.input} ({corpus.format}) -> {options.output} ({options.to}): "
        f"{how_many(counts['sentences'], 'sentence')}, {how_many(counts['entities'], 'entity', 'entities')}, "
        f"{how_many(counts['relations'], 'relation')}",
        *(f"read: {text}" for text in counted(corpus.notices)),
        *(f"no place in {options.to}: {text}" for text in counted(losses)),
    ]
    print("\n".join(said), file=sys.stderr if goes_to_stream(Path(options.output)) else sys.stdout)
    return 0


COMMANDS = {"inspect": "count what files hold", "convert": "write a corpus in another format"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status is explained in `spe_dist.cli.exits`."""
    return run_command(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> int:
    name = choose_command("spe corpus", argv, list(COMMANDS), help_on_commands("spe corpus", __doc__ or "", COMMANDS))
    if name == "inspect":
        return inspect(inspect_parser().parse(argv[1:]))
    return convert(convert_parser().parse(argv[1:])) if name else 0


def inspect_parser() -> Parser:
    """The options of `spe corpus inspect`."""
    parser = Parser("spe corpus inspect", "FILE ... [options]", inspect.__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE", help="the parts of a corpus, one column each")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    _add_input_options(parser)
    return parser


def convert_parser() -> Parser:
    """The options of `spe corpus convert`."""
    parser = Parser("spe corpus convert", "INPUT OUTPUT --to FORMAT [options]", convert.__doc__)
    parser.add_argument("input", metavar="INPUT", help="the corpus")
    parser.add_argument("output", metavar="OUTPUT", help="a folder for brat; else may end in .gz, .xz, .zst or .bz2")
    parser.add_argument("--to", required=True, choices=WRITTEN_FORMATS, help="format of the output")
    parser.add_argument("--overwrite", action="store_true", help="replace the output where it exists")
    _add_input_options(parser)
    return parser


def _add_input_options(parser: Parser) -> None:
    parser.add_argument(
        "--format",
        default="auto",
        choices=("auto", *FORMATS),
        metavar="FORMAT",
        help=f"format of the input: {', '.join(FORMATS)}; auto: by content",
    )
    parser.add_argument(
        "--predictions", action="store_true", help="dygie: read predicted_ner and predicted_relations, not the gold"
    )
    add_corpus_options(parser)
