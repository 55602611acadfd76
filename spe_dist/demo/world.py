"""The made-up world of the demo corpus: people, organisations, places, works, and the facts between them.

Names are built from the syllables of four invented languages, so that there are hundreds of them, long and rare ones
included, and so that kinds of names overlap: firms bear family names, universities bear names of towns, titles hold
both, and some family names are common words. A reader cannot tell types or relations by names alone. Each language is
at home in its own regions, and most of what a person or firm has to do with is of the same language.

Every entity belongs to one of the splits train, dev and test, and facts join entities of the same split (regions are
shared), so that what a sentence of dev or test states is stated nowhere in train.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from spe_dist.demo.patterns import ADJECTIVES, FIELDS, JOB_TOPICS, NOUNS, PLURALS

SPLIT_SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}
PEOPLE, ORGANISATIONS, TOWNS, REGIONS, WORKS = 800, 200, 160, 16, 320

LANGUAGES = (  # onsets, vowels, codas, endings of family names, endings of towns
    ("b br d f g h k l m n r s st t th v w", "a e i o u ee", "l n r rd m ck", "son by er ing well", "ton by ham wick"),
    ("b c d f g l m n p r s t v z qu gi", "a e i o io ia", "l n r", "ini etti ardo elli osa", "ano ezza ara olo ente"),
    ("b d dr g j k l m n p r s t v z", "a e i o u y", "k l n r sk v", "ovic enko ski ak eva", "grad ovo ice insk ava"),
    ("h k kh m n r s sh t y z j", "a ai e i o u aa", "m n r sh q", "abadi ari imoto awa oun", "abad ima ura ansa ayat"),
)
WORD_SURNAMES = "Baker Stone Marsh Winter Banks Press Bell Fields Rivers Hope King Page Wright Church Summers".split()
SAME_LANGUAGE_SHARE = 0.85
PARTICLES = ("van", "de", "von", "al", "ter")
INDUSTRIES = "Shipping Foundry Textiles Optics Records Railways Instruments Press Press Chemicals Books Airways".split()
KINDS = {  # kind of a work: (its maker, what the maker did)
    "novel": ("novelist", "wrote"),
    "poem": ("poet", "wrote"),
    "play": ("playwright", "wrote"),
    "treatise": ("scholar", "completed"),
    "opera": ("composer", "composed"),
    "symphony": ("composer", "composed"),
    "painting": ("painter", "painted"),
    "film": ("director", "directed"),
    "atlas": ("cartographer", "drew"),
}


@dataclass(frozen=True)
class Entity:
    """One thing of the world: its name as words, its short name for a second mention, and what sentences say of it."""

    type: str
    name: tuple[str, ...]
    short: tuple[str, ...]
    language: int  # index into LANGUAGES
    traits: dict[str, str] = field(default_factory=dict, compare=False)


@dataclass
class World:
    """Entities and facts of one split. `tails[relation][head]` and `heads[relation][tail]` list by entity index."""

    entities: list[Entity] = field(default_factory=list)
    by_type: dict[str, list[int]] = field(default_factory=dict)
    by_language: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    tails: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    heads: dict[str, dict[int, list[int]]] = field(default_factory=dict)

    def add(self, entity: Entity) -> int:
        self.entities.append(entity)
        self.by_type.setdefault(entity.type, []).append(len(self.entities) - 1)
        self.by_language.setdefault((entity.type, entity.language), []).append(len(self.entities) - 1)
        return len(self.entities) - 1

    def state(self, head: int, relation: str, tail: int) -> None:
        if head != tail and tail not in self.tails.setdefault(relation, {}).setdefault(head, []):
            self.tails[relation][head].append(tail)
            self.heads.setdefault(relation, {}).setdefault(tail, []).append(head)

    def draw(self, rng: random.Random, entity_type: str, language: int) -> int:
        """An entity of a type, most often of the given language."""
        kin = self.by_language.get((entity_type, language))
        if kin and rng.random() < SAME_LANGUAGE_SHARE:
            return rng.choice(kin)
        return rng.choice(self.by_type[entity_type])


class Namer:
    """Draws names, none twice."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.taken: set[tuple[str, ...]] = set()

    def coin(self, language: int, syllables: int, ending: str = "") -> str:
        onsets, vowels, codas = (part.split() for part in LANGUAGES[language][:3])
        text = ""
        for place in range(syllables):
            text += self.rng.choice(onsets) + self.rng.choice(vowels)
            if place == syllables - 1 and ending[:1] not in set("aeiouy") and self.rng.random() < 0.7:
                text += self.rng.choice(codas)
        if ending and ending[0] in "aeiouy":
            text = text.rstrip("aeiouy") or text
        return (text + ending).capitalize()

    def fresh(self, draw: Callable[..., str]) -> tuple[str, ...]:
        """The first drawn name (words joined by spaces) that no other entity bears."""
        while (name := tuple(draw().split())) in self.taken:
            pass
        self.taken.add(name)
        return name

    def family(self, language: int) -> str:
        rng = self.rng
        if rng.random() < 0.06:
            return rng.choice(WORD_SURNAMES)
        ending = rng.choice(LANGUAGES[language][3].split()) if rng.random() < 0.75 else ""
        name = self.coin(language, rng.choice((1, 1, 2, 2, 2, 3, 3, 4)), ending)
        if rng.random() < 0.04:
            name += "-" + self.coin(language, 2)
        return f"{rng.choice(PARTICLES)} {name}" if rng.random() < 0.05 else name

    def town(self, language: int) -> str:
        rng = self.rng
        name = self.coin(language, rng.choice((1, 1, 2)), rng.choice(LANGUAGES[language][4].split()))
        prefix = rng.choice(("Port", "New", "Upper", "Saint", "Bad")) if rng.random() < 0.12 else ""
        return f"{prefix} {name}".strip()

    def organisation(self, family: str, town: str, language: int) -> str:
        rng = self.rng
        subject = rng.choice(FIELDS).capitalize()
        return rng.choice(
            (
                f"{family} & {rng.choice(('Sons', 'Daughters', 'Company', 'Partners'))}",
                f"{family} {rng.choice(INDUSTRIES)}",
                f"{family} {rng.choice(INDUSTRIES)}",
                f"University of {town}",
                f"{town} {rng.choice(('Observatory', 'Academy', 'Herald', 'Opera', 'Museum', 'Bank', 'Hospital'))}",
                f"Institute of {subject} and {rng.choice(FIELDS).capitalize()}",
                f"Royal Society of {subject}",
                f"{self.coin(language, 2)} {rng.choice(INDUSTRIES)}",
                self.coin(language, 3),
                "".join(rng.choice("ABCDEGHIKLMNOPRSTUV") for _ in range(4)),
            )
        )

    def title(self, family: str, town: str, language: int) -> str:
        rng = self.rng
        noun, other = rng.choice(NOUNS).capitalize(), rng.choice(NOUNS).capitalize()
        many, quality = rng.choice(PLURALS).capitalize(), rng.choice(ADJECTIVES).capitalize()
        return rng.choice(
            (
                f"The {quality} {noun}",
                f"The {noun} of {town}",
                f"{many} of {town}",
                f"{noun} and {other}",
                f"{_a(noun)} for {family}",
                f"The Last {noun}",
                f"On {rng.choice(FIELDS).capitalize()}",
                f"{many} Without {_a(noun)}",
                f"Leaving {town}",
                f"{quality} {many}",
                self.coin(language, 2),
            )
        )


def _a(noun: str) -> str:
    """The noun of a title with its article."""
    return f"{'An' if noun[0] in 'AEIOU' else 'A'} {noun}"


def build_worlds(seed: int) -> dict[str, World]:
    """The world of each split, a function of the seed alone."""
    rng = random.Random(f"demo world {seed}")
    namer = Namer(rng)
    regions = []
    for number in range(REGIONS):
        language = number % len(LANGUAGES)
        name = namer.fresh(lambda language=language: _region(namer, language))
        regions.append(Entity("Place", name, name, language))
    return {split: _build_split(rng, namer, regions, share) for split, share in SPLIT_SHARES.items()}


def _region(namer: Namer, language: int) -> str:
    name = namer.coin(language, 2, namer.rng.choice(("ia", "land", "mark", "shire", "istan")))
    return f"{namer.rng.choice(('Lower', 'East', 'West'))} {name}" if namer.rng.random() < 0.2 else name


def _build_split(rng: random.Random, namer: Namer, regions: list[Entity], share: float) -> World:
    world = World()
    towns = []
    for region in regions:
        region_id = world.add(region)
        for _ in range(round(TOWNS * share / len(regions))):
            name = namer.fresh(lambda language=region.language: namer.town(language))
            towns.append(world.add(Entity("Place", name, name, region.language)))
            world.state(towns[-1], "part_of", region_id)
    people = [_add_person(world, rng, namer, towns) for _ in range(round(PEOPLE * share))]
    _marry(world, rng, people)
    organisations = [_add_organisation(world, rng, namer, towns) for _ in range(round(ORGANISATIONS * share))]
    for number, organisation in enumerate(organisations):
        if number and rng.random() < 0.3:
            world.state(organisation, "part_of", organisations[rng.randrange(number)])
    for person in people:
        if person not in world.tails["leads"] and rng.random() < 0.8:
            world.state(person, "works_for", world.draw(rng, "Organisation", world.entities[person].language))
    publishers = rng.sample(organisations, len(organisations) // 6)
    for _ in range(round(WORKS * share)):
        _add_work(world, rng, namer, publishers)
    return world


def _marry(world: World, rng: random.Random, people: list[int]) -> None:
    """A quarter of the people find a partner; the fact holds both ways."""
    for person in people:
        if rng.random() < 0.25 and person not in world.tails.get("married_to", {}):
            partner = world.draw(rng, "Person", world.entities[person].language)
            if partner not in world.tails.get("married_to", {}) and partner != person:
                world.state(person, "married_to", partner)
                world.state(partner, "married_to", person)


def _add_person(world: World, rng: random.Random, namer: Namer, towns: list[int]) -> int:
    home = rng.choice(towns)
    language = world.entities[home].language if rng.random() < 0.9 else rng.randrange(len(LANGUAGES))

    def draw() -> str:
        given = namer.coin(language, rng.choice((1, 2, 2)))
        middle = rng.choice("ABCDEFGHJKLMNOPRSTW") + ". " if rng.random() < 0.12 else ""
        return f"{given} {middle}{namer.family(language)}"

    name = namer.fresh(draw)
    short = name[2:] if name[1].endswith(".") else name[1:]
    he = rng.random() < 0.5
    traits = {"he": "he" if he else "she", "his": "his" if he else "her", "job": rng.choice(list(JOB_TOPICS))}
    person = world.add(Entity("Person", name, short, language, traits))
    world.state(person, "born_in", home)
    world.state(person, "lives_in", world.draw(rng, "Place", language))
    return person


def _add_organisation(world: World, rng: random.Random, namer: Namer, towns: list[int]) -> int:
    town = rng.choice(towns)
    language = world.entities[town].language
    founders = {world.draw(rng, "Person", language) for _ in range(rng.choice((1, 1, 2)))}
    named_after = world.entities[min(founders) if rng.random() < 0.6 else world.draw(rng, "Person", language)].short[-1]
    town_in_name = " ".join(world.entities[town if rng.random() < 0.8 else rng.choice(towns)].name)
    name = namer.fresh(lambda: namer.organisation(named_after, town_in_name, language))
    organisation = world.add(Entity("Organisation", name, name[:1] if "&" in name else name, language))
    for founder in sorted(founders):
        world.state(founder, "founded", organisation)
    world.state(world.draw(rng, "Person", language), "leads", organisation)
    world.state(organisation, "based_in", town)
    return organisation


def _add_work(world: World, rng: random.Random, namer: Namer, publishers: list[int]) -> None:
    kind = rng.choice(list(KINDS))
    maker, made = KINDS[kind]
    author = rng.choice(world.by_type["Person"])
    language = world.entities[author].language
    place = world.draw(rng, "Place", language)
    in_title = world.entities[place if rng.random() < 0.5 else world.draw(rng, "Place", language)].name
    family = world.entities[world.draw(rng, "Person", language)].short[-1]
    name = namer.fresh(lambda: namer.title(family, " ".join(in_title), language))
    work = world.add(Entity("Work", name, name, language, {"kind": kind, "maker": maker, "made": made}))
    world.state(author, "created", work)
    world.state(work, "set_in", place)
    if rng.random() < 0.7:
        kin = [publisher for publisher in publishers if world.entities[publisher].language == language]
        world.state(work, "published_by", rng.choice(kin or publishers))
