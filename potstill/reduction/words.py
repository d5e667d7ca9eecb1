"""The words and signs that say what a text is: prices, labels, section headings, notices. Several languages, no site.

Used by the rest of potstill/reduction.
"""

import re
from bisect import bisect_right
from itertools import accumulate


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


SYMBOL = re.compile("[$€£¥₹₽₩₪₺₴₫฿₦₱₸₵₡﷼]")
CURRENCIES = names(
    "usd eur gbp egp chf sek nok dkk pln czk huf ron bgn aed sar qar kwd inr aud cad nzd brl mxn ars clp cop "
    "zar try rub uah "
    "ils jpy cny krw thb idr myr sgd php vnd ngn kes rs rp kr zł kč ft lei лв руб грн جنيه ريال درهم sr dh tl din 円 元"
)
WORD = re.compile(r"\w+")
DIGIT = re.compile(r"\d")
ASCII_DIGITS = b"0123456789"
DECIMALS = re.compile(r"\d[.,](?:\d\d|--?)(?![\d.,])")
DIGITS = "0123456789"
LABELS = names(
    "sku mpn upc ean gtin isbn asin barcode model brand manufacturer marke marque marca merk hersteller märke "
    "code código codice "
    "item article artikel artikelnummer art ref réf reference référence referencia riferimento stock "
    "availability available "
    "unavailable sold lieferbar verfügbar lager disponible disponibile disponível agotado épuisé esaurito "
    "voorraad price preis "
    "prix precio prezzo preço prijs pris cena rrp msrp uvp"
)
# labels of what names a thing, wherever on its page they stand
IDENTITIES = names(
    "sku mpn upc ean gtin isbn asin barcode brand manufacturer marke marque marca merk hersteller "
    "artikelnummer reference "
    "référence referencia riferimento"
)
RELATED_HEADING = re.compile(
    r"related|similar|recommended|recently viewed|also (?:like|bought|viewed|see)|you (?:may|might|could)|"
    r"bought together|"
    r"more from|more (?:recipes|products|items)|customers (?:who|also)|trending|popular|best ?sellers?|featured|latest|"
    r"ähnliche|das könnte|kunden (?:kauften|haben)|auch interess|weitere|vous aimerez|produits (?:similaires|associés)|"
    r"también|relacionad[oa]s|productos similares|potrebbe|prodotti correlati|verwandt|ook bekeken",
    re.I,
)
REVIEW_HEADING = re.compile(
    r"(?:reviews?|ratings? (?:&|and)|comments?|leave a|write a|questions|bewertungen|kommentare|avis|"
    r"commentaires|reseñas|"
    r"opiniones|comentarios|recensioni|commenti|reacties)(?![a-z])",
    re.I,
)
SECTION_HEADING = re.compile(
    r"\W*(?:(?:the|product|item|key|technical|more|recipe) )*(?:descriptions?|details|specifications?|specs|"
    r"features?|highlights|"
    r"overview|information|dimensions|measurements|materials?|composition|attributes|about this|ingredients|"
    r"instructions|"
    r"directions|method|preparation|steps|how to make|nutrition|notes?|equipment|beschreibung|produktbeschreibung|"
    r"technische daten|eigenschaften|merkmale|zutaten|zubereitung|anleitung|nährwert|descripci[oó]n|caracter[ií]sticas|"
    r"especificaciones|ficha|ingredientes|preparaci[oó]n|elaboraci[oó]n|instrucciones|descrição|"
    r"características|modo de preparo|"
    r"caractéristiques|fiche|ingrédients|préparation|étapes|descrizione|caratteristiche|specifiche|ingredienti|"
    r"preparazione|"
    r"procedimento|beschrijving|omschrijving|specificaties|kenmerken|ingrediënten|bereiding|bereidingswijze|"
    r"opis|składniki|"
    r"przygotowanie|beskrivning|ingredienser|gör så här|fremgangsmåde|fremgangsmåte)(?!\w)",
    re.I,
)
# the same for ASCII text in lower case: branches of one case are told apart by their first letter
SECTION_HEADING_LOWER = re.compile(SECTION_HEADING.pattern)
# a word that every NOISE has, in lower case
NOISE_WORDS = ("cookie", "©", "copyright", "javascript", "rights", "rechte", "droits", "derechos", "diritti")
# recipes speak of cookies too: a notice has a verb such as "use" in the same sentence. Italian has no plural for them
NOISE = re.compile(
    r"\bcookies\b.{0,60}(?:consent|accept|agree|policy|experience|akzept|zustimm|einverstanden|einwillig|acept|accett|"
    r"aceit|polít|politique|navigation|akkoord|toestemming)|"
    r"\b(?:we|sites?|website|shop|store|partners)\b[^.!?]{0,40}\buses?\b[^.!?]{0,60}\bcookies\b|"
    r"\b(?:using|use of) (?:this|our|the) (?:web)?(?:site|shop|store|page)\b.{0,60}\bcookies\b|\buse of cookies\b|"
    r"\b(?:verwende\w*|nutz(?:t|en)|benutz(?:t|en)|setz(?:t|en) wir|utilis\w+|utiliz\w+|usiamo|usamos|"
    r"emple(?:a|amos)|dépos\w+|recours|gebruik\w*|plaats(?:t|en))\b[^.!?]{0,60}\bcookies\b|"
    r"\b(?:utilizz\w+|usiamo|sito usa|l'uso|accett\w+)\b[^.!?]{0,30}\bcookie\b|"
    r"\bcookie[- ]?(?:richtlinie|policy|hinweis|einstellungen|beleid|instellingen|verklaring)|"
    r"all rights reserved|alle rechte|tous droits|todos los derechos|tutti i diritti|copyright|©|"
    r"javascript (?:is|seems|must|to be)|enable javascript",
    re.I,
)
BUY = re.compile(
    r"add to (?:cart|bag|basket)|buy now|in den warenkorb|ajouter au panier|añadir al carrito|aggiungi al carrello|"
    r"adicionar ao carrinho|lägg i varukorg|in winkel(?:wagen|mand)",
    re.I,
)
DETAIL = re.compile(r"og:type: (?:\S*product(?!\S*group)|\S*recipe)", re.I)
FACTS = names(
    "price lowprice highprice pricecurrency sku mpn brand gtin gtin8 gtin12 gtin13 gtin14 productid model name "
    "availability author recipeingredient ingredients recipeinstructions recipeyield preptime cooktime totaltime"
)


def words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def count_digits(text: str) -> int:
    if not text.isascii():
        return len(DIGIT.findall(text))
    data = text.encode()
    return len(data) - len(data.translate(None, ASCII_DIGITS))


def is_dense(text: str, digits: int) -> bool:
    """Whether a long text is a run of labels and numbers, such as `Width: 10 cm, Height: 12 cm, Weight: 300 g`."""
    return text.count(":") >= 3 or 16 * digits > len(text)


def is_section_heading(text: str) -> bool:
    found = SECTION_HEADING_LOWER.match(text.lower()) if text.isascii() else SECTION_HEADING.match(text)
    return found is not None


def find_noise(texts: list[str]) -> set[int]:
    """The numbers of the texts that are a cookie notice, a copyright line or the like; the words are looked for first,
    in all texts at once, as that is cheap."""
    low = [text.lower() for text in texts]
    ends = list(accumulate(len(text) + 1 for text in low))
    page = "\n".join(low)
    found = set()
    for word in NOISE_WORDS:
        place = page.find(word)
        while place >= 0:
            number = bisect_right(ends, place)
            found.add(number)
            place = page.find(word, ends[number])
    return {number for number in found if NOISE.search(texts[number])}


def has_price(text: str, said: list[str]) -> bool:
    """Whether a short text has a number and a currency, or a very short one a number with two decimals; `said` has its
    words in lower case."""
    # most lines have no digit at all
    if text.isascii() and not DIGIT.search(text):
        return False
    if not any(word[0].isdigit() or word[-1].isdigit() for word in said):
        return False
    if len(text) <= 40 and DECIMALS.search(text):
        return True
    return SYMBOL.search(text) is not None or any(word.strip(DIGITS) in CURRENCIES for word in said)
