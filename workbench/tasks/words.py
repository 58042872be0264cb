"""The words of the task grammars, and the rule that keeps evaluation combinations out of training.

The embedded model is trained on sentences made from these words, and the tasks ask about sentences made
from the same words in combinations that training never showed: `held_out` decides by hash, so both sides
agree without sharing state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

NAMES: Sequence[str] = (
    "Mary John Tom Anna Sara Paul Jack Emma Kate Mark Lucy Dan Alice Bob Carol David "
    "Peter Susan James Linda Kevin Laura Brian Helen Frank Grace Henry Julia Oscar Ruth Simon Wendy"
).split()
PLACES: Sequence[str] = (
    "store park school office garden station market house library beach museum river".split()
)
OBJECTS: Sequence[str] = "drink book lamp ring ball letter basket bottle hat coat picture ticket".split()
NOUNS: Sequence[str] = (
    "key teacher car book dog cat door letter picture window table friend author farmer pilot "
    "singer lamp boat house river doctor student garden bottle"
).split()
PREPOSITIONS: Sequence[str] = "near behind beside with from by".split()
ADJECTIVES: Sequence[str] = "old new red quiet strange famous empty ready late small".split()
EVENTS: Sequence[str] = (
    "war siege voyage dispute project strike journey drought festival trial reign campaign".split()
)
VERBS = (
    ("is", "are"),
    ("was", "were"),
    ("has", "have"),
    ("does", "do"),
    ("seems", "seem"),
    ("looks", "look"),
)
CENTURIES = ("11", "12", "13", "14", "15", "16", "17", "18", "19")

ARGUMENTS: Sequence[str] = (
    "size color name depth width height index value count limit offset path mode label weight state "
    "owner start stop step scale title level total score parent child buffer cache key data text "
    "items length rate source target prefix format"
).split()
CLASSES: Sequence[str] = (
    "Box Node Reader Buffer Shape Model Table Event Writer Parser Record Config Timer Stack".split()
)
FUNCTIONS: Sequence[str] = (
    "load update create find check build send parse write read close open reset apply".split()
)
DESCRIPTIONS: Sequence[str] = (
    "number of items,name of the file,default value,current state,list of names,type to use".split(",")
)

HELD_OUT_ONE_IN = 5


def held_out(*parts: object) -> bool:
    """Whether this combination of words belongs to evaluation (one in five) and never to training."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT_ONE_IN == 0
