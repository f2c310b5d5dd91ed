"""The page in a real browser: what a person types, sees, and reaches with the keyboard alone."""

import json
import os
import re
import socket
import subprocess
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from benchmarks import servicedesk
from rag_index.components.embedders.bm25 import Bm25Encoder, Bm25Model
from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import IndexLease
from rag_index.core.settings import ServeSettings
from rag_index.search.service.tokens import new_token, token_line
from tests.browser import Browser
from tests.components.embedders.test_tokenizer import SCRIPTS
from tests.etl.test_parts import SETTINGS, TABLES, make_project
from tests.project import PROGRAM
from tests.search.conftest import SHARED
from tests.search.desk import DESK, Desk
from tests.search.service.live import Live
from tests.search.service.test_mcp import LONG, WITH_KINDS
from tests.waiting import eventually

pytestmark = pytest.mark.long
MARKUP = (
    '<img src=x onerror="document.title=1"><script>document.title = 2</script> printer'
    " </p><i>end</i>"
)
REFUSED = [{"field": "author", "comparison": "gte", "value": "x"}]
EXACT = [{"field": "number", "comparison": "is", "value": "9007199254740993"}]
ORDERED = [
    "is",
    "is not",
    "at least",
    "at most",
    "more than",
    "less than",
    "has a value",
    "has none",
]
ODD = [
    ("tape library robot paragraph 20", "tapes/../robot #1?", "Paragraph 20"),
    ("bellows", '" "', "A blank key"),
    ("bellows", '""', "No key"),
    ("bellows", ".", "A dot"),
    ("bellows", "..", "Two dots"),
]
ENDINGS = {"Latin", "Greek", "Cyrillic", "Arabic", "Persian"}
"""Scripts with languages whose endings make no difference; the page knows neither them nor the
language."""
ANSWERS = {
    "new Response('<html>sign on', {status: 200})": "perhaps your sign-on has ended",
    'new Response(\'{"detail": "the service is busy"}\', {status: 503})': "the service is busy",
    "Promise.reject(new TypeError('no network'))": "The service does not answer.",
}


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("chromium")) as window:
        yield window


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    desk = Desk(tmp_path_factory.mktemp("page"), extra=SHARED, more={"comments": WITH_KINDS})
    odd = ("tapes/../robot #1?", LONG, {"author": MARKUP})
    steps = ("steps", "The indented steps:\n  1. Unplug it\n    - wait", {"author": "eve"})
    bellows = {" ": "A blank key", "": "No key", ".": "A dot", "..": "Two dots"}
    keys = [steps, *((key, f"{words} of bellows") for key, words in bellows.items())]
    long = {
        "number": 2**53 + 1,
        "same": "A parcel",
        "long": "y" * 300,
        "size": 0.1,
        "u": 1,
        "v": 2,
        "w": 3,
        "wide": 4,
    }
    parcel = ("parcel", "A parcel", long)
    documents = {
        **DESK,
        "solutions": [
            *DESK["solutions"],
            odd,
            parcel,
            ("markup", MARKUP, {"author": "eve"}),
            *keys,
        ],
    }
    return desk.fill(documents)


@pytest.fixture
def page(window, live):
    """The page, newly opened, ready to type into."""
    window.open(f"{live.url}/")
    window.wait_for("comments", "Add a filter")
    return window


def hits(page) -> list[str]:
    return page.evaluate("[...document.querySelectorAll('.hit h2')].map(e => e.innerText)")


def test_a_search_by_keyboard_alone_from_question_to_document_and_back(page):
    page.type("printer on floor two offline")  # a moment later it is searched for, without Enter
    page.wait_for("documents in")
    assert page.evaluate("document.querySelector('.hit .place').innerText") == "comments"
    assert page.evaluate("document.querySelector('.hit mark').innerText") == "printer"
    page.press("ArrowDown")
    page.press("e")
    page.wait_for("cosine", "BM25", "Words found", "Rank in comments", "Cite it as [comments/1#0:")
    page.press("ArrowDown")
    page.press("ArrowUp")
    page.press("Enter")
    page.wait_for("Close", "comments: 1")
    page.press("Escape")
    assert not page.evaluate("document.querySelector('dialog').open")
    assert page.evaluate("document.activeElement.innerText") == "1"
    page.press("/")
    focused = page.evaluate("[document.activeElement.id, document.activeElement.value]")
    assert focused == ["query", "printer on floor two offline"]


def test_indexes_and_filters_are_picked_and_kept_in_the_address(page):
    page.type("printer")
    page.press("Enter")
    page.wait_for("documents in")
    for name in ("solutions", "titles"):
        page.evaluate(f"document.querySelector('#indexes [value={name}]').click()")
    page.click("Add a filter")
    comparisons = page.evaluate(
        "[...document.querySelectorAll('.row select')][1].innerText.split('\\n')"
    )
    assert comparisons == ["is", "is not", "has a value", "has none"]
    page.fill(".row input", "low")
    page.wait_for("1 document in")
    assert hits(page) == ["2"]
    page.reload()
    page.wait_for("1 document in")
    assert hits(page) == ["2"]
    assert "priority" not in page.evaluate("location.search"), (
        "nothing of a query is sent with the address"
    )
    page.evaluate("history.back()")
    page.wait_for("documents in")


def test_a_mistake_of_a_filter_is_said_and_nothing_is_lost(page):
    page.evaluate("location.hash = 'q=printer&filters=' + " + json.dumps(json.dumps(REFUSED)))
    page.wait_for("author")
    assert page.evaluate("document.querySelector('#query').value") == "printer"
    assert page.evaluate("document.querySelectorAll('.row').length") == 1


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ("priority", ["is", "is not", "has a value", "has none", "text"]),
        ("number", [*ORDERED, "number"]),
        ("created_at", ["on or after", "before", "has a value", "has none", "date"]),
        ("author", [*ORDERED, "text"]),
    ],
)
def test_a_field_is_compared_as_its_kind_allows(page, field, shown):
    page.click("Add a filter")
    choose = (
        "const s = document.querySelector('.row select'); s.value = %s; s.dispatchEvent(new"
        " Event('change'));"
    )
    page.evaluate("{" + choose % json.dumps(field) + "}")
    assert (
        page.evaluate("[...document.querySelectorAll('.row select')][1].innerText.split('\\n')")
        == shown[:-1]
    )
    assert page.evaluate("document.querySelector('.row input').type") == shown[-1]


def test_what_a_document_holds_is_text_and_never_markup(page):
    page.type("img script printer onerror")
    page.press("Enter")
    page.wait_for("<script>document.title = 2</script>")
    assert page.evaluate("document.querySelectorAll('#hits :is(img, script, i)').length") == 0
    page.click("markup")
    page.wait_for("solutions: markup")
    assert page.evaluate("document.querySelectorAll('dialog :is(img, script, i)').length") == 0
    assert page.evaluate("document.title").startswith("img script")


@pytest.mark.parametrize(("query", "key", "words"), ODD)
def test_a_document_with_an_odd_key_opens_at_the_chunk_that_was_found(page, query, key, words):
    page.type(query)
    page.press("Enter")
    page.wait_for("documents in")
    page.click(key)
    page.wait_for(f"solutions: {key}")
    found = "dialog .found" if "robot" in key else "dialog .body"
    eventually(
        lambda: words in page.evaluate(f"document.querySelector('{found}')?.innerText ?? ''")
    )


def test_a_link_of_another_page_opens_this_one_and_an_image_asks_nothing(window, desk):
    """The other page is on another port of this machine, which browsers call the same site."""
    with Live(desk.settings) as live:

        class Other(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(
                    f"<img src='{live.url}/search?query=x'><a href='{live.url}/#q=printer'>go".encode()
                )

        with ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
            threading.Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()
            window.open(f"http://127.0.0.1:{other.server_port}/")
            eventually(
                lambda: 'status="403"' in httpx.get(f"{live.url}/metrics").text,
                "the image is refused",
            )
            window.evaluate("document.querySelector('a').click()")
            window.wait_for("documents in")
            other.shutdown()


def test_the_page_asks_nobody_else_and_runs_nothing_inline(live):
    page = httpx.get(f"{live.url}/").text
    assert "style=" not in page
    assert "onclick" not in page
    for name in ("page.js", "api.js", "page.css", "icon.svg"):
        text = httpx.get(f"{live.url}/static/{name}").raise_for_status().text
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_where_tokens_are_needed_the_page_asks_for_one_and_keeps_it_in_the_tab(window, desk):
    token = new_token()
    serve = ServeSettings(tokens=[token_line("ann", token, [])])
    with Live(desk.settings.model_copy(update={"serve": serve})) as guarded:
        window.open(f"{guarded.url}/#q=printer")
        window.wait_for("A token is needed")
        window.type("tokén")
        window.press("Enter")
        window.wait_for("A token is needed", "A token has letters, digits")
        window.type("wrong")
        window.press("Enter")
        window.wait_for("A token is needed", "a valid token is needed")
        window.type(token)
        window.press("Enter")
        window.wait_for("documents in", "Forget the token")
        assert window.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [
            1,
            0,
            "",
        ]
        window.reload()
        window.wait_for("documents in")
        window.click("Forget the token")
        window.wait_for("A token is needed")
        assert window.evaluate("sessionStorage.length") == 0


def test_a_caller_without_groups_is_told_what_is_closed(window, tmp_path):
    token = new_token()
    desk = Desk(
        tmp_path / "desk", names=("comments", "titles"), more={"comments": 'access = "tenant"'}
    )
    desk.fill({"titles": DESK["titles"], "comments": []})
    serve = ServeSettings(tokens=[token_line("ann", token, [])])
    with Live(desk.settings) as live:
        window.open(f"{live.url}/#q=printer")
        window.wait_for("comments is for members of groups, and you have no token that names one")
    with Live(desk.settings.model_copy(update={"serve": serve})) as live:
        window.open(f"{live.url}/#q=printer")
        window.wait_for("A token is needed")
        window.type(token)
        window.press("Enter")
        window.wait_for(
            "comments is for members of groups, and your token has no group.", "documents in"
        )
        assert window.evaluate(
            "[...document.querySelectorAll('#indexes input')].map(e => e.value)"
        ) == ["titles"]


def test_texts_and_times_are_shown_as_people_write_them_and_values_are_counted(page):
    page.evaluate("location.hash = 'q=printer&indexes=comments'")
    page.wait_for("documents in", "Mar 1, 2024")
    assert page.evaluate("document.querySelector('time').title") == "2024-03-01T10:00:00Z"
    page.wait_for("high 2")
    facets = page.evaluate("[...document.querySelectorAll('#facets div')].map(e => e.innerText)")
    assert [one.split() for one in facets] == [["priority", "high", "2", "low", "1"]]
    page.evaluate("document.querySelector('#facets button').click()")
    page.wait_for("2 documents in")
    assert sorted(hits(page)) == ["1", "3"]
    page.evaluate("location.hash = 'q=indented'")
    page.wait_for("1. Unplug it")
    shown = page.evaluate("document.querySelector('.hit .text').innerText")
    assert "indented steps:\n  1. Unplug it\n    - wait" in shown


def test_facets_count_what_was_found_and_leave_out_what_is_different_everywhere(window, tmp_path):
    """The first of many hits is seen whole on a small screen, and fields have the names that the
    settings give them."""
    kinds = 'payload_indexes = {priority = "keyword", author = "keyword", tenant = "keyword"}'
    labels = '[indexes.labels]\npriority = "Urgency"\nnumber = "Room"'
    names = tuple(f"desk{number}" for number in range(9))
    desk = Desk(
        tmp_path / "desk",
        extra=SHARED,
        names=names,
        more=dict.fromkeys(names, f"{kinds}\n{labels}"),
    )
    rows = [
        (
            n,
            f"{'The printer is offline' if n < 30 else 'A cup of coffee'} in room {n}",
            {
                "priority": "high" if n % 3 else "low",
                "author": f"author {n % 12}",
                "tenant": f"T-{n}",
                "number": n,
            },
        )
        for n in range(60)
    ]
    desk.fill({names[0]: rows, **dict.fromkeys(names[1:], rows[:1])})
    with Live(desk.settings) as live, window.screen(1366, 768):
        window.open(f"{live.url}/#q=printer+offline&indexes=desk0")
        window.wait_for("20 documents in", "Urgency", "Room")
        facets = window.evaluate(
            "[...document.querySelectorAll('#facets div')].map(e => e.innerText.split('\\n'))"
        )
        assert [one[0] for one in facets] == ["Urgency", "author"], "each tenant has one of them"
        counts = [int(one.split()[-1]) for one in facets[0][1:]]
        assert sum(counts) == 20, "what was found, and not all that there is"
        assert facets[1][-1] == "more"
        window.click("more")
        assert (
            len(
                window.evaluate("document.querySelectorAll('#facets div')[1].innerText").split("\n")
            )
            > 8
        )
        assert (
            window.evaluate("document.querySelector('.hit').getBoundingClientRect().bottom") < 768
        )
        assert "Room" in window.evaluate("document.querySelector('.hit .payload').innerText")
        assert "Urgency" in window.evaluate("document.querySelector('#collapse').innerText")
        for shown in (40, 60):
            window.click("Show more")
            window.wait_for(f"{shown} documents in")
            assert len(set(hits(window))) == shown
        assert window.evaluate("document.querySelector('#more').hidden"), "these are all"


def test_a_long_value_does_not_widen_the_page_and_of_a_long_document_the_chunks_around_the_hit_are_shown(
    page,
):
    page.evaluate("""(plain => { window.fetch = async (url, given) => {
        const answer = await plain(url, given);
        if (!String(url).endsWith('search')) return answer;
        const found = await answer.json();
        found.hits.forEach((hit, at) => { hit.payload.priority = at ? 'x'.repeat(300) : 'low'; });
        return new Response(JSON.stringify(found));
    }; })(window.fetch)""")
    page.evaluate("location.hash = 'q=printer&indexes=comments'")
    page.wait_for("x" * 40 + "…")
    assert page.evaluate("document.querySelector('#facets button').title") == "x" * 300
    with page.screen(340, 800):
        assert page.evaluate("document.documentElement.scrollWidth") == 340
    page.evaluate("location.hash = 'q=printer&indexes=comments'")
    page.wait_for("documents in")
    part = {
        "payload": {},
        "chunks": [{"chunk": n, "text": f"text {n}"} for n in (3, 4)],
        "total_chunks": 20_000,
    }
    page.evaluate(
        "window.fetch = async url => (window.asked = String(url), new"
        f" Response({json.dumps(part)!r}))"
    )
    page.evaluate("document.querySelector('.open').click()")
    page.wait_for("The document is long: these are chunks 3 to 4 of 20,000.", "text 3")
    assert page.evaluate("window.asked").endswith("?around=0&max_chars=100000")


def test_a_shortened_text_has_the_word_a_day_that_no_month_has_stays_text_and_only_web_addresses_are_links(
    page,
):
    load = "Promise.all(['marks', 'time', 'hits'].map(name => import(`/static/${name}.js`)))"
    page.evaluate(f"{load}.then(all => {{ window.parts = Object.assign({{}}, ...all) }})")
    eventually(lambda: page.evaluate("Boolean(window.parts)"))
    assert "needle" in page.evaluate(
        "parts.excerpt(`${'a/'.repeat(500)}needle/${'b/'.repeat(500)} end`, ['needle'])"
    )
    shown = ["2026-02-28", "2026-02-30", "2026-02-30 10:00:00", "2026-13-01", "no day"]
    assert page.evaluate(f"{shown}.map(text => parts.time(text) !== null)") == [
        True,
        False,
        False,
        False,
        False,
    ]
    links = ["https://a.b/c", "http://a.b", "/t/1"]
    others = ["//host", "/\\host", "/\t/host", "javascript:alert(1)", "https://", " http://a"]
    assert page.evaluate(f"{json.dumps(links + others)}.filter(parts.isAddress)") == links


def test_the_page_marks_the_words_that_the_search_marks_in_every_script(page):
    page.evaluate("import('/static/marks.js').then(found => { window.marks = found })")
    eventually(lambda: page.evaluate("Boolean(window.marks)"))
    encoder = Bm25Encoder(Bm25Model("none"))
    for script in SCRIPTS:
        words = encoder.words(script.word)
        for known in (encoder.highlights(words, script.text), [*words]):
            asked = f"marks.places({json.dumps(script.text)}, {json.dumps([*known])})"
            shown = page.evaluate(f"{asked}.map(([a, b]) => {json.dumps(script.text)}.slice(a, b))")
            assert shown[-1:] == [script.shown], (script.name, known)
        others = encoder.words(script.other)
        asked = f"marks.places({json.dumps(script.text)}, {json.dumps([*others])})"
        shown = page.evaluate(f"{asked}.map(([a, b]) => {json.dumps(script.text)}.slice(a, b))")
        assert script.name in ENDINGS or tuple(shown) == encoder.highlights(others, script.text), (
            script.name
        )


def test_an_answer_that_comes_late_does_not_take_the_place_of_another_document(page):
    page.evaluate("location.hash = 'q=printer&indexes=comments'")
    page.wait_for("documents in")
    page.evaluate("""(plain => { window.fetch = () => new Promise(answer => {
        window.fetch = plain;
        window.late = () => answer(new Response('{"payload": {}, "chunks": [{"chunk": 0, "text": "too late"}]}'));
    }); })(window.fetch)""")
    page.evaluate("document.querySelectorAll('.open')[0].click()")
    page.press("Escape")
    page.evaluate("document.querySelectorAll('.open')[1].click()")
    page.wait_for("comments: 1 Close author ann")
    page.evaluate("late(); setTimeout(() => { window.over = true }, 300)")
    eventually(lambda: page.evaluate("window.over === true"))
    assert "too late" not in page.words()


def test_what_hardly_fits_can_be_left_out(page):
    page.evaluate("location.hash = 'q=zzqqxx+wwvvuu'")
    page.wait_for("Nothing fits. The nearest: ")
    choose = "e => { e.value = '0.5'; e.dispatchEvent(new Event('change', {bubbles: true})) }"
    page.evaluate(f"({choose})(document.querySelector('#min_relevance'))")
    page.wait_for("Nothing fits in")
    assert hits(page) == []
    assert page.evaluate("location.hash").endswith("&min_relevance=0.5")
    page.evaluate("history.back()")
    page.wait_for("Nothing fits. The nearest: ")


def test_a_typing_error_is_corrected_and_the_page_says_so(page):
    page.evaluate("location.hash = 'q=prinetr+offline'")
    page.wait_for("Searched for printer instead of prinetr")
    assert page.evaluate("document.querySelector('.hit mark').innerText").lower() == "printer"
    page.click("Search for prinetr")
    page.wait_for("documents in")
    assert "Searched for" not in page.words()
    assert page.evaluate("location.hash").endswith("&exact=1")


def test_one_index_is_chosen_by_a_click_and_hits_are_ordered_by_day_and_collapsed(page):
    page.evaluate("location.hash = 'q=printer&order=-created_at'")
    page.wait_for("documents in")
    fitting = hits(page)
    assert fitting[0] == "2", "the only one with a day"
    alone = (
        "[...document.querySelectorAll('#indexes button')].find(e => e.innerText ==="
        " 'titles').click()"
    )
    page.evaluate(alone)
    page.wait_for("1 document in", "titles 1 hit")
    assert page.evaluate(
        "[...document.querySelectorAll('#indexes input:checked')].map(e => e.value)"
    ) == ["titles"]
    page.evaluate(alone)
    page.wait_for(f"{len(fitting)} documents in")
    assert hits(page) == fitting
    page.fill("#collapse", "priority")
    page.wait_for("more alike")
    page.evaluate("document.querySelector('#fields [value=number]').click()")
    page.wait_for("priority")
    assert "number" not in page.evaluate("document.querySelector('#hits').innerText")
    assert page.evaluate("location.hash").endswith(
        "&order=-created_at&collapse=priority&hide=number"
    )


def test_documents_like_a_hit_are_a_click_away_and_a_step_back(page):
    places = (
        "[...document.querySelectorAll('.hit')].map(e => e.children[0].innerText + '/' +"
        " e.children[1].innerText)"
    )
    page.type("printer on floor two offline")
    page.wait_for("documents in")
    found = page.evaluate(places)
    assert found[0] == "comments/1"
    page.evaluate("document.querySelector('.hit > button').click()")
    like = eventually(lambda: (now := page.evaluate(places)) != found and now)
    assert page.evaluate("document.getElementById('query').value") == "like:comments/1"
    assert "comments/1" not in like
    page.evaluate("history.back()")
    eventually(lambda: page.evaluate(places) == found)


def test_a_hit_says_nothing_twice_and_the_document_says_all(page):
    page.evaluate("location.hash = 'q=parcel'")
    page.wait_for("documents in")
    shown = page.evaluate("document.querySelector('.hit .payload').innerText").split()
    assert (
        " ".join(shown) == f"long {'y' * 120}… number 9007199254740993 size 0.1 u 1 v 2 w 3 1 more"
    )
    page.evaluate("document.querySelector('.open').click()")
    page.wait_for("solutions: parcel", "y" * 300)
    page.press("Escape")
    page.evaluate("location.hash = 'q=parcel&filters=' + " + json.dumps(json.dumps(EXACT)))
    page.wait_for("1 document in")


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_went_wrong_is_one_sentence_with_a_button_to_try_again(page, answer):
    page.evaluate(f"window.plain = fetch; window.fetch = async () => {answer}; 0")
    page.evaluate("location.hash = 'q=printer'")
    page.wait_for(ANSWERS[answer], "Try again")
    page.evaluate("window.fetch = plain; 0")
    page.click("Try again")
    page.wait_for("documents in")
    assert page.evaluate("document.querySelector('#problem').hidden")


def test_a_start_that_failed_is_tried_again_by_the_next_search(window, live):
    broken = "window.plain = fetch; window.fetch = async () => new Response('{}', {status: 500})"
    with window.at_start(broken):
        window.open("about:blank")
        window.open(f"{live.url}/")
        window.wait_for("The service answers 500.")
    window.type("printer")
    window.press("Enter")
    eventually(lambda: "q=printer" in window.evaluate("location.hash"))
    window.evaluate("window.fetch = plain; 0")
    window.press("Enter")
    window.wait_for("documents in", "comments")


def test_what_is_missing_stands_first_and_the_page_tries_again_by_itself(window, tmp_path):
    desk = Desk(tmp_path / "desk", names=("comments", "titles"), extra=SHARED)
    desk.fill({name: DESK[name] for name in desk.names})
    shard = desk.settings.store.path / "collections" / "desk_titles__1"
    shard.rename(shard.with_name("hidden"))  # before the service may have loaded it
    with Live(desk.settings) as live:
        window.open(f"{live.url}/#q=zzqqxx+wwvvuu")
        shown = window.wait_for(
            "titles did not answer:", "This is only what comments has.", "tries again in"
        )
        assert "Nothing fits" not in shown
        assert shown.index("titles did not answer") < shown.index("documents in")
        window.picture("page-missing.png")
        shard.with_name("hidden").rename(shard)
        assert "did not answer" not in window.wait_for("Nothing fits. The nearest: 5 documents in")


def test_an_index_that_is_being_filled_is_named_and_asked_again_and_without_any_it_says_what_to_run(
    window, tmp_path
):
    desk = Desk(tmp_path / "desk", names=("comments", "titles"), extra=SHARED)
    ledger = Ledger(desk.settings.ledger_url)
    with Live(desk.settings) as live, closing(ledger), IndexLease(ledger, "desk_titles", "a-run"):
        ledger.start_run("a-run", "desk_titles", host=socket.gethostname(), pid=os.getpid())
        window.open(f"{live.url}/")
        window.wait_for("titles is still being filled.", "tries again in")
        desk.fill({"comments": DESK["comments"]})
        window.wait_for("titles is still being filled.", "Add a filter")
        window.type("printer")
        window.wait_for(
            "titles is still being filled. This is only what comments has. 3 documents in"
        )
        window.picture("page-filling.png")
    with Live(Desk(tmp_path / "empty").settings) as live:
        window.open(f"{live.url}/")
        window.wait_for("Nothing is indexed yet", "rag-index index-all")
        assert not window.evaluate("document.querySelector('#indexes').checkVisibility()")


@pytest.fixture(scope="module")
def help_desk(tmp_path_factory):
    """The address of `rag-index serve` over a sample that a run has indexed."""
    folder = tmp_path_factory.mktemp("desk")
    command = [*PROGRAM, "--config", str(folder / "rag-index.toml")]
    servicedesk.write(folder / "desk.db", documents=2000)
    (folder / "rag-index.toml").write_text(servicedesk.scaffold("desk.db"))
    subprocess.run(
        [*command, "index-all", "--serial"], check=True, capture_output=True, timeout=300
    )
    with subprocess.Popen(
        [*command, "serve", "--port", "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        yield process.stdout.readline().split()[-1]
        process.terminate()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(
    ("picture", "width", "height"), [("page", 1280, 860), ("page-phone", 390, 844)]
)
def test_a_person_looks_for_something(window, help_desk, picture, width, height, dark):
    with window.screen(width, height, dark=dark):
        window.open("about:blank")
        window.open(f"{help_desk}/")
        window.wait_for("worklogs" if width > 600 else "Indexes, filters and order")
        eventually(lambda: not window.evaluate("document.querySelector('#indexes').hidden"))
        assert ("just now" in window.words()) == (width > 600), "on a phone filters are folded"
        window.type("VPN does not connect after the update")
        window.press("Enter")
        window.wait_for("20 documents in")
        assert window.evaluate("document.querySelectorAll('mark').length") > 10
        window.press("ArrowDown")
        if not dark:
            window.press("e")
            window.wait_for("Words found")
        ground = window.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert (ground == "rgb(20, 23, 28)") == dark
        window.picture(f"{picture}{'-dark' if dark else ''}.png", width=width, height=height)
        assert (
            window.evaluate("document.querySelector('.hit').getBoundingClientRect().top")
            < height / 2
        )
        window.evaluate(
            "document.querySelector('#narrow').open = document.querySelector('#facets').open = true"
        )
        window.click("Add a filter")
        assert window.evaluate("document.documentElement.scrollWidth") <= width


def test_a_hit_of_a_part_has_the_title_of_its_document_and_a_link(window, tmp_path):
    nothing = '[[indexes]]\nname = "drafts"\ntable = "empty"\nkey = "id"\ntext = "body"\n'
    settings = SETTINGS.replace('access = "team"\n', "") + nothing
    tables = f"{TABLES};CREATE TABLE empty (id INTEGER PRIMARY KEY, body TEXT)"
    with Live(make_project(tmp_path / "project", settings, tables).settings) as live:
        window.open(f"{live.url}/")
        window.wait_for("notes")
        assert "drafts" not in window.words(), (
            "an index without documents is neither offered nor asked"
        )
        window.type("toner cartridge")
        window.press("Enter")
        window.wait_for(
            "Printer offline", "notes · remark 10", "customer.name", "Acme", "remark.author"
        )
        assert window.evaluate("document.querySelector('.hit a').getAttribute('href')") == "/r/10"
        window.click("Printer offline")
        window.wait_for(
            "notes: Printer offline", "remark 10", "remark 11", "The network cable was loose."
        )
