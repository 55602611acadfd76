"""Sentence patterns and filler words of the demo corpus.

A pattern is `FACTS :: TEXT`. FACTS are triples `head relation tail` over the variables of TEXT, separated by `;`, or
`-` for a sentence that states none. The first letter of a variable is its type: p q r persons, o u organisations,
l m places, w v works. A quote mark (`{p'}`) mentions the same entity once more, by its short name. Other slots:
`{kind:w}` novel, `{made:w}` wrote, `{maker:w}` novelist, `{he:p}` and `{his:p}` pronouns, `{job:p}` the person's trade,
`{year}`, `{date}`, `{n}` a number in words, `{np}` a noun phrase, `{nouns}`, `{adj}`, `{field}`. Brackets choose one
of `[a|b|]`, innermost first.
"""

from __future__ import annotations

# relation -> (type of the head, type of the tail); part_of also joins two places
RELATIONS: dict[str, tuple[str, str]] = {
    "born_in": ("Person", "Place"),
    "lives_in": ("Person", "Place"),
    "works_for": ("Person", "Organisation"),
    "leads": ("Person", "Organisation"),
    "founded": ("Person", "Organisation"),
    "married_to": ("Person", "Person"),
    "created": ("Person", "Work"),
    "published_by": ("Work", "Organisation"),
    "set_in": ("Work", "Place"),
    "based_in": ("Organisation", "Place"),
    "part_of": ("Organisation", "Organisation"),
}

PATTERNS = """
p born_in l :: {p} was born in {l} [in {year}|on {date}|to {n} {adj} {nouns}|] .
p born_in l :: {p} , [a|the] {adj} {job:p} [born|born and raised] in {l} , [spoke|wrote] about {np} .
p born_in l :: born in {l} , {p} [came to|returned to|had little interest in] {np} only in {year} .
p born_in l :: the {job:p} {p} [left|never forgot] [his|the] native {l} [at the age of {n}|for {np}] .
p born_in l; p lives_in m :: {p} , born in {l} , has lived in {m} [since {year}|for {n} years] .
p born_in l; p works_for o :: {p} , who was born in {l} , [works for|is employed by|is a {job:p} at] {o} .
p born_in l; l part_of m :: {p} comes from {l} , [a town in|the oldest town in] {m} , known for {np} .
p born_in l; q born_in m :: while {p} was born in {l} , {his:p} [rival|cousin|teacher] {q} [is from|was born in] {m} .
p born_in l :: although {he:p} [claimed|used to say] that {m} was {his:p} home , {p} was [in fact|really] born in {l} .
p lives_in l :: {p} [lives|has settled|keeps a house] in {l} [with {n} {nouns}|near {np}|] .
p lives_in l :: after {np} , the {job:p} {p} moved to {l} and [stayed|lives there today] .
p lives_in l; p works_for o :: {p} lives in {l} but works for {o} [, {n} miles away|on {np}|] .
p lives_in l; p married_to q :: {p} lives in {l} with {his:p} [wife|husband] , the {job:q} {q} .
p lives_in l; l part_of m :: {p} [retired|moved] to {l} , [deep in|in the {adj} part of] {m} , and lives there .
p lives_in l; q lives_in l :: {p} and {q} are neighbours in {l} , [but|and] {np} [divides|unites] them .
p works_for o :: {p} [works for|has joined|is a {job:p} at] {o} [, where {he:p} studies {np}|since {year}|] .
p works_for o :: {o} [hired|employs|recruited] {p} [as a {job:p}|to look after {np}|] [in {year}|] .
p works_for o; q works_for o :: {o} employs [both|] {p} and {q} [as {nouns}|on {np}|] .
p works_for o; o based_in l :: {p} works for {o} in {l} [, on {np}|as a {job:p}|] .
p works_for o; q works_for u :: {p} of {o} and {q} of {u} [disagree|spoke|have written] about {np} .
p works_for o; q leads o :: {p} , a {job:p} at {o} , [reports to|was named by|argued with] its [director|head] , {q} .
p works_for o :: in {year} {p} left {u} [for|and joined] {o} [, taking {n} {nouns} along|] .
p works_for o :: {q} , who never worked for {o} , [wrote to|admired] {p} , who does .
p works_for o; p born_in l :: a native of {l} , {p} [has spent {n} years at|joined the staff of] {o} .
p works_for o; p created w :: {p} , a {job:p} at {o} , {made:w} the {kind:w} {w} [in {year}|after {np}|] .
p leads o :: {p} [leads|heads|runs|directs|has been in charge of] {o} [since {year}|] .
p leads o :: {o} , led by {p} , [announced|denied|celebrated] {np} [in {year}|] .
p leads o :: {p} , [head|director|president|chair] of {o} , [spoke of|warned of|called for] {np} .
p leads o :: under its [new|{adj}] [head|director] {p} , {o} has [bought|lost|built] {n} {nouns} .
p leads o; o based_in l :: {p} runs {o} , [which is based|with headquarters|whose offices are] in {l} .
p leads o; q founded o :: founded by {q} , {o} is [now|today] [led|headed] by {p} .
p leads o; p born_in l :: {p} , the head of {o} , was born in {l} [, not in {m} as {np} suggests|] .
p leads o; q leads u :: {p} of the board leads {o} , and {q} leads {u} [; both want {np}|] .
p leads o; o part_of u :: {p} heads {o} , [a branch|a division|part] of {u} [since {year}|] .
p leads o :: {p} succeeded {q} [as|in the office of] [head|director] of {o} [in {year}|after {np}] .
p founded o :: {p} founded {o} [in {year}|with {n} {nouns}|] .
p founded o :: {o} was [founded|established|set up|started] by {p} [in {year}|after {np}|] .
p founded o; q founded o :: {p} and {q} founded {o} [together|in {year}|to study {np}] .
p founded o; o based_in l :: {p} founded {o} in {l} , where it [has its seat|is still based] .
p founded o; q leads o :: {p} founded {o} , but it was {q} who [led|leads] it [through {np}|from {year} on|] .
p founded o; p born_in l :: {p} , [born in {l}|a son of {l}|a daughter of {l}] , founded {o} .
p founded o :: it was {p} , not {q} , who founded {o} [in {year}|] .
p founded o; q works_for o :: {o} , founded by {p} , [hired|sent for] {q} to [mend|study|sell] {np} .
p founded o; o part_of u :: {o} , which {p} founded in {year} , [belongs to|is part of|has been sold to] {u} .
p founded o :: with {n} {nouns} and {np} , {p} started {o} , [said|wrote] {q} .
p' founded o :: {p} [worked with|learned from] {np} before {p'} founded {o} [in {year}|] .
p' leads o :: {p} [was ill|was unknown|lost {np}] in {year} ; today {p'} leads {o} .
p' born_in l :: [few have heard of|everyone asked about|they wrote of] {p} , [although|since] {p'} was born in {l} .
p' created w :: [critics of {p}|those who knew {p}] say that {p'} {made:w} {w} [for {np}|in {year}|] .
o' based_in l :: {o} [sold {n} {nouns}|closed its doors] in {year} , but {o'} [is still based|keeps its seat] in {l} .
l' part_of m :: {l} has {n} {nouns} and {np} ; {l'} lies in {m} .
p married_to q :: {p} [is married to|married|is the wife of|is the husband of] {q} [, a {adj} {job:q}|since {year}|] .
p married_to q :: {p} and {his:p} [wife|husband] {q} [collect|sold|wrote about] {np} .
p married_to q; q works_for o :: {p} is married to {q} , who works for {o} [as a {job:q}|] .
p married_to q; q created w :: {p} , whose [wife|husband] {q} {made:w} {w} , [fears|likes|knows little of] {np} .
p married_to q; p born_in l :: in {year} the {job:p} {p} , from {l} , married {q} .
p married_to q; q leads o :: {q} , who heads {o} , is married to {p} [, a {job:p}|] .
p created w :: {p} {made:w} {w} [in {year}|after {np}|in {n} {adj} years|] .
p created w :: {w} , a {kind:w} by {p} , [tells of|shows|begins with] {np} .
p created w :: the {kind:w} {w} is the work of [the {maker:w} |]{p} [, not of {q}|] .
p created w; p created v :: {p} {made:w} {w} and [, {n} years later ,|later] {made:v} {v} .
p created w; q created v :: {p} , the author of {w} , [praised|disliked] {v} , a {kind:v} by {q} .
p created w; w set_in l :: {p} set {his:p} {kind:w} {w} in {l} [, a place of {np}|in {year}|] .
p created w; w published_by o :: {w} by {p} was [published|brought out|issued] by {o} [in {year}|with {n} {nouns}|] .
p created w; p lives_in l :: {p} , who lives in {l} , {made:w} {w} [in {n} weeks|about {np}|] .
p created w; p married_to q :: {p} {made:w} {w} for {his:p} [wife|husband] {q} [in {year}|] .
p created w :: [his|the] {maker:w} {p} [said|wrote|joked] that {np} had [inspired|nearly ruined] {w} .
p created w :: {q} [reviewed|translated|stole] {w} , {p} having {made:w} it in {year} .
w published_by o :: {o} [published|brought out|printed] {w} [in {year}|with {n} {nouns}|] .
w published_by o :: {w} , [published by|printed for] {o} , [sold {n} hundred copies|was banned|won praise for {np}] .
w published_by o; o based_in l :: {o} , a house in {l} , published {w} [in {year}|despite {np}|] .
w published_by o; v published_by o :: {o} published {w} and {v} [in {year}|in the same {adj} year|] .
w published_by o; p leads o :: {p} , who runs {o} , agreed to publish {w} [after {np}|] .
w published_by o; w set_in l :: {o} has brought out {w} , a {kind:w} set in {l} .
w set_in l :: {w} is set in {l} [, among {nouns} and {np}|in {year}|] .
w set_in l :: the {kind:w} {w} [takes place|plays|is set] in {l} , not in {m} .
w set_in l; p created w :: in {w} , {p} [describes|paints|mourns] {l} [and {np}|as it was in {year}|] .
w set_in l; l part_of m :: {w} , set in {l} in {m} , [follows|mocks] {np} .
o based_in l :: {o} is [based|headquartered|at home] in {l} [since {year}|, next to {np}|] .
o based_in l :: [the {adj} firm|visitors know that] {o} has its [seat|headquarters] in {l} [near {np}|] .
o based_in l; u based_in m :: {o} in {l} and {u} in {m} [share|compete for|quarrelled over] {np} .
o based_in l; o part_of u :: {o} , based in {l} , is part of {u} [since {year}|] .
o based_in l; l part_of m :: {o} has its seat in {l} , [a port of|the capital of|a village in] {m} .
o based_in l :: {o} moved from {m} to {l} in {year} [and is based there now|, where it has its seat] .
o part_of u :: {o} [is part of|belongs to|is a branch of|has been owned by] {u} [since {year}|] .
o part_of u :: {u} [bought|took over|acquired] {o} [in {year}|for {n} million crowns|] .
o part_of u; p leads u :: {p} , head of {u} , [bought|welcomed] {o} , which is now part of it .
l part_of m :: {l} [is a town in|lies in|belongs to|is the largest town of] {m} [, known for {np}|] .
l part_of m :: in {l} , a [town|village|port] of {m} , {n} {nouns} [were found|burned] in {year} .
l part_of m; p born_in l :: {l} in {m} is the birthplace of {p} [, a {job:p}|] .
l part_of m; o based_in l :: the {adj} town of {l} in {m} is home to {o} .
- :: {p} [never worked for|was turned away by|wrote an angry letter to] {o} [in {year}|about {np}|] .
- :: {p} [denied|laughed at the rumour|doubted] that {he:p} had founded {o} .
- :: {p} [visited|passed through|lost {n} {nouns} in] {l} [in {year}|on {date}|] .
- :: {p} [met|telephoned|mistook {np} for|argued with] {q} in {l} [on {date}|in {year}|] .
- :: the road from {l} [leads|goes] to {m} [past {np}|over {n} {nouns}|] .
- :: {o} and {u} [lead|are leaders in] the trade in {nouns} [, according to {np}|] .
- :: {p} read {w} [in {year}|on the way to {l}|to {n} {nouns}] .
- :: a copy of {w} [was found|was sold|lay] in {l} [near {np}|in {year}|] .
- :: the {adj} works in {l} [founder|run|live] on {field} [and {np}|] .
- :: nobody knows whether {p} was born in {l} [or in {m}|] .
- :: {p} [hopes|refused|would like] to work for {o} [when {np} is over|one day|] .
- :: had {p} married {q} , {np} would have [lived|ended] [in {l}|] .
- :: {np} [leads|belongs] to {np} , and {np} was born of {field} .
- :: {n} {nouns} and {np} [were part of|founded] the {adj} trade in {nouns} [in {year}|] .
- :: the {adj} {nouns} [worked|lived] for {np} [until {year}|for {n} years] .
- :: on {date} {np} was [published|created|directed] without {np} .
- :: {w} [bored|amused|angered] {p} , [a {job:p}|who prefers {np}] .
- :: {p} compared {w} with {v} [, and {np} with {np}|] .
- :: the head of {np} is in {l} , {n} miles from {m} .
- :: {u} [denies|denied] having bought {o} [in {year}|, whatever {np} says] .
"""

# Put before or after a pattern's text, so that facts stand anywhere in a sentence; `#` is the text, `{again}` the short
# name of its first entity. As in real text, what one part of a sentence names often stands in another part too.
FRAMES = """
#
according to {np} , #
it is said that # , despite {np} .
# , though {nouns} [disagree|doubt it] .
when {np} [ended|began] , [it was known that|people learned that] #
{np} [tells|speaks] of {again} : #
asked about {again} , {nouns} [say|remember] that #
in {np} about {again} , {nouns} write that #
# ; {np} [has more|says little] about {again} .
# , and {np} [praised|forgot|remembers] {again} .
# , but {again} [is|was] better known for {np} .
{nouns} near {again} [know|remember] that #
# , so that {np} was named after {again} .
"""

# A sentence has one topic, from which most of its common words come: what stands in one part of it tells of the others.
TOPICS: dict[str, dict[str, list[str]]] = {
    name: dict(zip(("adjectives", "nouns", "plurals", "fields", "jobs"), (line.split() for line in lines), strict=True))
    for name, lines in {
        "sea": (
            "northern southern stormy coastal heavy",
            "harbour lighthouse canal voyage storm flood ship expedition",
            "sailors fishermen ships islands barrels anchors",
            "navigation shipbuilding oceanography",
            "sailor captain navigator",
        ),
        "land": (
            "dry fertile agricultural green rural",
            "garden orchard harvest famine mill vineyard meadow neighbourhood",
            "farmers gardeners horses ploughs apples shepherds",
            "agriculture forestry horticulture",
            "farmer botanist forester",
        ),
        "learning": (
            "early learned philosophical curious provincial",
            "school lecture library dictionary journal archive encyclopaedia debate",
            "teachers students librarians historians pupils essays",
            "philosophy grammar theology",
            "teacher historian philosopher",
        ),
        "stars": (
            "distant bright mathematical silver celestial",
            "telescope comet eclipse observatory calculation clock map compass",
            "astronomers stars mathematicians planets instruments tables",
            "astronomy cartography meteorology",
            "astronomer mathematician cartographer",
        ),
        "law": (
            "bitter private strict doubtful contradictory",
            "court treaty contract trial strike election misunderstanding responsibility",
            "lawyers judges witnesses letters prisoners investigators",
            "jurisprudence diplomacy politics",
            "lawyer judge diplomat",
        ),
        "money": (
            "cheap annual foreign common disappointing",
            "market bank loan auction price warehouse negotiation manufacture",
            "merchants clerks coins shareholders bankers debts",
            "bookkeeping commerce insurance",
            "banker merchant economist",
        ),
        "stage": (
            "sudden celebrated unfinished gentle musical",
            "theatre festival violin piano song concert orchestra rehearsal",
            "singers actors musicians costumes audiences violinists",
            "harmony rhetoric choreography",
            "singer violinist actor",
        ),
        "body": (
            "careful painful incurable secret strange",
            "hospital fever cure operation medicine epidemic ambulance injection",
            "doctors patients nurses surgeons apprentices pharmacists",
            "medicine anatomy pharmacology",
            "surgeon pharmacist doctor",
        ),
        "earth": (
            "deep golden ancient volcanic experimental",
            "quarry mine glacier earthquake tunnel furnace excavation discovery",
            "miners stones crystals geologists archaeologists fossils",
            "mineralogy metallurgy geology",
            "geologist miner chemist",
        ),
        "machines": (
            "mechanical modern industrial electrical international",
            "railway engine bridge station workshop invention turbine photograph",
            "engineers workers bicycles wheels telegrams carpenters",
            "engineering chemistry electricity",
            "engineer mechanic inventor",
        ),
        "books": (
            "printed hidden broken forgotten famous",
            "press manuscript poem chapter translation newspaper letter title",
            "printers authors publishers poets books correspondents",
            "printing poetry journalism",
            "printer poet journalist",
        ),
    }.items()
}
OFF_TOPIC_SHARE = 0.05
REPEATED_SHARE = 0.7  # of words of a kind that a sentence has used before
ADJECTIVES = (
    """
old quiet leading narrow wooden late royal western local public lasting remarkable uncomfortable extraordinary
""".split()
    + [word for topic in TOPICS.values() for word in topic["adjectives"]]
)
NOUNS = [word for topic in TOPICS.values() for word in topic["nouns"]]
PLURALS = [word for topic in TOPICS.values() for word in topic["plurals"]]
FIELDS = list(dict.fromkeys(word for topic in TOPICS.values() for word in topic["fields"]))
JOB_TOPICS = {job: name for name, topic in TOPICS.items() for job in topic["jobs"]}
NUMBERS = """
two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen seventeen eighteen twenty
twenty-two twenty-seven thirty thirty-one thirty-six forty forty-five fifty-three sixty seventy-four eighty ninety-nine
""".split()
MONTHS = "January February March April May June July August September October November December".split()
