"""Sparse vectors: which words make which dimensions."""

import pytest

from rag_index.components.embedders import bm25
from rag_index.components.embedders.bm25 import Bm25Encoder, Bm25Model, bm25_model, folded
from rag_index.core.settings import IndexSettings

ENGLISH, CODE = (
    Bm25Encoder(Bm25Model("english")),
    Bm25Encoder(Bm25Model("english", identifiers=True)),
)


def words(text: str, encoder: Bm25Encoder = ENGLISH) -> set[int]:
    return set(encoder.query(text).indices)


def test_forms_of_a_word_are_one_dimension_whatever_their_accents_and_frequent_words_are_none():
    assert words("Printers") == words("printer") == words("PRINTER,")
    assert not words("the and of")
    assert words("the printer") == words("printer")
    plain = Bm25Encoder(Bm25Model("none"))
    assert words("printers", plain) != words("printer", plain)
    assert words("the", plain), "without a language every word counts as it is"
    assert words("Café ﬁle Ａｂｃ") == words("cafe file abc")
    for marked, bare in (
        ("ещё за́мок", "еще замок"),
        ("Άνθρωπος ἄλλος ΟΔΟΣ", "ανθρωπος αλλος οδός"),
        ("שָׁלוֹם", "שלום"),
        ("كِتَابٌ أحمد", "كتاب احمد"),
        ("Wirbel\u00adsäule x\u0304y", "Wirbelsaule xy"),
    ):
        assert words(marked) == words(bare)
    assert words("мой") != words("мои"), "a letter of its own"


def test_phrases_are_folded_as_the_engine_folds_words() -> None:
    """Each Latin letter that the engine writes in ASCII."""
    plain = Bm25Encoder(Bm25Model("none"))
    letters = [
        chr(code) for code in (*range(0xC0, 0x250), *range(0x1E00, 0x1F00)) if chr(code).isalpha()
    ]
    unknown = {"\u0269", "\u01a3", "\u0280"}  # letters that are as good as unused
    for letter in map(str.lower, letters):
        assert letter in unknown or words(f"qz{letter}qz", plain) == words(
            folded(f"qz{letter}qz"), plain
        ), letter
    assert folded("HAUPTSTRASSE \u0141\u00f3d\u017a") == folded("Hauptstra\u00dfe lodz")


def test_a_name_with_signs_is_one_word_and_another_than_that_without() -> None:
    names = ("C", "C++", "c#", ".NET", "g++", "Notepad++", "#42", "A*")
    whole = [ENGLISH.words(name)[name].full for name in names]
    assert all(len(one) == 1 for one in whole)
    assert len(set().union(*whole)) == len(names)
    assert words("nodejs") < words("Node.js")
    for name, own in zip(names, whole, strict=True):
        assert own <= set(ENGLISH.documents([f"We use {name}, and more."]).row(0).indices)
    assert list(ENGLISH.words("C++ and .NET, C")) == ["C++", ".NET", "C"]


@pytest.mark.parametrize("language", ["english", "japanese", "none", "english, chinese"])
def test_chinese_and_japanese_are_found_in_an_index_of_any_language(language: str) -> None:
    encoder = Bm25Encoder(Bm25Model(language))
    for query, text in (
        ("検索", "日本語の検索エンジンは便利です"),
        ("検索エンジン", "このエンジンで検索する"),
        ("水", "水道の水を飲む"),
        ("离线", "打印机离线了怎么办"),
        ("ﾌﾟﾘﾝﾀｰ", "新しいプリンター"),
        ("driver", "安装driver之后"),
    ):
        document = set(encoder.documents([text]).row(0).indices)
        assert words(query, encoder) & document, query
        assert encoder.matched(encoder.words(query), [text])[0], query
        assert not words("猫", encoder) & document, query
    assert not words("の", encoder)


def test_a_key_with_words_is_found_by_them():
    for document_id, found in ():
        assert bm25.key_words(document_id) == found, document_id


@pytest.mark.parametrize(
    "query", ["JsonTreeReader", "json_tree_reader", "jsontreereader", "tree", "JSON reader"]
)
def test_names_of_source_code_are_found_by_every_spelling_and_part(query):
    assert words(query, CODE) & words("def parse(reader: JsonTreeReader): ...", CODE)
    assert words(query, CODE) & words("x = json_tree_reader.next()", CODE)


def test_a_compound_name_becomes_the_whole_and_its_parts():
    for name, spelled_out in (
        ("HTTPServer2", "httpserver2 HTTP Server 2"),
        ("getHTTPResponseCode", "gethttpresponsecode get HTTP Response Code"),
        ("__init__", "init"),
        ("MAX_SIZE", "maxsize MAX SIZE"),
        ("naïve_größe", "naïvegröße naïve größe"),
        ("word", "word"),
        ("_", "_"),
        ("a.b(c)", "a.b(c)"),
        ("don't 42", "don't 42"),
    ):
        assert bm25.split_identifiers(name) == spelled_out, name


def test_a_query_asks_for_the_definitions_of_its_names():
    assert (
        bm25.definitions("JsonTreeReader.read_tree(x)")
        == "definesjsontreereader definesreadtree definesx"
    )
    assert words("json_tree_reader", CODE) & words("definesjsontreereader", CODE)
    assert not words("json_tree_reader") & words("definesjsontreereader")


def test_matched_words_are_those_of_the_query_in_its_order():
    query = ENGLISH.words("the printers' cable, offline printers")
    assert list(query) == ["printers", "cable", "offline"]
    assert ENGLISH.matched(query, ["A cable for one printer."])[0] == ("printers", "cable")
    assert ENGLISH.matched(query, ["bananas"])[0] == ()


def test_the_model_follows_the_settings_of_the_index():
    common = {"name": "x", "table": "t", "key": "id", "text": "body"}
    assert bm25_model(IndexSettings(**common)) == Bm25Model("english")
    assert bm25_model(IndexSettings(**common, language="none")) == Bm25Model("none")
    assert bm25_model(IndexSettings(**common, search="dense")) is None
    code = bm25_model(IndexSettings(name="x", kind="code", root="."))
    assert code == Bm25Model("english", identifiers=True)
    assert (
        len({model.fingerprint for model in (Bm25Model("none"), Bm25Model("english"), code)}) == 3
    )


def test_of_several_languages_each_text_is_stemmed_in_its_own_and_a_query_in_all():
    both, german, english = (
        Bm25Encoder(Bm25Model(name)) for name in ("english, german", "german", "english")
    )
    texts = [
        "Die Muskeln der Wirbelsäule werden gestärkt.",
        "The printers are printing blank pages.",
    ]
    found = both.documents(texts)
    assert found.row(0) == german.documents(texts[:1]).row(0)
    assert found.row(1) == english.documents(texts[1:]).row(0)
    assert set(both.query("Muskeln").indices) & set(found.row(0).indices)
    assert set(both.query("printer").indices) & set(found.row(1).indices)
    assert both.matched(both.words("printed page"), [texts[1]])[0] == ("printed", "page")
