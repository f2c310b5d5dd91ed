"""Words of every script: found in texts, in queries, in quotes and after a minus, and marked where
they stand."""

from pathlib import Path
from typing import NamedTuple

import pytest

from rag_index.components.embedders import tokenizer
from rag_index.components.embedders.bm25 import Bm25Encoder, Bm25Model, name_dimension
from rag_index.components.embedders.tokenizer import normalized
from rag_index.search.highlights import marked
from rag_index.search.question import TypedQuery, parse_query, spaced
from rag_index.search.synonyms import Phrases

DOCS = Path(__file__).parents[3] / "docs" / "retrieval.md"
PLAIN, ENGLISH = Bm25Encoder(Bm25Model("none")), Bm25Encoder(Bm25Model("english"))
CODE = Bm25Encoder(Bm25Model("none", identifiers=True))


class Script(NamedTuple):
    """A word of a script, a text that has it, what is marked there, and a word of a like form that
    the text lacks."""

    name: str
    word: str
    text: str
    shown: str
    other: str


SCRIPTS = [
    Script("Latin", "straße", "Die Straße ist nass", "Straße", "straßer"),
    Script("Greek", "οδος", "Η οδός είναι", "οδός", "οδοι"),
    Script("Cyrillic", "еще", "Ещё раз", "Ещё", "ешо"),
    Script("Armenian", "տպիչ", "Այս տպիչը չի աշխատում, տպիչ", "տպիչ", "տպիչն"),
    Script("Georgian", "პრინტერი", "ეს პრინტერი გაფუჭდა", "პრინტერი", "პრინტერ"),
    Script("Hebrew", "שלום", "אמר שָׁלוֹם לכולם", "שָׁלוֹם", "שלומי"),
    Script("Arabic", "كتاب", "هذا كِتَابٌ جديد", "كِتَابٌ", "كاتب"),
    Script("Persian", "میخواهم", "من می\u200cخواهم بروم", "می\u200cخواهم", "میخواهد"),
    Script("Ethiopic", "ሰላም", "ሁሉም ሰላም ነው", "ሰላም", "ሰላ"),
    Script("Tibetan", "ཡིག", "བོད་ཡིག་གི་དཔེ", "ཡིག", "ཡག"),
    Script("Devanagari", "दिल्ली", "आज दिल्ली की बात हुई", "दिल्ली", "दलील"),
    Script("Bengali", "পানি", "ঘরে পানি নেই", "পানি", "পান"),
    Script("Gurmukhi", "ਪਾਣੀ", "ਘਰ ਵਿੱਚ ਪਾਣੀ ਨਹੀਂ", "ਪਾਣੀ", "ਪਣ"),
    Script("Gujarati", "પાણી", "અહીં પાણી નથી", "પાણી", "પણ"),
    Script("Oriya", "ପାଣି", "ଘରେ ପାଣି ନାହିଁ", "ପାଣି", "ପଣ"),
    Script("Tamil", "கடை", "இங்கே கடை உள்ளது", "கடை", "கடி"),
    Script("Telugu", "పాలు", "ఇక్కడ పాలు లేవు", "పాలు", "పూలు"),
    Script("Kannada", "ಹಾಲು", "ಇಲ್ಲಿ ಹಾಲು ಇದೆ", "ಹಾಲು", "ಹುಲಿ"),
    Script("Malayalam", "പാൽ", "ഇവിടെ പാല്\u200d ഉണ്ട്", "പാല്\u200d", "പുലി"),
    Script("Sinhala", "ක්‍රීම්", "මෙහි ක්රීම් ඇත", "ක්රීම්", "කරම්"),
    Script("Chinese", "打印机", "昨天三楼的打印机坏了", "打印机", "印章机"),
    Script("Japanese", "プリンター", "新しいﾌﾟﾘﾝﾀｰとペン", "ﾌﾟﾘﾝﾀｰ", "プリムール"),
    Script("Korean", "프린터", "사무실 프린터가 고장났습니다", "프린터", "프로필"),
    Script("Thai", "น้ำแข็ง", "มีน้ำแข็งอยู่", "น้ำแข็ง", "นมแพะ"),
    Script("Lao", "ເຄື່ອງພິມ", "ມື້ນີ້ເຄື່ອງພິມເພ", "ເຄື່ອງພິມ", "ຄົນເຮົາ"),
    Script("Khmer", "បោះពុម្ព", "ម៉ាស៊ីន\u200bបោះពុម្ព\u200bខូច", "បោះពុម្ព", "ប៉ះពាល់"),
    Script("Burmese", "ပရင်တာ", "ဒီနေ့ပရင်တာပျက်နေတယ်", "ပရင်တာ", "ပရိသတ်"),
    Script("Emoji", "👍", "great 👍🏽 day", "👍🏽", "👎"),
]
EACH = pytest.mark.parametrize("script", SCRIPTS, ids=[script.name for script in SCRIPTS])


def words(text: str, encoder: Bm25Encoder = PLAIN) -> set[int]:
    return set(encoder.query(text).indices)


def stored(text: str, encoder: Bm25Encoder = PLAIN) -> set[int]:
    return set(encoder.documents([text]).row(0).indices)


@EACH
@pytest.mark.parametrize("encoder", [PLAIN, ENGLISH, CODE], ids=["none", "english", "code"])
def test_a_word_of_each_script_is_found_and_marked_as_it_stands(
    script: Script, encoder: Bm25Encoder
) -> None:
    every = set().union(*[word.full for word in encoder.words(script.word).values()])
    assert (
        every & stored(script.text, encoder)
        if encoder is CODE
        else every <= stored(script.text, encoder)
    )
    assert encoder.matched(encoder.words(script.word), [script.text])[0]
    assert encoder.highlights(encoder.words(script.word), script.text) == (script.shown,)
    before, _, after = script.text.rpartition(script.shown)
    assert marked(script.text, [script.shown], "[", "]") == f"{before}[{script.shown}]{after}"
    others = set().union(*[word.full for word in encoder.words(script.other).values()])
    assert not others <= stored(script.text, encoder)


@EACH
def test_quotes_and_a_minus_take_a_word_of_each_script(script: Script) -> None:
    text = spaced(script.text)
    assert parse_query(f'x1 "{script.word}"').phrases[0] in text
    assert parse_query(f'x1 "{script.other}"').phrases[0] not in text
    query = parse_query(f"x1 -{script.word}")
    assert query.text == "x1"
    assert query.excluded[0] in text
    assert parse_query(f"x1 -{script.other}").excluded[0] not in text


@EACH
def test_a_synonym_and_a_name_are_known_in_each_script(script: Script) -> None:
    assert Phrases([(script.word, "synonym")], None).phrases_in(script.text) == (script.word,)
    assert Phrases([(script.other, "synonym")], None).phrases_in(script.text) == ()
    assert name_dimension(script.word) == name_dimension(script.shown)
    assert name_dimension(script.word) not in (None, name_dimension(script.other))


def test_the_documentation_lists_each_script() -> None:
    page = DOCS.read_text()
    section = page[page.index("### Scripts") : page.index("### Other languages")]
    assert [script.name for script in SCRIPTS if script.name.lower() not in section.lower()] == []


def test_a_word_whose_vowels_are_marks_is_one_dimension_and_equal_consonants_are_another_word() -> (
    None
):
    for script in SCRIPTS[10:20]:
        assert len(words(script.word)) == len(words(script.other)) == 1
        assert list(PLAIN.words(script.text).keys()) == [
            normalized(word) for word in script.text.split()
        ]
        assert words(script.word).isdisjoint(stored(script.other)), script.name


def test_a_sign_without_width_makes_no_difference() -> None:
    pairs = (
        ("हिन्\u200dदी", "हिन्दी"),
        ("র\u200d্যাব", "র্যাব"),
        ("ශ්\u200dරී", "ශ්රී"),
        ("می\u200cروم", "میروم"),
        ("ൻ", "ന്\u200d"),
        ("ৎ", "ত্\u200d"),
        ("ម៉ាស៊ីន\u200bខូច", "ម៉ាស៊ីនខូច"),
        ("น้ำ", "น\u0e4d้า"),
    )
    for shown, bare in pairs:
        assert words(shown) == words(bare), bare
        assert spaced(shown) == spaced(bare), bare


def test_digits_of_all_scripts_and_apostrophes_are_those_of_ascii() -> None:
    for digits in ("٣٤", "۳۴", "३४", "৩৪", "๓๔", "၃၄", "៣៤", "３４", "𝟑𝟒", "᠓᠔"):
        assert words(digits) == words("34"), digits
        assert spaced(digits) == " 34 "
        assert name_dimension(f"A-{digits}") == name_dimension("A-34")
        assert PLAIN.highlights(PLAIN.words("34"), f"no {digits}.") == (digits,)
    assert words("ORA-٠١٠١٨") == words("ORA-01018")
    assert words("пам\u02bcять") == words("пам'ять") == words("пам’ять")
    assert spaced("O\u02bcBrien") == spaced("O'Brien") == spaced("O’Brien")


def test_a_simple_emoji_finds_one_with_a_tone_or_of_several_and_not_the_other_way_round() -> None:
    joined = (
        ("👍", "👍🏽"),
        ("❤", "❤\ufe0f"),
        ("👩", "👩\u200d💻"),
        ("💻", "👩🏽\u200d💻"),
        ("🏴", "🏴\U000e0067\U000e0062\U000e007f"),
        ("🏳", "🏳\ufe0f\u200d🌈"),
        ("🤷", "🤷🏽\u200d♀\ufe0f"),
    )
    for plain, whole in joined:
        assert words(plain) <= stored(f"so {whole}!"), plain
        assert len(PLAIN.words(whole)) == 1, "one word"
        assert PLAIN.highlights(PLAIN.words(plain), f"so{whole}!") == (whole,)
        assert spaced(plain) in spaced(f"so {whole}!")
        assert words(whole) <= stored(f"so {whole}!")
    assert not words("👩\u200d💻") <= stored("👩 alone")
    assert PLAIN.matched(PLAIN.words("👩\u200d💻"), ["👩 alone", "👩\u200d💻"]) == [
        (),
        ("👩\u200d💻",),
    ]
    flags = "🇩🇪🇫🇷"
    assert list(PLAIN.words(flags)) == ["🇩🇪", "🇫🇷"]
    assert not words("🇪🇫") & stored(flags), "the end of a flag and the beginning of the next"
    others = ("👍", "👎", "❤", "☎", "✅", "⭐", "🀄", "🅰", "♥", "🧑", "🛜", "⌚")
    assert len({frozenset(words(one)) for one in others}) == len(others)
    assert words("Acme® © printer™") == words("Acme printer™"), "what stands at words is none"


def test_pairs_are_of_characters_with_their_marks() -> None:
    assert [*PLAIN.words("เครื่อง")] == ["เค", "ครื่", "รื่อ", "อง"]
    assert [*PLAIN.words("계약서를")] == ["계약", "약서", "서를"]
    assert [*PLAIN.words("ခ္တစ်")] == ["ခ္တစ်"], "a letter below another is one character with it"
    assert all(map(tokenizer.is_pair, ("打印", "계약", "ครื่", "รื่อ", "ស៊ីន")))
    assert not any(map(tokenizer.is_pair, ("打", "打印机", "ab", "34", "รื่", "पानी", "👍👎")))
    assert not PLAIN.words("の ๆ"), "a particle and a sign of repetition"
    for one, text in (("刷", "印刷機"), ("린", "프린터"), ("ครื่", "เครื่อง"), ("ម៉ា", "ម៉ាស៊ីន")):
        assert words(one) <= stored(text), "one character finds"
        assert PLAIN.highlights(PLAIN.words(one), text) == (one,)


def test_nouns_with_particles_find_each_other() -> None:
    for asked in ("창고", "창고를", "창고에는"):
        assert words("창고") <= words(asked)
        assert PLAIN.highlights(PLAIN.words(asked), "어제부터 창고에서 물이")[0].startswith(
            "창고"
        ), asked
    assert PLAIN.highlights(
        PLAIN.words("\u1111\u1173\u1105\u1175\u11ab\u1110\u1165"), "새 프린터가"
    ) == ("프린터",)
    apart = "새 \u1111\u1173\u1105\u1175\u11ab\u1110\u1165가"
    assert PLAIN.highlights(PLAIN.words("프린터"), apart) == (
        "\u1111\u1173\u1105\u1175\u11ab\u1110\u1165",
    )


def test_words_of_several_scripts_side_by_side_are_apart() -> None:
    text = "安装driver之后ปิดเครื่องWi-Fi 3대👍ok"
    for asked, shown in (
        ("driver", "driver"),
        ("wi-fi", "Wi-Fi"),
        ("ปิด", "ปิด"),
        ("ok", "ok"),
        ("👍", "👍"),
    ):
        assert ENGLISH.highlights(ENGLISH.words(asked), text) == (shown,), asked
        assert marked(text, [shown], "[", "]") == text.replace(shown, f"[{shown}]")


def test_a_short_word_after_a_minus_may_be_an_option() -> None:
    for typed in ("tar -xf", "ls -v", "grep -水 x", "x -да y", "5 -3"):
        assert parse_query(typed) == TypedQuery(typed)
    assert parse_query("x1 -打印").excluded == (" 打 印 ",)
    assert parse_query("x1 -घर").excluded == (" घर ",)
    assert parse_query("x1 -👍🏽 y").text == "x1 y"


def test_a_part_of_a_word_is_not_marked() -> None:
    assert marked("पानीपत पानी", ["पानी"], "[", "]") == "पानीपत [पानी]"
    assert marked("पानी", ["पान"], "[", "]") == "पानी"
    assert marked("👩\u200d💻 👩", ["👩"], "[", "]") == "👩\u200d💻 [👩]"
    assert marked("กำ กา", ["ก"], "[", "]") == "กำ [ก]า"


def test_two_sounds_of_a_longer_word_are_not_marked_where_they_stand_by_chance() -> None:
    assert ENGLISH.highlights(ENGLISH.words("ไดโนเสาร์"), "ในเวลาเสาร์นี้ โนน") == ("เสาร์",)
    assert ENGLISH.highlights(ENGLISH.words("ไฟ"), "ไฟดับ") == ("ไฟ",)


def test_a_query_of_thai_and_a_script_with_marks_has_highlights() -> None:
    shown = PLAIN.highlights(PLAIN.words("ไทย हिन्दी"), "ภาษา ไทย और हिन्दी")
    assert shown == ("ไทย", "हिन्दी")


def test_places_are_those_of_the_text_that_was_given() -> None:
    text = "Ⅳ ﬁle cafe\u0301 Ｗｉ－Ｆｉ ｶﾞｽ หนํ้า ½ 🤷🏽\u200d♀\ufe0f Ελλάς می\u200cروم"
    found = tokenizer.words(text)
    places = [text[word.start : word.end] for word in found]
    assert places[:4] == ["Ⅳ", "ﬁle", "cafe\u0301", "Ｗｉ－Ｆｉ"]
    assert places[-3:] == ["🤷🏽\u200d♀\ufe0f", "Ελλάς", "می\u200cروم"]
    assert {"ｶﾞ", "ｽ", "นํ้า"} <= {*places}
