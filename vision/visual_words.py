"""Plain-code language: which phrases a photograph can show, and the shared concepts that a phrase speaks of.

No grammar and no model: word lists, plural endings and the last noun of a phrase. What it gets wrong a person corrects;
that is why everything made with it is a draft.
"""

from __future__ import annotations

import re

# --- what no photograph shows ----------------------------------------------------------------------------------------
# Reason -> whole words as regular expressions, `_` for a space; the reason completes "it ...".
_NOT_VISIBLE = {
    "says what it is for": """
        used? uses useful usage designed intended meant_(to|for) allow(s|ing)? enabl(es|ing) helps? provid(es|ing)
        protects? purpose functions? serves? for_[a-z]+ing able_to capable ability operat(ed?|es|ing)
        can_(hold|carry|emit|store|run|swim|fly|climb|jump|change|open|cut|produce|play|eat) powered
        worn_(by|for|during)
    """,
    "is a sound": """
        sounds? nois(e|es|y) loud quiet silent bark(s|ing) sing(s|ing) chirp[a-z]* hum(s|ming) buzz[a-z]* roar[a-z]*
        melod[a-z]+ music audible audio acoustic[a-z]* howl[a-z]* meow[a-z]* call_of voice
    """,
    "is a smell or a taste": """
        smell[a-z]* odou?rs? scent[a-z]* fragran[a-z]+ aroma[a-z]* stink[a-z]* musky tast(e|es|y|ing) sweet sour
        bitter salty spicy flavou?r[a-z]* delicious savou?ry juicy
    """,
    "is felt, not seen": """
        heavy lightweight weigh(s|ing)? weight cold hot temperature warm_to soft_to_the_touch itchy comfortable
        painful tough
    """,
    "is behaviour": """
        behavio[a-z]+ eats? eating feeds? feeding hunt(s|er|ing)? liv(es|ing) lays?_eggs breeds mates? migrat[a-z]+
        hibernat[a-z]* nocturnal diurnal aggressive friendly playful intelligen[a-z]+ smart loyal social solitary
        timid fierce shy curious gentle active inactive energetic agil[a-z]+ fast slow forager grazer scavenger
        stalker predator[a-z]* prey carnivor[a-z]+ herbivor[a-z]+ omnivor[a-z]+ domestic(ated)? hops
        fl[iy](es|s|ing) swims? walks? skimmer tunnels nestspot
    """,
    "is an opinion or a quality without a look": """
        power(ful)? strong strength weak popular[a-z]* expensive cheap tradition[a-z]* beautiful elegant famous
        important dangerous poison[a-z]* venom[a-z]* durab[a-z]+ edible rare valuable efficien[a-z]+ sophisticated
        modern high[-_]quality luxur[a-z]+ convenient reliable versatile special unique distinctive iconic value
        religious historic[a-z]* cultural nutritious healthy sturdy muscular
    """,
    "says where or when it comes from": """
        native_to found_(in|on|throughout|near) originat[a-z]+ century named known_(as|for|to) bred invented
        inhabit[a-z]* habitat region newworld oldworld asian? african? americas? american europe(an)? australian?
        climate season[a-z]*
    """,
    "leaves open how it looks": """
        (can|may|could|might)_(be|have|or_may_not) variety_of various different vary any_(colou?r|size|shape|number)
        varies varying range_of depending some_may or_other
    """,
    "is hidden inside": """
        inside_the_body internal[a-z]* bones? skeleton engine motor battery circuit[a-z]* brain heart(?!.shaped)
        lungs? blood genes? cells? organs? roe milt ribs? vertebra[a-z]* nervous wiring memory
    """,
}
_PATTERNS = {
    reason: re.compile(r"\b(?:" + "|".join(word.replace("_", " ") for word in words.split()) + r")\b")
    for reason, words in _NOT_VISIBLE.items()
}
OPINION = "is an opinion or a quality without a look"
# Sizes say nothing where no scale is in the picture.
_SIZE_WORDS = frozenset(
    """
    large small big little tiny huge giant enormous massive medium size sized compact mini miniature bulky full
""".split()
)


def why_not_visible(phrase: str) -> str | None:
    """Return why no photograph can show what the phrase says ("is a sound"), or None where one may."""
    text = re.sub(r"[_\s]+", " ", phrase.casefold()).strip()
    for reason, pattern in _PATTERNS.items():
        if pattern.search(text):
            return reason
    words = [lemma(word) for word in re.findall(r"[a-z]+", text)]
    if words and all(word in _SIZE_WORDS or word in FILLER for word in words):
        return "is a size, which a picture without a scale does not show"
    return None


def without_opinions(phrase: str) -> str:
    """Return the phrase without words that only praise or judge ("a powerful tail" -> "a tail")."""
    return re.sub(r"\s+", " ", _PATTERNS[OPINION].sub(" ", phrase)).strip(" ,")


# --- words -----------------------------------------------------------------------------------------------------------
_IRREGULAR = {
    plural: singular
    for plural, _, singular in (
        pair.partition(":")
        for pair in """
        feet:foot teeth:tooth leaves:leaf geese:goose mice:mouse men:man women:woman people:person
        children:child knives:knife wolves:wolf halves:half shelves:shelf loaves:loaf scarves:scarf
        hooves:hoof antennae:antenna lives:life fungi:fungus cacti:cactus bodies:body berries:berry dice:die
        oxen:ox calves:calf thieves:thief wives:wife eyes:eye shoes:shoe toes:toe canoes:canoe axes:axe
        gases:gas lenses:lens buses:bus movies:movie cookies:cookie ties:tie pies:pie selves:self
        """.split()
    )
}
_UNCOUNTED = frozenset(
    """
    grass glass dress brass moss glasses sunglasses trousers pants jeans shorts scissors tongs goggles bus gas lens
    canvas compass cactus octopus class cross mattress series species fungus fabulous asparagus walrus platypus
    hibiscus citrus iris chess less is as its has this thus truss press process surplus crocus virus harness
    wilderness stainless colourless hairless
""".split()
)


def lemma(word: str) -> str:
    """Strip a plural ending: `stripes` -> `stripe`, `leaves` -> `leaf`, `grass` -> `grass`."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word in _UNCOUNTED or len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is", "ous")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes", "zzes", "oes")):
        return word[:-2]
    return word[:-1]


FILLER = frozenset(
    """
    a an the its his her their it one two three four five six eight ten several many few some most all both each
    other another more much very quite rather somewhat fairly often usually typically generally commonly sometimes
    mostly mainly also still just only is are be has have having with and or of in on at by to from as there that
    which who overall general main typical common characteristic prominent well fine good pair set row group series
    number relatively slightly long-lasting extremely various overall like look appearance kind sort type form
""".split()
)


def _table(text: str) -> dict[str, str]:
    """Read "concept: word word" lines into word -> concept."""
    rows = (line.split(":") for line in text.strip().splitlines())
    return {word: concept.strip() for concept, words in rows for word in words.split()}


# Word -> shared concept, by kind. The concepts that the curated ontologies have carry the same names there.
COLOURS = _table("""
    orange: orange
    yellow: yellow yellowish lemon-yellow
    red: red crimson scarlet reddish
    pink: pink pinkish magenta rose
    purple: purple violet lavender purplish
    green: green greenish olive emerald lime
    blue: blue bluish navy azure turquoise teal
    tan: tan sandy beige buff fawn khaki tawny cream creamy straw-coloured
    reddish_brown: chestnut mahogany auburn rust rusty bronze copper reddish-brown
    brown: brown brownish chocolate
    white: white whitish
    grey: grey gray greyish grayish silvery-grey slate
    black: black blackish jet-black
    gold_or_brass: gold golden brass
    shiny_metal: silver silvery chrome chromed metallic metal steel aluminum aluminium iron tin
    many_colours: colourful colorful multicoloured multicolored multi-colored rainbow
    black_beside_white: black-and-white
""")
TEXTURES = _table("""
    fur: fur furry hair hairy coat pelt
    shaggy_fur: shaggy curly wiry fluffy woolly wooly bushy mane long-haired
    short_fur: short-haired
    feathers: feather feathery feathered plumage
    scales: scaly scale
    mottled: mottled blotch blotchy blotched speckled patchy camouflage camouflaged marbled
    stripes: stripe striped band banded stripy
    small_spots: spot spotted dot dotted speckle polka-dot
    segments: segment segmented
    hard_shell: shell carapace exoskeleton
    bumps_or_spines: spine spiny bump bumpy spike spiky quill thorn thorny wart warty knobby prickly
    fine_network: net netting mesh web
    glossy: shiny glossy polished glistening lustrous gleaming iridescent
    dark_glass: tinted
    transparent: transparent translucent clear see-through glass
    wood: wood wooden timber bamboo
    coarse_fibres: straw yarn wool knitted knit rope bristle fringe woven wicker thread
    cloth: cloth fabric textile cotton silk velvet linen denim
    cloth_folds: fold pleat pleated ruffle draped
    printed_cloth: plaid checkered chequered checked paisley patterned
    leather: leather leathery
    plastic: plastic vinyl
    wrinkles: wrinkle wrinkled wrinkly
    lumpy: lumpy mashed clump chunky
    lattice: lattice truss latticework
    grid: grid
    lettering: letter lettering text writing word number numeral label logo inscription sign
""")
SHAPES = _table("""
    round_shape: round rounded circular circle disc disk disc-shaped disk-shaped spherical sphere globe ball
    ring: ring rim hoop donut-shaped
    oval_shape: oval oval-shaped egg-shaped elliptical almond-shaped
    long_body: elongated torpedo-shaped sausage-shaped snake-like eel-like worm-like
    rounded_back: hump humped hunched
    long_curve: curved curve crescent arched arch arc bent crescent-shaped
    loops: loop coil coiled spiral twisted curled
    box: rectangular boxy box-shaped square rectangle box-like cube
    cylinder: cylindrical cylinder tubular tube tube-shaped barrel-shaped
    flared_shape: flared bell-shaped cone conical cone-shaped funnel tapering tapered
    triangle: triangular triangle wedge-shaped
    upright_pole: pole post mast column pillar
    tower: tower spire steeple turret
    thin_rod: rod stick shaft
    parallel_bars: bars slat railing
    thin_lines: wire cable
    radial_pattern: star-shaped star radial spoke radiating
    pointed_tip: pointed pointy sharp tip point needle
    flat_shape: flat flattened
    small_round_items: bead pellet
""")
CONTEXTS = _table("""
    sky: sky cloud
    grass: grass lawn meadow field pasture
    green_leaves: leaf foliage leafy vine
    trees: tree forest woods jungle
    water_surface: water lake river ocean sea pond wave
    under_water: underwater aquarium
    sand_or_gravel: sand beach gravel desert dune
    rocks: rock rocky stone cliff boulder mountain
    forest_floor: soil dirt mud
    snow: snow ice snowy icy
    street: street road pavement sidewalk asphalt highway
    buildings: building house city
    masonry: brick masonry stonework
    indoor_room: room indoors wall ceiling floor carpet
    table_surface: table tabletop counter
""")
PARTS = _table("""
    animal_face: face
    muzzle: muzzle snout
    upright_ears: pricked
    round_eyes: eye
    jointed_legs: jointed
    antennae: antenna feeler
    fin_or_flipper: fin flipper
    wheel: wheel tire tyre
    windscreen: windshield windscreen
    seat: seat chair bench cushion saddle
    handle: handle grip knob
    dish: dish bowl plate
    dial: dial gauge
    screen: screen display lcd monitor
    keys_or_buttons: key button keypad
    control_panel: panel slot
    cord_or_chain: cord chain cable strap string leash lanyard
    fruit: fruit berry
    human_hand: hand
    human_legs: trouser
    beak: beak bill
    feet: foot paw
    hooves: hoof
    claws: claw pincer talon
    flower: flower petal blossom bloom
    headlights: headlight
    mouth: mouth jaw lip
    teeth: tooth fang tusk
    whiskers: whisker
    horns: horn antler
    wings: wing
    lid: lid cap cover
    door: door
    window: window
    roof: roof
    lamp: lights bulb lamp lantern
""")
VOCABULARY = {"colour": COLOURS, "texture": TEXTURES, "shape": SHAPES, "context": CONTEXTS, "part": PARTS}
# Lengths are seen as proportions, so they stay with these nouns (`long_tail`); elsewhere they are dropped.
PROPORTIONS = {
    "long": "long",
    "elongated": "long",
    "slender": "thin",
    "thin": "thin",
    "narrow": "thin",
    "skinny": "thin",
}
PROPORTIONED = frozenset("tail neck leg ear beak snout muzzle horn handle stem trunk tongue finger".split())
# Two words that name one concept together: an adjective and a noun not far behind it.
PAIRS = {
    (first, second): (kind, concept)
    for kind, concept, firsts, seconds in (
        ("colour", "dark_brown", "dark", "brown"),
        ("colour", "tan", "light", "brown"),
        ("texture", "shaggy_fur", "long thick dense", "fur coat hair"),
        ("texture", "short_fur", "short smooth sleek", "fur coat hair"),
        ("shape", "long_body", "long elongated slender thin", "body"),
        ("shape", "rounded_back", "arched humped", "back"),
        ("part", "upright_ears", "upright erect pointed pointy pricked triangular", "ear"),
        ("part", "dark_face", "dark black", "face muzzle"),
        ("part", "four_legs", "four", "leg limb foot paw"),
        ("part", "long_thin_legs", "long thin slender spindly skinny", "leg"),
        ("part", "jointed_legs", "six jointed segmented", "leg"),
        ("part", "wings", "transparent clear membranous", "wing"),
        ("part", "muzzle", "long pointed protruding", "nose"),
        ("context", "under_water", "coral", "reef"),
    )
    for first in firsts.split()
    for second in seconds.split()
}
# Nouns that carry a colour, a texture or a shape but are nothing to see by themselves.
BEARERS = _table("""
    body: body torso build frame bodied
    surface: surface skin texture finish coloration colouration color colour coloring colouring hue tone pattern marking
    whole: shape outline structure object item appearance silhouette design
    head: head
    underside: belly underpart underside underbelly chest breast
    back: back side flank
""")
# Words that say what a thing is, not what it shows.
CATEGORIES = frozenset(
    """
    animal mammal bird fish insect reptile amphibian creature crustacean mollusk mollusc spider snake dog cat canine
    feline primate monkey rodent breed species vehicle device tool instrument machine equipment appliance container
    garment clothing furniture weapon food dish-type plant fungus vegetable vessel piece item object product
    building-type part component accessory material type kind shop store place area system mechanism unit element
    feature detail member family variety version style model ornament decoration
""".split()
)
# Nouns that name no part one could point at, and words that are no nouns though they may end a phrase.
VAGUE = frozenset(
    """
    base bottom top end inside interior exterior edge front line length width height depth diameter circumference
    inch control name out plain port register scheme source space worn written together dark light arctic bulbous
    hairless lean muscle plankton coastal ground consistency construction demeanor eyesight feel fit built call
    center centre closure down lot nearby outdoor rest reservoir side wingspan middle way use place position
    location amount level degree angle contrast detail thing layer part half piece bit dimension proportion age sex
    male female adult young human user wearer air energy force motion movement speed temperature time day night year
    world life
    """.split()
)
# One word that stands for two, as in lists of attributes.
COMPOUNDS = {
    "longleg": "long leg", "longneck": "long neck", "toughskin": "tough skin", "chewteeth": "teeth",
    "meatteeth": "teeth", "buckteeth": "teeth", "strainteeth": "teeth", "quadrapedal": "four legs",
    "bipedal": "two legs", "grey-white": "grey and white",
}  # fmt: skip


def kind_of(word: str) -> tuple[str, str] | None:
    """Return the kind and the shared concept that one word names, or None."""
    for each in (word, lemma(word)):
        for kind, table in VOCABULARY.items():
            if each in table:
                return kind, table[each]
    return None


def is_size(word: str) -> bool:
    """Whether a word only says how large something is."""
    return word in _SIZE_WORDS


def same_words(name: str) -> frozenset[str]:
    """The words of a name, plurals stripped and spellings joined: equal for names that mean one concept."""
    words = [_SPELLINGS.get(lemma(word), lemma(word)) for word in re.findall(r"[a-z]+", name.casefold())]
    return frozenset(word for word in words if word not in _EMPTY) or frozenset(words)


_SPELLINGS = _table("""
    grey: gray
    colour: color coloured colored
    stripe: striped band banded
    fur: furry
    spot: spotted dot dotted
    glossy: shiny
    metal: metallic
    wood: wooden
    round: circular rounded
""")
_EMPTY = frozenset("a an the of shape shaped object thing pattern texture surface area region item".split())
