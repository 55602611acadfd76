"""Compare two systems on the same gold, as one self-contained HTML page.

    spe compare --gold FILE --a FILE --b FILE --output page.html
    spe compare --gold FILE --a FILE --b FILE --names BERT,SPE --output page.html

The page has both scores with the difference, its interval and p-value; which gold entities and relations both, one or
neither of them finds, and what each makes up, by type; and sentences drawn as gold, A and B have them, with filters.
It needs nothing but a browser. Files may have any format that spe corpus knows.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spe_dist.cli.exits import run_command
from spe_dist.cli.options.corpora import annotation_settings
from spe_dist.cli.options.numbers import whole_number
from spe_dist.cli.options.parser import Parser
from spe_dist.cli.options.scoring import scoring_parser
from spe_dist.errors import ConfigError
from spe_dist.utils.wording import how_many

if TYPE_CHECKING:  # scoring takes numpy, which --help does without
    from spe_dist.extraction.scoring.comparison import SideBySide


def build_parser() -> Parser:
    """The options of `spe compare`."""
    parser = scoring_parser(
        "spe compare", "--gold FILE --a FILE --b FILE --output FILE [options]", __doc__, min_draws=1
    )
    parser.add_argument("--a", required=True, metavar="FILE", help="predictions of one system, the baseline")
    parser.add_argument("--b", required=True, metavar="FILE", help="predictions of the other")
    parser.add_argument("--output", required=True, metavar="FILE", help="the page, HTML")
    parser.add_argument("--names", metavar="A,B", help="what the page calls the two [their files or folders]")
    parser.add_argument("--title", help='the page\'s title ["A and B"]')
    parser.add_argument("--sentences", type=whole_number(), default=300, metavar="N", help="sentences to draw, at most")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status is explained in `spe_dist.cli.exits`."""
    return run_command(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> None:
    options = build_parser().parse(argv)
    names = _names(options)
    _check(options)
    from spe_dist.extraction.drawing.comparison_page import comparison_page
    from spe_dist.extraction.formats import read_corpus
    from spe_dist.extraction.scoring.comparison import compare_systems
    from spe_dist.extraction.scoring.matching import check_symmetric

    settings = annotation_settings(options)
    gold = read_corpus(options.gold, settings=settings)
    a, b = (read_corpus(path, predictions=True, settings=settings) for path in (options.a, options.b))
    check_symmetric(options.symmetric, gold, a, b)
    both = compare_systems(gold, a, b, names, options.symmetric, options.bootstrap, seed=options.seed)
    title = options.title or f"{names[0]} and {names[1]}"
    _write(Path(options.output), comparison_page(both, title, options.sentences))
    print(report(both, options))


def _names(options: argparse.Namespace) -> tuple[str, str]:
    if options.names is None:
        return _file_names(Path(options.a), Path(options.b))
    names = [name.strip() for name in options.names.split(",")]
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise ConfigError(f"--names {options.names!r} must be two different names with a comma between, as in BERT,SPE")
    return names[0], names[1]


def _file_names(a: Path, b: Path) -> tuple[str, str]:
    """Stems of two files; where they are equal, the folders in which the paths begin to differ."""
    if a.stem != b.stem:
        return a.stem, b.stem
    folders = zip(reversed(a.absolute().parent.parts), reversed(b.absolute().parent.parts), strict=False)
    return next(((ours, theirs) for ours, theirs in folders if ours != theirs), ("A", "B"))


def _check(options: argparse.Namespace) -> None:
    for name in ("gold", "a", "b"):
        if os.path.realpath(getattr(options, name)) == os.path.realpath(options.output):
            raise ConfigError(f"--output {options.output} is the file of --{name} too; give the page a name of its own")


def _write(path: Path, html: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(html.encode("utf-8", "backslashreplace"))  # names of files may be no UTF-8
    except OSError as error:
        raise ConfigError(f"--output {path} cannot be written ({error.strerror}); give another place") from error


def report(both: SideBySide, options: argparse.Namespace) -> str:
    """What is printed beside the page: the differences of the scores, and where the page is."""
    from spe_dist.extraction.scoring.table import comparison_table

    size = Path(options.output).stat().st_size / 1e6
    drawn = min(options.sentences, len(both.sentences))
    table = comparison_table(both.comparisons, both.names, by_type=False)
    return f"{table}\n\n{options.output}: {drawn:,} of {how_many(len(both.sentences), 'sentence')} drawn, {size:.1f} MB"
