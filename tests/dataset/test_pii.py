import ipaddress
import itertools
import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from costs import cpu_s
from potstill import digit_runs, identifiers, phones, pii
from potstill.pseudonyms import DOMAINS, gtin, iban_remainder, luhn
from potstill.stop import DATA, USAGE, Stop

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiIsIm4iOjd9.dBjftJeZ4CVPmB92K27uhbUJU1p1r_wW1gFWFOEjXk"
PEM_BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7\nVJTUt9Us8cKjMzEfYyjiWA4R4ypbHqGC0H0\n"


def values(text: str, **options) -> list[tuple[str, str]]:
    return [(span.kind, text[span.start : span.end]) for span in pii.find(text, **options)]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("Write to Anna.Weber+shop@mail.uni-bonn.de.", "email", "Anna.Weber+shop@mail.uni-bonn.de"),
        ("?email=anna%40rhyta.com&x=1", "email", "anna%40rhyta.com"),
        ("anna&#64;rhyta.com", "email", "anna&#64;rhyta.com"),
        ("They're not answering at 780-999-2181 today", "phone", "780-999-2181"),
        ("messages to 056 590 36 33", "phone", "056 590 36 33"),
        ("phone:\n0393 1144137\n\ne-mail:", "phone", "0393 1144137"),
        ("手机13581683297联系", "phone", "13581683297"),
        ("Tél. : 01 23 45 67 89", "phone", "01 23 45 67 89"),
        ("mailto:%20jo@rhyta.com", "email", "jo@rhyta.com"),
        ("SECRET_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "secret", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        ("Phone: 72 128 827", "phone", "72 128 827"),
        ("Berlin, +49 (0)30 695 182 91", "phone", "+49 (0)30 695 182 91"),
        ('<a href="tel:+492118284912">', "phone", "+492118284912"),
        ("(212) 736-5000x12", "phone", "(212) 736-5000"),
        ('{"homePhone":2127365000}', "phone", "2127365000"),
        ("From 2 shops: 212-736-5000 2024-01-05", "phone", "212-736-5000"),
        ("cc 4047737215142 on", "card", "4047737215142"),
        ("it is 3782 822463 10005", "card", "3782 822463 10005"),
        ('{"n":5555555555554444}', "card", "5555555555554444"),
        ("1 x 4111-1111-1111-1111", "card", "4111-1111-1111-1111"),
        ("IBAN DE89 3704 0044 0532 0130 00 2 days ago", "iban", "DE89 3704 0044 0532 0130 00"),
        ("gb82west12345698765432", "iban", "gb82west12345698765432"),
        ("SSN: 125174954", "ssn", "125174954"),
        ("it is 125-17-4954", "ssn", "125-17-4954"),
        ("from 41.176.181.243:8080", "ip", "41.176.181.243"),
        ("IP address 9.8.7.6", "ip", "9.8.7.6"),
        ("via 2a00:1450:4001:81b::200e,", "ip", "2a00:1450:4001:81b::200e"),
        ("postgres://app:s3cr3t@db.local/x", "url_userinfo", "app:s3cr3t"),
        ("https://me:p@ss@host.com/", "url_userinfo", "me:p@ss"),
        ("key sk-proj-Ab3dEf6hIj9kLm2nOp5q", "secret", "sk-proj-Ab3dEf6hIj9kLm2nOp5q"),
        ("AKIAIOSFODNN7EXAMPLE", "secret", "AKIAIOSFODNN7EXAMPLE"),
        (f"Authorization: Bearer {JWT}", "secret", JWT),
        ('api_key = "9f8a7b6c5d4e3f2a1b0c"', "secret", "9f8a7b6c5d4e3f2a1b0c"),
    ],
)
def test_personal_data_is_found_whole(text, kind, value):
    assert values(text) == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "Price: $1,299.00 or 12 345 678 Kč or 1.299.000,00 €",
        '{"price":12345678,"total":1234567890.5,"sku":"780-999-2181"}',
        "EAN 4006381333931, GTIN 04006381333931, UPC 036000291452, 4 006381 333931",
        "Mobile Phone 8806088712345 in stock",
        "Item no. 0612345845",
        "ISBN 978-3-16-148410-0 and ISBN 0-306-40615-2",
        "version 1.2.3.4, v10.20.30.40, Chrome/51.0.104.103, lib-1.12.4.11.js, 1.2.3.4 Scope",
        "Order #111-2345678-1234567, order number 4111111111111111",
        "2016-12-28 19:49:46, 28.12.2016, 20161228194946, 1478550707000, 2006 - 2024",
        "18 x 55 x 120 mm; 52.5200066, 13.4049540; 4.5 (1234567 ratings); 01 02 03 04 05",
        "GSM 850 / 900 / 1800 / 1900 phone",
        'd="M.43.13.74.27.93 1.22.6.54 0 0 1.2" viewBox="0 0 512 512"',
        "unicode-range: U+0102-0103, U+0110-0111",
        "logo@2x.png a::before std::bad 12:34:56 00:1b:44:11:3a:b7",
        "git@2.39 ssh://git@host/x medium.com/@user",
        "class sk-fading-circle-dot-animation-2, token: color-primary-500-hover-2",
        "/images/4111111111111111.jpg?v=1478550707",
    ],
)
def test_what_must_stay_stays(text):
    assert values(text) == []
    assert pii.pseudonymise([text], KEY) == [text]


def test_a_pseudonym_is_of_the_same_type():
    texts = ["anna@rhyta.com", "4377 8771 8963 5137", "GB26 YVOK 0923 4647 7929 23", "41.176.181.243", "2a00::beef:1"]
    made = pii.pseudonymise(texts, KEY)
    assert made[0].partition("@")[2] in DOMAINS
    assert re.fullmatch(r"4242 42\d\d \d{4} \d{4}", made[1])
    assert luhn(made[1].replace(" ", ""))
    assert re.fullmatch(r"GB\d\d [A-Z]{4} \d{4} \d{4} \d{4} \d\d", made[2])
    assert iban_remainder(made[2].replace(" ", "")) == 1
    assert made[3].rpartition(".")[0] in ("192.0.2", "198.51.100", "203.0.113")
    assert ipaddress.ip_address(made[4]) in ipaddress.ip_network("2001:db8::/32")
    assert not set(texts) & set(made)


def test_phones_become_numbers_kept_for_fiction_where_a_country_keeps_some():
    texts = ["+1 (780) 999-2181", "+44 20 7123 4567", "+33 6 12 34 56 78", "+41 56 590 36 33"]
    american, british, french, swiss = pii.pseudonymise(texts, KEY)
    assert re.fullmatch(r"\+1 \(\d{3}\) 555-01\d\d", american)
    assert phones.parse(british).national.startswith(tuple(phones.FICTIONAL["44", 10]))
    assert re.fullmatch(r"\+33 6 39 98 \d\d \d\d", french)
    assert re.fullmatch(r"\+41 56 \d{3} \d\d \d\d", swiss)
    assert swiss != texts[3]


def test_keys_keep_prefix_and_length_and_a_private_key_its_lines():
    pem = f"-----BEGIN PRIVATE KEY-----\n{PEM_BODY}-----END PRIVATE KEY-----"
    texts = ["ghp_16C7e42F292c6912E7710c838347Ae178B4a", pem, JWT]
    token, key, jwt = pii.pseudonymise(texts, KEY)
    assert token.startswith("ghp_")
    assert jwt.startswith("eyJ")
    assert [len(text) for text in (token, key, jwt)] == [len(text) for text in texts]
    assert [len(line) for line in key.split("\n")] == [len(line) for line in pem.split("\n")]
    assert PEM_BODY.split()[0] not in key
    as_json = pii.pseudonymise([json.dumps({"k": pem})], KEY)[0]
    assert json.loads(as_json)["k"] == key


def test_a_value_named_in_one_text_is_replaced_in_the_others():
    prompt, response = pii.pseudonymise(["Phone: 21234844, order 77", '{"who":21234844,"order":77}'], KEY)
    number = json.loads(response)["who"]
    assert isinstance(number, int)
    assert number != 21234844
    assert str(number) in prompt
    assert json.loads(response)["order"] == 77
    assert pii.pseudonymise(['{"who":21234844}'], KEY) == ['{"who":21234844}']


def test_a_number_with_and_without_its_country_is_one_value():
    abroad, home = pii.pseudonymise(["+44 20 7123 4567", "call 020 7123 4567"], KEY)
    assert phones.parse(abroad).national == phones.parse(home).national


@pytest.mark.parametrize("allowed", ["+49 30 69518291", "0049 30 695 182 91", "(030) 695-182-91"])
def test_an_allowed_phone_stays_in_any_form(allowed):
    texts = ["Call +49 (0)30 695 182 91", "tel. 030/69518291", "Call 0170 1234567"]
    assert pii.find_all(texts, allow=[allowed])[:2] == [[], []]
    assert pii.pseudonymise(texts, KEY, allow=[allowed])[:2] == texts[:2]
    assert pii.pseudonymise(texts, KEY, allow=[allowed])[2] != texts[2]


def test_an_allowed_address_and_an_allowed_domain_stay():
    texts = ["HELP@shop.com, anna@rhyta.com, jo@shop.de"]
    assert values(texts[0], allow=["help@Shop.com", "@shop.de"]) == [("email", "anna@rhyta.com")]


def test_counts_are_by_kind():
    spans = pii.find_all(["a@b.com, c@d.com", "SSN 125-17-4954"])
    assert pii.counts(spans) == {"email": 2, "ssn": 1}


EMAILS = st.from_regex(r"[a-z][a-z0-9]{0,8}(\.[a-z]{1,5})?@[a-z]{2,9}\.(com|de|org)", fullmatch=True)
CARDS = st.from_regex(r"(4[0-9]{3}|5[1-5][0-9]{2}|6011)[0-9]{11}", fullmatch=True, alphabet="0123456789").map(
    lambda body: next(body + d for d in "0123456789" if luhn(body + d))
)
SSNS = st.from_regex(r"[1-5][0-9]{2}(0[1-9]|[1-9][0-9])[0-9]{3}[1-9]", fullmatch=True, alphabet="0123456789")
SEPARATORS = st.sampled_from([" ", "-"])
FEW = settings(max_examples=40, deadline=None)


def spaced(digits: str, sizes: tuple[int, ...], separator: str) -> str:
    parts = []
    for size in sizes:
        parts.append(digits[:size])
        digits = digits[size:]
    return separator.join(parts)


@FEW
@given(CARDS, SEPARATORS)
def test_a_card_gets_one_pseudonym_in_every_form(card, separator):
    plain, grouped = pii.pseudonymise([f"card {card}", f"({spaced(card, (4, 4, 4, 4), separator)})"], KEY)
    assert plain[5:] == grouped[1:-1].replace(separator, "")
    assert plain[5:] != card
    assert luhn(plain[5:])


@FEW
@given(EMAILS, CARDS, SSNS)
def test_other_keys_give_other_pseudonyms(email, card, ssn):
    texts = [email, f"{card}", f"ssn {ssn}", "https://u:pass@host.com", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"]
    mine, others = pii.pseudonymise(texts, KEY), pii.pseudonymise(texts, OTHER_KEY)
    assert all(a != b for a, b in zip(mine, others, strict=True))
    assert pii.pseudonymise(texts, KEY) == mine


@FEW
@given(EMAILS, CARDS, SSNS)
def test_a_second_pass_keeps_stamped_pseudonyms(email, card, ssn):
    iban = "DE89370400440532013000"
    once = pii.pseudonymise([email, card, f"ssn {ssn}", iban, "2a00:1450::200e", f"https://u:p@h.com {JWT}"], KEY)
    assert pii.pseudonymise(once, KEY) == once


@FEW
@given(st.lists(st.one_of(EMAILS, CARDS, st.text(max_size=8), st.sampled_from(["call 212-736-5000", "\n", '"', "\\"]))))
@example(["\\", "n", "anna@rhyta.com"])
def test_text_outside_the_spans_is_unchanged(parts):
    text = " ".join(parts)
    spans = pii.find(text)
    made = pii.pseudonymise([text], KEY)[0]
    kept = [
        text[a:b] for a, b in zip([0, *(s.end for s in spans)], [*(s.start for s in spans), len(text)], strict=True)
    ]
    assert re.fullmatch("(?s:.*?)".join(map(re.escape, kept)), made)
    assert all(a.end <= b.start for a, b in itertools.pairwise(spans))


LEAVES = st.one_of(
    EMAILS,
    CARDS,
    CARDS.map(int),
    st.integers(2012000000, 9899999999),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=6),
    st.sampled_from(["a\n212-736-5000\t", 'say "x@y.com"', "C:\\new\\a@b.com", "ü\x00a@b.com", "125-17-4954", None]),
)
KEYS = st.sampled_from(["phone", "tel", "email", "price", "ssn", "api_key", "x\\y"])


def shape(value):
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return [shape(item) for item in value] if isinstance(value, list) else type(value).__name__


@FEW
@given(st.dictionaries(KEYS, st.one_of(LEAVES, st.lists(LEAVES, max_size=3))), st.booleans())
def test_json_stays_json_of_the_same_shape(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":"))
    made = pii.pseudonymise([text, "x@y.com"], KEY)[0]
    assert shape(json.loads(made)) == shape(value)


def check_digit(body: str) -> str:
    return next(body + d for d in "0123456789" if gtin(body + d))


@FEW
@given(
    st.sampled_from([7, 11, 12, 12, 12, 13]).flatmap(lambda n: st.text("0123456789", min_size=n, max_size=n)),
    st.sampled_from(["{}", "EAN {}", '{{"gtin13":"{}"}}', "Smart Phone {}", "<td>{}</td>", "GTIN: {} Mobile"]),
)
def test_article_numbers_never_change(body, sentence):
    text = sentence.format(check_digit(body))
    assert pii.pseudonymise([text], KEY) == [text]


@FEW
@given(st.decimals(0, 10**9, places=2), st.sampled_from(["${:,}", "{} EUR", "€ {}", "£{}", "{:,} kr", "USD {}"]))
def test_prices_never_change(amount, form):
    text = f"Now {form.format(amount)} only"
    assert pii.pseudonymise([text], KEY) == [text]


def hostile(unit: str, length: int) -> str:
    return (unit * (length // len(unit) + 1))[:length]


UNITS = [
    "1 ",
    "1",
    "01 23 ",
    "@",
    "a@b.",
    "a://b@",
    "a:",
    "::",
    "eyJaaaaaaaaa.",
    "sk-",
    "\\n",
    "+1",
    "1.1.1.1 ",
    "AB12 ",
]
UNITS += ["token=", "-----BEGIN PRIVATE KEY-----\n", "phone 030 123 4567 ", "4111 1111 1111 1112 "]


@pytest.mark.parametrize("unit", UNITS)
def test_hostile_text_takes_time_in_proportion_to_its_length(unit):
    short, long = hostile(unit, 15_000), hostile(unit, 120_000)
    # quadratic time would be 64 times as long
    assert cpu_s(lambda: pii.find(long)) < 24 * max(cpu_s(lambda: pii.find(short)), 0.002)


def test_a_table_of_digits_is_weighed_a_bounded_number_of_times(monkeypatch):
    weighed, kind = [], digit_runs._kind
    monkeypatch.setattr(digit_runs, "_kind", lambda *arguments: weighed.append(1) or kind(*arguments))
    pii.find("1 " * 200_000)
    assert weighed == []
    pii.find("12 34 " * 2_000)
    few = len(weighed)
    pii.find("12 34 " * 4_000)
    assert 0 < len(weighed) - few < 2.1 * few


def test_a_key_is_made_once_and_is_its_owners_only(tmp_path, monkeypatch):
    monkeypatch.delenv(pii.KEY_VARIABLE, raising=False)
    path = tmp_path / "data" / ".pii_key"
    key = pii.load_key(path)
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert pii.load_key(path) == key
    # another process was faster
    pii._make_key(path)
    assert pii.load_key(path) == key
    assert [file.name for file in path.parent.iterdir()] == [".pii_key"]


def test_the_environments_key_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv(pii.KEY_VARIABLE, KEY.hex())
    assert pii.load_key(tmp_path / ".pii_key") == KEY
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given_key", ["", "abcd", "zz" * 32, "secret-value"])
def test_a_bad_key_in_the_environment_is_refused_without_being_shown(given_key, tmp_path, monkeypatch):
    monkeypatch.setenv(pii.KEY_VARIABLE, given_key)
    with pytest.raises(Stop, match=pii.KEY_VARIABLE) as stop:
        pii.load_key(tmp_path / ".pii_key")
    assert stop.value.code == USAGE
    assert not given_key or given_key not in str(stop.value)


@pytest.mark.parametrize(("content", "mode", "said"), [(b"short", 0o600, "5 bytes"), (KEY, 0o644, "chmod 600")])
def test_a_key_file_that_is_cut_or_open_to_others_is_refused(content, mode, said, tmp_path, monkeypatch):
    monkeypatch.delenv(pii.KEY_VARIABLE, raising=False)
    path = tmp_path / ".pii_key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(Stop, match=said) as stop:
        pii.load_key(path)
    assert stop.value.code == DATA


def test_a_short_key_makes_no_pseudonyms():
    with pytest.raises(ValueError, match="bytes"):
        pii.pseudonymise(["x"], b"short")


def test_without_a_recogniser_names_stay():
    text = "Anna Weber lives in Bonn."
    assert pii.pseudonymise([text], KEY) == [text]


def test_a_recogniser_that_is_not_installed_is_named():
    with pytest.raises(Stop, match="en_core_web_none") as stop:
        pii.find("Anna Weber", recogniser="en_core_web_none")
    assert stop.value.code == USAGE


def test_a_recogniser_adds_names_and_places_to_all_texts(tmp_path):
    import spacy

    model = spacy.blank("en")
    rules = [{"label": "PERSON", "pattern": "Anna Weber"}, {"label": "GPE", "pattern": "Bonn"}]
    model.add_pipe("entity_ruler").add_patterns(rules)
    model.to_disk(tmp_path / "model")
    texts = ["Anna Weber lives in Bonn.", '{"name":"Anna Weber","mail":"anna@rhyta.com"}']
    prompt, response = pii.pseudonymise(texts, KEY, recogniser=str(tmp_path / "model"))
    name = json.loads(response)["name"]
    assert re.fullmatch(r"[A-Z][a-z]+ [A-Z][a-z]+", name)
    assert prompt.startswith(f"{name} lives in ")
    assert "Bonn" not in prompt
    assert "rhyta" not in response


PARTS = [
    "api_key",
    "apikey",
    "secret",
    "_key",
    "token",
    "passwd",
    "pwd",
    "access-key-id",
    "auth_key",
    "private",
    "PASS",
]
PARTS += ["bearer ", "Basic  ", "credentials", "=", ": ", '"', " value=", "A1b2C3d4E5f6G7h8J9", "x", " ", "\n", "İ"]
assignments = st.lists(st.sampled_from(PARTS), max_size=12).map("".join)


@given(assignments)
def test_the_quick_search_for_named_secrets_finds_what_the_pattern_finds(text: str):
    for pattern, words in (
        (identifiers.ASSIGNED, identifiers.ASSIGNED_WORDS),
        (identifiers.AUTHORIZATION, identifiers.AUTHORIZATION_WORDS),
    ):
        quick = identifiers._worded(pattern, words, text, text.lower())
        assert [m.span() for m in quick] == [m.span() for m in pattern.finditer(text)]


IBANS = ["DE89370400440532013000", "GB82 WEST 1234 5698 7654 32", "be68 5390 0754 7034", "NO9386011117947"]


@given(st.lists(st.sampled_from([*IBANS, "DE89", "GB82 ", "xy", "A", "7", " ", "-", "1234", "\n", "é"]), max_size=9))
def test_ibans_are_found_from_their_check_digits_as_from_their_beginning(parts: list[str]):
    text = "".join(parts)
    from_the_start = re.compile(r"(?<![^\W_])[A-Za-z]{2}[0-9]{2}(?:[ \u00a0-]?[A-Za-z0-9]){11,31}+")
    starts = [match.start() for match in from_the_start.finditer(text)]
    alone = [n for n in starts if (0, "iban") in [(start, kind) for start, _, kind in identifiers._ibans(text[n:])]]
    assert [start for start, _, _ in identifiers._ibans(text)] == alone


def test_a_social_security_number_that_another_text_writes_with_a_calling_code_is_replaced_as_a_phone():
    made = pii.pseudonymise(["ssn 123-45-6780", "call +1123456780"], KEY)
    assert "123456780" not in made[1]
    assert re.fullmatch(r"call \+1[0-9]{9}", made[1])
