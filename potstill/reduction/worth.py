"""Says what each block of a page is worth per token.

Used by potstill/html.py. The signals: prices, headings, table rows, labels and microdata; distance to the main
heading; the region a block is in; links against text; repetition; the rank in a long list of cards.
"""

from potstill.reduction.cards import Cards, enclosing, group, priced_lists
from potstill.reduction.lines import Block, Reader
from potstill.reduction.regions import LIFTED
from potstill.reduction.words import (
    FACTS,
    IDENTITIES,
    LABELS,
    RELATED_HEADING,
    REVIEW_HEADING,
    count_digits,
    find_noise,
    has_price,
    is_dense,
    is_section_heading,
    words,
)

LEVEL_WORTH = (1.5, 0.7, 0.6, 0.5, 0.5, 0.5)
# characters of main content between the main heading and a block that halve the block's nearness, after and before it
NEAR_AFTER, NEAR_BEFORE, NEAR_LEAST, NEAR_IDENTITY = 4000, 800, 0.3, 0.8
NEXT_TO = 0.85
# prices and labels are looked for in lines this short
SHORT_CHARS = 200
PROSE_CHARS = 1500
# what stands below a heading such as "Specifications" or "Ingredients" is worth this much more
SECTION_WORTH = 1.3
LISTED_WORTH = 1.5
# in regions worth no more than this, such as menus and footers, all lines are alike
LEAST_WEIGHT = 0.12


def score_blocks(reader: Reader, anchors: list[int], cards: Cards, detail: bool, summary: set[str]) -> list[float]:
    """What each block is worth per token, about 0 to 3. The first of `anchors` is the main heading and scores highest.

    `detail` says that the page is about one thing, so that lists of links are about others; `summary` has the words of
    the page's own description.
    """
    blocks = reader.blocks
    weights = region_weights(blocks, anchors)
    nearness = distances(blocks, weights, anchors)
    priced = set() if detail else priced_lists(reader, cards)
    scores: list[float] = []
    noisy = find_noise([block.plain for block in blocks])
    prose, section = 0, 1.0
    for number, (block, card) in enumerate(zip(blocks, cards, strict=True)):
        near = nearness[number]
        if weights[number] <= LEAST_WEIGHT:
            scores.append(0.4 * weights[number] * near * (0.1 if number in noisy else 1.0))
            continue
        size = len(block.plain)
        # of a long text nothing but the agreement with the summary asks for its words
        told = block.kind != "image" and (size <= SHORT_CHARS or len(summary) > 6)
        said = words(block.plain[:1000]) if told else []
        if size <= SHORT_CHARS and not block.link_chars and not IDENTITIES.isdisjoint(said):
            near = max(near, NEAR_IDENTITY)
        weight = weights[number]
        if near > NEXT_TO and block.frame.region == "reviews":
            # beside the main heading stands what the shop says, whatever the box is called
            weight = max(weight, 0.7)
        score = worth(block, said, number in noisy) * weight * near
        if card is not None:
            if group(card[0]) in priced:
                # the products of a listing are its content, wherever they start
                score *= LISTED_WORTH / near
            # the hundredth card of a list is worth a quarter of the first
            score *= (0.25 + 0.75 / (1 + card[1] / 10)) * (0.3 if detail else 1.0)
        if size < 60 and block.kind != "image" and is_section_heading(block.plain):
            prose, section = 0, SECTION_WORTH
            score = max(score, 0.6 * weights[number])
        elif block.level:
            section = 1.0
        elif (
            size > 120
            and block.kind in ("p", "text")
            and weights[number] > 0.4
            and not is_dense(block.plain, count_digits(block.plain))
        ):
            # a description is short; what goes on is an article
            score /= 1 + prose / PROSE_CHARS
            prose += size
        if size > 40 and len(summary) > 6 and len(summary.intersection(said)) > 0.6 * len(summary):
            score += 0.5
        scores.append(score * (section if card is None and block.kind != "image" else 1.0))
    for alike in repeats(blocks):
        best = max(alike, key=lambda number: (scores[number], -number))
        for number in alike:
            scores[number] *= 1.0 if number == best else 0.1
    picture = main_picture(blocks, anchors, cards, nearness)
    if picture is not None:
        scores[picture] += 0.7
    for place, anchor in enumerate(anchors):
        scores[anchor] = 5.0 if place == 0 else max(scores[anchor], 1.5)
    return scores


def main_picture(blocks: list[Block], anchors: list[int], cards: Cards, nearness: list[float]) -> int | None:
    """The image near the main heading whose alternative text says most of it, or else the first one there."""
    told = set(words(blocks[anchors[0]].plain)) if anchors else set()
    near = [
        number
        for number, block in enumerate(blocks)
        if block.kind == "image" and cards[number] is None and nearness[number] > 0.7 and block.frame.weight == 1
    ]
    return max(near, key=lambda number: (len(told.intersection(words(blocks[number].plain))), -number), default=None)


def worth(block: Block, said: list[str], noise: bool) -> float:
    """What a block says by itself, wherever it stands; `said` has its words in lower case, if it is short."""
    text, kind = block.plain, block.kind
    size = len(text)
    if kind == "image":
        return 0.3
    if kind in ("crumb", "pages"):
        return 1.2
    known = block.prop.lower() in FACTS
    if kind == "fact":
        return 2.0 if known else 0.8
    linked = block.link_chars / max(size, 1)
    digits = count_digits(text)
    if block.level:
        score = LEVEL_WORTH[block.level - 1]
    elif linked > 0.7 or (linked > 0.4 and block.linked.count("](") > 3):
        score = 0.3
    else:
        score = {"row": 0.9, "li": 0.75 if size <= 100 else 0.62, "dd": 0.7}.get(kind, 0.5 if size <= 80 else 0.45)
        if size > 80 and is_dense(text, digits):
            score = max(score, 0.8)
    if size <= SHORT_CHARS:
        labelled = not LABELS.isdisjoint(said)
        if has_price(text, said):
            score += 0.9
        if labelled:
            score += 0.5
        if text[-1] == ":" or text[0] == "*" or (kind == "field" and not labelled):
            score = min(score, 0.25)
        elif linked < 0.5 and ":" in text[1:60]:
            score += 0.2
    if digits:
        score += 0.1
    if block.prop:
        score += 1.0 if known else 0.3
    if size > 8 and noise:
        score *= 0.15
    return score


def region_weights(blocks: list[Block], anchors: list[int]) -> list[float]:
    """The weight of each block's region. A heading such as "You may also like" starts a region of its own, and an
    <aside> or <header> whose heading repeats the main heading belongs to the main content."""
    lifted = {frame for number in anchors for frame in enclosing(blocks[number].frame) if frame.region in LIFTED}
    weights = []
    ended, factor = 0, 1.0
    for block in blocks:
        if block.level > 1 and (RELATED_HEADING.search(block.plain[:60]) or REVIEW_HEADING.search(block.plain[:60])):
            ended, factor = block.level, 0.35
        elif 0 < block.level <= ended:
            ended, factor = 0, 1.0
        weight = block.frame.weight
        if lifted and weight < 1 and not lifted.isdisjoint(enclosing(block.frame)):
            weight = 1.0
        weights.append(min(weight, factor))
    return weights


def distances(blocks: list[Block], weights: list[float], anchors: list[int]) -> list[float]:
    """Each block's nearness to the nearest of `anchors`, counted in characters of main content between them."""
    positions, position = [], 0
    for block, weight in zip(blocks, weights, strict=True):
        positions.append(position)
        position += min(len(block.plain), 600) if weight > 0.4 else 0
    near = []
    for number, place in enumerate(positions):
        best = 0.0
        for anchor in anchors or [0]:
            gap = place - positions[anchor]
            best = max(best, 1 / (1 + (gap / NEAR_AFTER if number >= anchor else -gap / NEAR_BEFORE)))
        near.append(NEAR_LEAST + (1 - NEAR_LEAST) * best)
    return near


def repeats(blocks: list[Block]) -> list[list[int]]:
    """Groups of blocks, by number, that say the same: menus for two screen sizes, cloned slides, a sticky bar."""
    seen: dict[str, tuple[str, list[int]]] = {}
    before = ""
    for number, block in enumerate(blocks):
        text = block.linked if block.kind == "image" else block.plain
        company, alike = seen.setdefault(text, (before, []))
        # a short text alone, such as a price, another product says too; after the same text it is the same one
        if not alike or len(text) > 40 or company == before or block.frame.weight < 0.5 or block.kind == "image":
            alike.append(number)
        before = text
    return [alike for _, alike in seen.values() if len(alike) > 1]
