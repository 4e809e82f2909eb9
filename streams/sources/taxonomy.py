"""The category and the style of an item, from the words of its text.
The rule is stated: the first row of the table that has a word of the text wins; without one it is "other".
"""

import re

import numpy as np
from numpy.typing import NDArray

CATEGORY_WORDS: dict[str, str] = {
    "christmas": "christmas xmas noel santa reindeer advent snowman snowflake bauble wreath",
    "easter": "easter bunny chick hen",
    "jewellery": (
        "necklace necklac neckl bracelet bracel earrings earring ring charm charms diamante bead "
        "beads pendant bling hair jewel jewelled brooch"
    ),
    "bags": "bag bags purse handbag wallet shopper luggage backpack satchel passport",
    "lights": (
        "candle candles light lights lantern lamp lampshade candleholder candlestick candlesticks "
        "tealight holder incense chandelier"
    ),
    "cards and wrap": "card cards wrap gift ribbon ribbons tissue tissues tag tags envelope tape birthday",
    "party": ("bunting party garland balloons balloon cones streamer doiley doilies doily napkin napkins straws"),
    "baking": "cake cakes baking cases cupcake biscuit cookie sugar icing measuring jelly",
    "kitchen": (
        "mug mugs cup cups teapot tea coffee saucer plate plates bowl bowls dish jug cutlery glass "
        "tumbler kitchen jar jars jam pantry apron egg frying pan tray placemats placemat coaster "
        "coasters bottle milk water lunch snack food picnic oven pizza chopsticks recipe spoon "
        "towel towels"
    ),
    "toys": (
        "toy toys game games dolly doll jigsaw kit childrens childs spaceboy puzzle skittles "
        "dinosaur magic playing ball bank robot feltcraft felt children kids"
    ),
    "stationery": (
        "notebook pen pens pencil pencils sticker stickers book books journal memo letter "
        "stationery album calculator eraser paper magnets magnet passport ruler chalk blackboard"
    ),
    "garden": (
        "garden plant pot watering bird birdhouse parasol umbrella trowel seeds herb planter gnome "
        "flower flowers rose lily daisy blossom bulb"
    ),
    "storage": (
        "box boxes tin tins storage drawer drawers cabinet basket chest bin tidy organiser rack "
        "shelf hamper crate canister"
    ),
    "textiles": "cushion cover throw quilt blanket curtain rug doormat mat stool hot pillow patch",
    "walls": "frame frames mirror clock wall sign picture photo print art canvas tile number plaque",
    "hardware": ("hook hooks hanger knob knobs door doorstop key bell bells doorknob stand zinc metal wicker wire"),
    "bathroom": "bathroom bath soap toothbrush toilet sponge scent shower",
    "decorations": (
        "decoration decorations dec hanging heart hearts star stars ornament butterfly feather bell trinket angel fairy"
    ),
}
STYLE_WORDS: dict[str, str] = {
    "retrospot": "retrospot retro spot spots spotty polkadot dots",
    "vintage": "vintage antique edwardian victorian regency baroque classic traditional french",
    "floral": "flower floral rose roses daisy lily botanical blossom peony lavender",
    "heart": "heart hearts love sweetheart",
    "animals": "bird birds cat dog rabbit owl hen chick butterfly elephant skull skulls dinosaur frog",
    "children": "dolly girl spaceboy circus childrens childs woodland babushka suki kids toadstool baby",
    "british": "union jack england london english keep kings teatime",
    "paisley": "paisley kashmiri russian folkart scandinavian ethnic",
    "red": "red cherry strawberry",
    "pink": "pink fairy",
    "blue": "blue",
    "white": "white ivory cream lace",
    "green": "green mint",
    "black": "black",
    "metallic": "silver gold zinc metal crystal glass pearl",
}
CATEGORIES: tuple[str, ...] = ("other", *CATEGORY_WORDS)
STYLES: tuple[str, ...] = ("plain", *STYLE_WORDS)


def _ranks(table: dict[str, str]) -> dict[str, int]:
    ranks: dict[str, int] = {}
    for number, words in enumerate(table.values(), start=1):
        for word in words.split():
            ranks.setdefault(word, number)
    return ranks


_CATEGORY_OF, _STYLE_OF = _ranks(CATEGORY_WORDS), _ranks(STYLE_WORDS)
_WORD = re.compile(r"[a-z]+")


def _first(ranks: dict[str, int], words: list[str]) -> int:
    return min((ranks[word] for word in words if word in ranks), default=0)


def classify(texts: list[str]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """(N,) numbers into CATEGORIES and into STYLES."""
    words = [_WORD.findall(text.lower()) for text in texts]
    categories = [_first(_CATEGORY_OF, found) for found in words]
    styles = [_first(_STYLE_OF, found) for found in words]
    return np.array(categories, np.int16), np.array(styles, np.int16)
