"""Searches in scripts whose words need care: vowels that are marks, texts without spaces,
particles, emojis."""

import random

import pytest

from rag_index.components.embedders.tokenizer import characters_of
from rag_index.search import Retriever
from tests.components.embedders.test_tokenizer import SCRIPTS
from tests.etl.plain import run_plain
from tests.project import Project

DESKS = {
    "Chinese": ("会议室{}的桌子很旧", "昨天三楼的电梯门坏了", ["电梯门", "电梯门坏了"]),
    "Korean": (
        "회의실 {}호의 책상이 낡았습니다",
        "어제부터 창고에서 물이 샙니다",
        ["창고", "창고에서 물이 샙니다"],
    ),
    "Thai": ("โต๊ะในห้องประชุมที่{}เก่ามาก", "วันนี้เครื่องพิมพ์เสียอีกแล้ว", ["เครื่องพิมพ์", "เครื่องพิมพ์เสีย"]),
}
NONSENSE = {
    "Chinese": "大象香蕉音乐舞蹈诗歌恐龙火山月亮彩虹蝴蝶",
    "Korean": "코끼리바나나음악무용시집공룡화산달빛무지개나비",
    "Thai": "ช้างกล้วยดนตรีเต้นรำบทกวีไดโนเสาร์ภูเขาไฟพระจันทร์สายรุ้งผีเสื้อเครื่องพิมพ์โต๊ะประชุม",
}
"""Characters of words of another subject; of Thai, also of the texts."""
TITLES = ["किल्ला", "कल्ला", "കാല്", "കല്", "🎉", "🎈"]


@pytest.fixture(scope="module")
def retriever(tmp_path_factory):
    bodies = [("", script.text) for script in SCRIPTS]
    bodies += [("", f"1 {script.other} 2") for script in SCRIPTS]
    for around, right, _ in DESKS.values():
        bodies += [("", right), *(("", around.format(number)) for number in range(30))]
    bodies += [(title, "something else") for title in TITLES]
    project = Project(tmp_path_factory.mktemp("scripts") / "project").fill(len(bodies))
    for number, (title, body) in enumerate(bodies, 1):
        project.execute("UPDATE note SET title = ?, body = ? WHERE id = ?", title, body, number)
    assert run_plain(project).state == "completed"
    with Retriever.from_settings(project.settings) as retriever:
        yield retriever


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.name for script in SCRIPTS])
def test_a_word_of_each_script_finds_its_document_by_words_in_quotes_and_not_after_a_minus(
    retriever, script
) -> None:
    first = retriever.search_sync(script.word, limit=2, dense_weight=0).hits[0]
    assert (first.text, first.bm25 > 0) == (script.text, True)
    assert script.shown in first.highlights
    quoted = retriever.search_sync(f'"{script.word}"', limit=30).hits
    assert script.text in [hit.text for hit in quoted]
    assert f"1 {script.other} 2" not in [hit.text for hit in quoted]
    left = retriever.search_sync(f"1 {script.other} 2 -{script.word}", limit=200).hits
    assert script.text not in [hit.text for hit in left]
    assert f"1 {script.other} 2" in [hit.text for hit in left]


@pytest.mark.parametrize("title", TITLES)
def test_a_title_is_found_as_a_whole_and_not_by_its_consonants(retriever, title) -> None:
    hits = retriever.search_sync(title, limit=2).hits
    assert hits[0].text.startswith(f"{title}\n")
    assert hits[0].score > hits[1].score + 0.5


def test_nonsense_of_scripts_without_spaces_is_told_as_often_as_in_chinese_and_no_right_hit_is(
    retriever,
) -> None:
    choose, told = random.Random(4), {}
    for name, signs in NONSENSE.items():
        asked = [
            "".join(choose.choices(characters_of(signs), k=choose.randint(3, 8))) for _ in range(30)
        ]
        told[name] = sum(retriever.search_sync(query, limit=3).nothing_fits for query in asked)
        for query in DESKS[name][2]:
            found = retriever.search_sync(query, limit=1)
            assert found.hits[0].text == DESKS[name][1], query
            assert found.hits[0].relevance > 0.9, query
    assert told["Chinese"] >= 27
    assert min(told.values()) >= told["Chinese"] - 2, told


def test_a_question_with_one_word_that_is_there_is_told_that_the_hits_are_unsure(retriever) -> None:
    for query in ("请问电梯门怎么办呢", "창고 어떻게 해야 하나요", "ขอถามหน่อยเครื่องพิมพ์ทำอย่างไรดี"):
        found = retriever.search_sync(query, limit=3)
        assert found.unsure, (query, [hit.relevance for hit in found.hits])


def test_a_typing_error_is_corrected_where_vowels_are_marks_and_pairs_of_characters_are_none(
    retriever,
) -> None:
    assert retriever.search_sync("दिल्लीी").corrected == {"दिल्लीी": "दिल्ली"}
    assert not retriever.search_sync("เครื่งพิมพ์").corrected
    assert not retriever.search_sync("프린터기계").corrected
