"""Seeded texts for benchmarks/pii.py: valid values of each kind in many written forms, and numbers that must stay."""

import ipaddress
import itertools
import json
import random
import string
from typing import NamedTuple

from potstill.identifiers import IBAN_LENGTHS
from potstill.pseudonyms import gtin, iban_remainder, luhn

REGIONS = (
    "US CA GB IE FR DE AT CH IT ES PT NL BE LU DK SE NO FI PL CZ SK HU RO BG GR TR UA RU IL EG ZA NG KE IN PK JP KR CN "
    "HK SG AU NZ BR MX AR CL CO"
)
BRANDS = {"4": 16, "51": 16, "55": 16, "2221": 16, "34": 15, "37": 15, "36": 14, "305": 14, "3528": 16, "6011": 16}
BRANDS |= {"65": 16, "1800": 15, "2131": 15}
NEUTRAL = ["It is {}, as I said.", "Anna Weber, {}", '{{"value":"{}"}}', "Please use {} from now on.", "<td>{}</td>"]
SENTENCES = {
    "card": ["My card {} was charged twice.", "Please block card no {}", '{{"card":"{}"}}', "charged to visa {}."],
    "iban": ["My IBAN is {}", "transfer from {} 2 days ago", "IBAN:{}.", '{{"iban":"{}"}}'],
    "email": ["Write to {} please.", "mail:{}", '<a href="mailto:{}">me</a>', '{{"email":"{}"}}', "({})"],
    "ssn": ["His social security number is {}", "SSN: {}", '{{"ssn":"{}"}}'],
    "ip": ["Request from {} blocked", "client_ip={}", "ssh {}", '{{"ip":"{}"}}', "http://{}/login"],
    "phone": ["Call me on {}", "Phone: {}", "tel. {}", '{{"phone":"{}"}}', '<span class="tel">{}</span>', "Fax {}."],
}


class Case(NamedTuple):
    text: str
    start: int
    end: int
    kind: str
    form: str = ""

    @property
    def name(self) -> str:
        return f"{self.kind} {self.form}".strip()


def positives(rng: random.Random) -> list[Case]:
    cases = []
    for kind, make in (("card", card), ("iban", iban), ("email", email), ("ssn", ssn), ("ip", ip)):
        for _ in range(300):
            value = make(rng)
            # nine digits or dots and spaces alone say nothing: those forms get their word
            bare = kind == "ssn" and "-" not in value
            sentences = SENTENCES[kind] if bare else SENTENCES[kind] + NEUTRAL
            if kind == "ip" and ":" in value:
                sentences = [s for s in sentences if "http" not in s]
            cases.append(place(rng.choice(sentences), value, kind))
    for value, form in phone_numbers(rng):
        cases.append(place(rng.choice(SENTENCES["phone"]), value, "phone", f"{form}, with a word"))
        cases.append(place(rng.choice(NEUTRAL), value, "phone", f"{form}, bare"))
    return cases


def place(sentence: str, value: str, kind: str, form: str = "") -> Case:
    text = sentence.format(value)
    start = text.index(value)
    return Case(text, start, start + len(value), kind, form)


def card(rng: random.Random) -> str:
    prefix = rng.choice(list(BRANDS))
    length = BRANDS[prefix]
    body = prefix + numerals(rng, length - 1 - len(prefix))
    digits = next(body + d for d in string.digits if luhn(body + d))
    cuts = {16: (4, 8, 12), 15: (4, 10), 14: (4, 10)}[length]
    return grouped(digits, cuts, rng.choice(["", "", " ", "-"]))


def iban(rng: random.Random) -> str:
    country = rng.choice(list(IBAN_LENGTHS))
    account = numerals(rng, IBAN_LENGTHS[country] - 4)
    if country in ("GB", "NL", "IE", "LV", "BG"):
        account = "".join(rng.choices(string.ascii_uppercase, k=4)) + account[4:]
    value = f"{country}{98 - iban_remainder(f'{country}00{account}'):02d}{account}"
    return grouped(value, range(4, len(value), 4), rng.choice(["", " ", "-"]))


def email(rng: random.Random) -> str:
    local = rng.choice(["anna.weber", "j_smith", "o'brien", "li+shop", "x", "Emil", "marie-claire", "42nd.street"])
    domain = rng.choice(["rhyta.com", "mail.uni-bonn.de", "shop.co.uk", "firma.eu", "xn--bcher-kva.ch", "a-b.museum"])
    return f"{local}{rng.choice(['', '7', '1984'])}@{domain}"


def ssn(rng: random.Random) -> str:
    area = rng.choice([n for n in range(1, 900) if n != 666])
    digits = f"{area:03d}{rng.randint(1, 99):02d}{rng.randint(1, 9999):04d}"
    return grouped(digits, (3, 5), rng.choice(["-", "-", " ", ".", ""]))


def ip(rng: random.Random) -> str:
    if rng.random() < 0.7:
        return str(ipaddress.IPv4Address(rng.randint(0x0B000000, 0xDFFFFFFF)))
    address = ipaddress.IPv6Address((0x2A00 << 112) | rng.getrandbits(rng.choice([16, 64, 112])))
    return rng.choice([str(address), address.exploded, str(address).upper()])


def phone_numbers(rng: random.Random) -> list[tuple[str, str]]:
    """Each region's example numbers with other last digits, still valid, in the forms people write."""
    import phonenumbers as pn

    made = []
    for region in REGIONS.split():
        for line in (pn.PhoneNumberType.FIXED_LINE, pn.PhoneNumberType.MOBILE):
            example = pn.example_number_for_type(region, line)
            number = next(n for n in varied(rng, example) if pn.is_valid_number(n))
            national = pn.format_number(number, pn.PhoneNumberFormat.NATIONAL)
            abroad = pn.format_number(number, pn.PhoneNumberFormat.INTERNATIONAL)
            made += [(national, "national"), (abroad, "international"), (abroad.replace(" ", ""), "international")]
            made += [(abroad.replace(" ", "-"), "international"), (national.replace(" ", ""), "national")]
            made.append((abroad.replace("+", "00"), "international"))
    return made


def varied(rng: random.Random, example):
    import phonenumbers as pn

    while True:
        number = pn.PhoneNumber()
        number.merge_from(example)
        number.national_number = example.national_number // 1000 * 1000 + rng.randint(0, 999)
        yield number


def negatives(rng: random.Random, each: int = 200) -> dict[str, list[str]]:
    """Texts with nobody's numbers, by kind."""
    n, digits = rng.randint, lambda k: numerals(rng, k)
    letters = lambda k: "".join(rng.choices(string.ascii_uppercase, k=k))  # noqa: E731
    makers = {
        "price": lambda: rng.choice(
            [
                f"Price: ${n(1, 9999):,}.{n(0, 99):02d}",
                f"{n(1, 999)} {n(0, 999):03d} {n(0, 999):03d} Kč",
                f"{n(1, 99)}.{n(0, 999):03d}.{n(0, 999):03d},{n(0, 99):02d} €",
                f"was {n(1000000, 99999999)} now {n(1000000, 99999999)} EUR",
                json.dumps({"price": n(1, 10**9) / 100, "total": n(10**7, 10**9)}),
                f"Rs {n(1, 99)} {n(0, 999):03d} {n(0, 999):03d}",
            ]
        ),
        "sku": lambda: rng.choice(
            [
                f"SKU: {letters(3)}-{digits(5)}-{digits(4)}",
                f"SKU {digits(3)}-{digits(3)}-{digits(4)}",
                f"Item no. {digits(10)}",
                json.dumps({"sku": digits(12), "mpn": digits(9)}),
                f"Model {letters(2)}{digits(8)} in stock",
                f"Art.-Nr. {digits(4)} {digits(3)} {digits(3)}",
                f"Part number 0{digits(3)}-{digits(6)}",
            ]
        ),
        "gtin": lambda: rng.choice(
            ["EAN {}", "{}", "GTIN: {}", '{{"gtin13":"{}"}}', "{} Mobile Phone Case", "UPC {}."]
        ).format(article_number(rng, rng.choice([8, 12, 13, 13, 13, 14]))),
        "gtin grouped": lambda: "Barcode " + grouped(article_number(rng, 13), (1, 7), " "),
        "isbn": lambda: rng.choice(
            [
                f"ISBN 978-{n(0, 9)}-{digits(4)}-{digits(4)}-{n(0, 9)}",
                f"ISBN {n(0, 9)}-{digits(3)}-{digits(5)}-{n(0, 9)}",
            ]
        ),
        "version": lambda: rng.choice(
            ["version {}", "v{}", "Firmware {} is out", "build {}", "Chrome/{}", "lib-{}.js"]
        ).format(f"{n(0, 20)}.{n(0, 99)}.{n(0, 200)}.{n(0, 200)}"),
        "order": lambda: rng.choice(
            [
                f"Order #{digits(3)}-{digits(7)}-{digits(7)}",
                f"Order number {digits(10)} has shipped",
                f"Order no: {digits(16)}",
                f"Invoice {n(2000, 2026)}-{digits(6)}",
                f"Tracking 1Z{digits(16)}",
                f"order total 1 {n(100, 999)} {n(100, 999)},00",
            ]
        ),
        "date": lambda: rng.choice(
            [
                f"{n(1970, 2030)}-{n(1, 12):02d}-{n(1, 28):02d} {n(0, 23):02d}:{n(0, 59):02d}",
                f"{n(1, 28):02d}.{n(1, 12):02d}.{n(1970, 2030)}",
                f"{n(1, 12)}/{n(1, 28)}/{n(1970, 2030)}",
                f"{n(1970, 2030)}{n(1, 12):02d}{n(1, 28):02d}T{n(0, 23):02d}{n(0, 59):02d}{n(0, 59):02d}",
                f"at {n(10**9, 2 * 10**9)} or {n(10**12, 2 * 10**12)}",
                f"from {n(1990, 2010)}-{n(2011, 2026)}",
                f"{n(1970, 2030)}-{n(1, 12):02d}-{n(1, 28):02d}T{n(0, 23):02d}:{n(0, 59):02d}:00+02:00",
            ]
        ),
        "measure": lambda: rng.choice(
            [
                f"{n(1, 999)} x {n(1, 999)} x {n(1, 999)} mm",
                f"{n(1, 5)}.{n(0, 9)} ({n(1000000, 9999999)} ratings)",
                f"{rng.uniform(-90, 90):.7f}, {rng.uniform(-180, 180):.7f}",
                f"{n(640, 7680)} {n(480, 4320)} {n(1, 60)}",
                "Sizes 36 38 40 42 44 46",
                "01 02 03 04 05 06 07",
                f"{n(10**6, 10**9)} views",
            ]
        ),
        "file": lambda: rng.choice(
            [
                f"/images/{digits(13)}_{digits(7)}.jpg",
                f"https://cdn.shop.com/{digits(16)}.png?v={digits(10)}",
                f"logo@2x.png {letters(4)}",
                f"id-{digits(4)}-{digits(4)}",
                f"#{digits(6)} .a::before",
            ]
        ),
    }
    return {kind: [make() for _ in range(each)] for kind, make in makers.items()}


def article_number(rng: random.Random, length: int) -> str:

    body = numerals(rng, length - 1)
    return next(body + d for d in string.digits if gtin(body + d))


def numerals(rng: random.Random, count: int) -> str:
    return "".join(rng.choices(string.digits, k=count))


def grouped(value: str, cuts, separator: str) -> str:
    edges = [0, *cuts, len(value)]
    return separator.join(value[a:b] for a, b in itertools.pairwise(edges))
