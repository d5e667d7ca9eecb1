"""Invented players and teams: names put together from syllables, so that every match has its own."""

import random

words = str.split
STARTS = words(
    """Ab Al An Ar Bal Bar Bel Bran Cal Cam Car Cor Dal Dan Dar Del Dun Ed El Fal Fen Gar Gil Gor Hal Har Hol Il Jan Jor
    Kal Kar Kel Kin Lan Lar Lin Lor Mal Mar Mel Mor Nal Nar Nor Ol Or Pal Par Pel Per Ral Ran Rin Ros Sal San Sel Sor
    Tal Tar Tel Tor Ul Val Var Vel Wal War Wen Yar Zal Zor"""
)
MIDDLES = words("a e i o u a e i ba da di ga ka la li lo ma mi mo na ni no ra ri ro sa ta ti to va ve vi")
ENDS = words(
    """by combe dane dew fell ford gan gate ham hurst kar kind lan land lash ley lin low man mere mont more nath ner
    nell nesh pur quist ram ridge rook sby sen shaw sin sson stead stone tan ter thorn thy ton vane wan ward wick
    win worth"""
)
GIVEN_ENDS = words("in an esh a eth ir ul een iya on")
PARTICLES = ("van der", "de", "le", "du")
CITIES = words("Ar Bel Cor Dun El Fen Glen Har Is Kel Lor Mar Nor Or Pel Quar Ros Sel Tor Ul Ven Wes Yar")
CITY_ENDS = words("dale ford haven mere port ridge stead ton vale wick")
NICKNAMES = words("Herons Lanterns Millers Otters Pilots Rooks Saplings Tinkers Wardens Weavers Foxes Comets")
LETTERS = "ABCDEFGHJKLMNPRSTVWY"
SIDE = 11


def surname(rng: random.Random) -> str:
    return rng.choice(STARTS) + rng.choice(MIDDLES) + rng.choice(ENDS)


def player(rng: random.Random, taken: set[str]) -> str:
    """A name as Cricsheet writes one: initials or a given name before a surname that is not in `taken`, and then is."""
    while True:
        name = surname(rng)
        if 5 <= len(name) <= 11 and name not in taken:
            taken.add(name)
            break
    draw = rng.random()
    if draw < 0.2:
        return f"{rng.choice(STARTS)}{rng.choice(GIVEN_ENDS)} {name}"
    initials = "".join(rng.sample(LETTERS, rng.choice((1, 1, 2, 2, 2, 3))))
    if draw < 0.24:
        return f"{initials} {rng.choice(PARTICLES)} {name}"
    if draw < 0.27:
        return f"{initials} {name}-{surname(rng)}"
    return f"{initials} O'{name}" if draw < 0.29 else f"{initials} {name}"


def side(rng: random.Random, taken: set[str]) -> list[str]:
    """Eleven players and a twelfth; in some sides two are of one family."""
    names = [player(rng, taken) for _ in range(SIDE + 1)]
    if rng.random() < 0.3:
        family = names[0].split()[-1]
        names[1] = f"{''.join(rng.sample(LETTERS, 2))} {family}"
    return names


def teams(rng: random.Random) -> list[str]:
    cities = rng.sample(CITIES, 2)
    return [
        f"{city}{rng.choice(CITY_ENDS)} {name}" for city, name in zip(cities, rng.sample(NICKNAMES, 2), strict=True)
    ]
