"""Corpora that are known by their labels, with the counts that publications give for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from unicodedata import normalize

from spe_dist.extraction.corpora.statistics import CorpusStatistics

SPLITS = {"train": ("train",), "dev": ("dev", "valid", "validation", "val"), "test": ("test",)}
SPLIT_NAMES = "train, dev and test"
UNKNOWN_ENTITY = "entity"  # what readers call entities of files that list none

Counts = Mapping[str, tuple[int, ...]]  # published values; several where released copies differ


@dataclass(frozen=True)
class Version:
    """Published counts by split."""

    name: str
    source: str
    splits: Mapping[str, Counts]


@dataclass(frozen=True)
class KnownCorpus:
    """A published corpus: its types, and what its versions hold."""

    name: str
    entity_types: frozenset[str]  # in their plain form, see `plain`
    relation_types: frozenset[str]
    versions: tuple[Version, ...]


def plain(label: str) -> str:
    """A label without what preparations of one corpus write differently: case, punctuation, Unicode forms."""
    return re.sub(r"[\W_]+", "", normalize("NFKC", label)).casefold()


def _labels(text: str) -> frozenset[str]:
    return frozenset(map(plain, text.split()))


def _by_split(**columns: Sequence[int | tuple[int, ...]]) -> dict[str, Counts]:
    """Counts for train, dev and test (as far as given) by their names."""
    splits: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, values in columns.items():
        for split, value in zip(SPLITS, values, strict=False):
            if value:
                splits.setdefault(split, {})[name] = value if isinstance(value, tuple) else (value,)
    return {split: counts for split, counts in splits.items()}


SCIERC = KnownCorpus(
    "SciERC",
    _labels("Task Method Metric Material OtherScientificTerm Generic"),
    _labels("USED-FOR FEATURE-OF HYPONYM-OF PART-OF COMPARE CONJUNCTION EVALUATE-FOR"),
    (
        Version(
            "as released",
            "Luan et al. 2018",
            _by_split(
                documents=(350, 50, 100),
                sentences=(1861, 275, 551),
                entities=(5598, 811, 1685),
                relations=(3219, 455, 974),
            ),
        ),
    ),
)
ACE05 = KnownCorpus(
    "ACE05",
    _labels("PER ORG GPE LOC FAC VEH WEA"),
    _labels("PHYS PART-WHOLE PER-SOC ORG-AFF ART GEN-AFF"),
    (Version("split of Li and Ji", "Miwa and Bansal 2016", _by_split(documents=(351, 80, 80))),),
)
CONLL04 = KnownCorpus(
    "CoNLL04",
    _labels("Loc Org Peop Other"),
    _labels("Work_For Kill OrgBased_In Live_In Located_In"),
    (
        Version(
            "split of Gupta et al. 2016",
            "Eberts and Ulges 2020",
            _by_split(sentences=(922, 231, 288), entities=(3377, 893, 1079), relations=(1283, 343, 422)),
        ),
    ),
)
NYT = KnownCorpus(
    "NYT",
    _labels("PERSON LOCATION ORGANIZATION PER LOC ORG") | {UNKNOWN_ENTITY},
    _labels(
        "/business/company/advisors /business/company/founders /business/company/industry "
        "/business/company/major_shareholders /business/company/place_founded "
        "/business/company_shareholder/major_shareholder_of /business/person/company "
        "/location/administrative_division/country /location/country/administrative_divisions "
        "/location/country/capital /location/location/contains /location/neighborhood/neighborhood_of "
        "/people/deceased_person/place_of_death /people/ethnicity/geographic_distribution /people/ethnicity/people "
        "/people/person/children /people/person/ethnicity /people/person/nationality /people/person/place_lived "
        "/people/person/place_of_birth /people/person/profession /people/person/religion "
        "/sports/sports_team/location /sports/sports_team_location/teams"
    ),
    (
        Version("CoType (and ARNOR 1.0.0's train)", "Ren et al. 2017", _by_split(sentences=(235982, 0, 395))),
        Version(
            "CopyRE",
            "Zeng et al. 2018, Yu et al. 2020",
            _by_split(sentences=((56195, 56196), (4999, 5000), 5000)),
        ),
    ),
)
KNOWN_CORPORA = (SCIERC, ACE05, CONLL04, NYT)


@dataclass(frozen=True)
class Check:
    """A file held against the published counts of a known corpus."""

    source: str
    corpus: str
    split: str  # empty where the file's name tells none
    agreed: tuple[str, ...]  # names of the counts that agree
    warnings: tuple[str, ...]


def recognise(files: Iterable[CorpusStatistics]) -> KnownCorpus | None:
    """The known corpus whose labels cover those of all files and that shares the most; None where none does."""
    entities = {plain(name) for statistics in files for name in statistics.entity_types}
    relations = {plain(name) for statistics in files for name in statistics.relation_types}
    fitting = [
        known
        for known in KNOWN_CORPORA
        if relations and entities <= known.entity_types and relations <= known.relation_types
    ]
    return fitting[0] if fitting else None


def split_names(source: str) -> tuple[str, ...]:
    """The splits that a file's name tells: `train_dev.json` is both."""
    parts = re.split(r"[\W_\d]+", PurePath(source).name.casefold())
    return tuple(split for split, names in SPLITS.items() if any(name in parts for name in names))


def check(statistics: CorpusStatistics, known: KnownCorpus) -> Check:
    """Compare a file's counts with those published for its split; a mismatch warns and says what was expected."""
    names = split_names(statistics.source)
    checks = [_against(statistics, known, version, names) for version in known.versions]
    best = min(checks, key=_rank)
    if best.warnings and len(known.versions) > 1:
        every = tuple(dict.fromkeys(warning for result in checks for warning in result.warnings))
        return Check(best.source, best.corpus, best.split, best.agreed, every)
    return best


def _rank(result: Check) -> tuple[bool, int, int]:
    """A version that publishes something for the split goes before one that does not."""
    return not (result.warnings or result.agreed), len(result.warnings), -len(result.agreed)


def _against(statistics: CorpusStatistics, known: KnownCorpus, version: Version, names: tuple[str, ...]) -> Check:
    title = f"{known.name} ({version.name}; {version.source})"
    split = "+".join(names)
    expected = _sum([version.splits.get(name, {}) for name in names]) if names else _nearest(statistics, version)
    if not names and not expected:
        shown = "; ".join(f"{name}: {_text(counts)}" for name, counts in version.splits.items())
        warning = (
            f"{statistics.source} has the labels of {title}, but the counts of none of its parts ({shown}); name files "
            f"after {SPLIT_NAMES} to have them compared"
        )
        return Check(statistics.source, known.name, "", (), (warning,))
    agreed, warnings = [], []
    for name, values in expected.items():
        found = statistics.counts[name]
        if name == "documents" and not statistics.has_documents:
            continue
        if found in values:
            agreed.append(name)
        else:
            published = " or ".join(f"{value:,}" for value in values)
            part = split or "its parts"
            warnings.append(f"{statistics.source} has {found:,} {name}, but {part} of {title} has {published}")
    return Check(statistics.source, known.name, split, tuple(agreed), tuple(warnings))


def _nearest(statistics: CorpusStatistics, version: Version) -> Counts:
    """The counts of the split that a file without a telling name equals in any count."""
    for counts in version.splits.values():
        if any(statistics.counts[name] in values for name, values in counts.items()):
            return counts
    return {}


def _sum(splits: Sequence[Counts]) -> Counts:
    """Counts of several splits in one file, as far as all of them are published."""
    if not splits or not all(splits):
        return {}
    names = [name for name in splits[0] if all(name in counts for counts in splits)]
    sums: dict[str, tuple[int, ...]] = {}
    for name in names:
        totals = {0}
        for counts in splits:
            totals = {total + value for total in totals for value in counts[name]}
        sums[name] = tuple(sorted(totals))
    return sums


def _text(counts: Counts) -> str:
    return ", ".join(f"{' or '.join(f'{value:,}' for value in values)} {name}" for name, values in counts.items())
