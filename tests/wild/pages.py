"""A page tree of a CMS: titles in one table, content elements in another, hidden and deleted by
flags, times by number."""

from tests.wild.sample import Filler, Question, Sample, tables

fill = Filler(
    21,
    "swimming pool|town hall|library|harbour|bus line 4|city archive|playground|youth club|market|waste depot",
    "opens again|is being renovated|gets new windows|asks for patience|thanks all helpers|has a new phone",
    "from Easter on|for three weeks|after the flood|with money of the region|on the east bank|behind the church",
)
FACTS = [
    (
        201,
        "Parking permits",
        [
            ("Who can apply", "<p>Residents of zone B with their main home there.</p>"),
            ("", "<p>The sticker costs 30 euros and is valid for <b>two years</b>.</p>"),
        ],
    ),
    (
        202,
        "Getting married",
        [
            (
                "Papers",
                "<ul><li>passport</li><li>certified copy from the register of births</li></ul>",
            ),
            ("Places", "<p>Also on the lightship, Saturdays only.</p>"),
        ],
    ),
    (
        203,
        "Bulky waste",
        [("", "<p>Put it out after 8 pm the evening before; mattresses go to the depot.</p>")],
    ),
    (
        204,
        "Dog tax",
        [
            (
                "Rates",
                "<table><tr><td>first dog</td><td>72 euros</td></tr><tr><td>guide dogs</td><td>free of charge</td></tr></table>",
            )
        ],
    ),
    (
        205,
        "Allotments",
        [
            (
                "Waiting list",
                "<p>At present it takes about four years; families with small children come first.</p>",
            )
        ],
    ),
    (
        206,
        "Lost property",
        [("", "<p>Finds are kept six months in the cellar of the fire station.</p>")],
    ),
    (
        207,
        "Trees",
        [
            (
                "Felling",
                "<p>A trunk of more than 80 cm around, measured at chest height, needs a permit from October to February.</p>",
            )
        ],
    ),
]


def _rows() -> dict:
    pages, elements, number = [], [], 1
    for uid in range(1, 71):
        pages.append(
            (
                uid,
                max(0, uid // 6),
                1_700_000_000,
                1_690_000_000,
                0,
                0,
                uid,
                1,
                fill.title(),
                "",
                f"/p/{uid}",
                None,
                None,
                "",
                0,
                0,
            )
        )
        for place in range(3):
            elements.append(
                (
                    number,
                    uid,
                    1_700_000_000,
                    0,
                    0,
                    place,
                    "text",
                    0,
                    fill.title() if place else "",
                    2,
                    f"<p>{fill.text(2)}</p>",
                    None,
                    None,
                )
            )
            number += 1
    for uid, title, texts in FACTS:
        pages.append(
            (
                uid,
                3,
                1_700_000_000,
                1_690_000_000,
                0,
                0,
                uid,
                1,
                title,
                "",
                f"/p/{uid}",
                None,
                None,
                "",
                0,
                0,
            )
        )
        for place, (header, body) in enumerate(texts):
            elements.append(
                (
                    number,
                    uid,
                    1_700_000_000,
                    0,
                    0,
                    place,
                    "textmedia",
                    0,
                    header,
                    2,
                    body,
                    None,
                    None,
                )
            )
            number += 1
    for uid, deleted, hidden, text in (
        (290, 0, 1, "The new mayor will be Aardvark Brown."),
        (291, 1, 0, "Old fees of pangolin parking."),
    ):
        pages.append(
            (
                uid,
                3,
                1_700_000_000,
                1_690_000_000,
                deleted,
                hidden,
                uid,
                1,
                "Planned news",
                "",
                f"/p/{uid}",
                None,
                None,
                "",
                0,
                0,
            )
        )
        elements.append(
            (number, uid, 1_700_000_000, 0, 0, 0, "text", 0, "", 2, f"<p>{text}</p>", None, None)
        )
        number += 1
    elements.append(
        (
            number,
            203,
            1_700_000_000,
            0,
            1,
            9,
            "text",
            0,
            "",
            2,
            "<p>Secret skip behind the narwhal monument.</p>",
            None,
            None,
        )
    )
    elements.append(
        (
            number + 1,
            203,
            1_700_000_000,
            1,
            0,
            9,
            "text",
            0,
            "",
            2,
            "<p>Bulky waste was free until platypus day.</p>",
            None,
            None,
        )
    )
    return {
        "pages": pages,
        "tt_elements": elements,
        "tx_events": [
            (
                n,
                5,
                0,
                0,
                fill.title(),
                "Harbour",
                f"2026-05-{n % 28 + 1:02d} 19:00:00",
                f"<p>{fill.text(2)}</p>",
            )
            for n in range(1, 40)
        ]
        + [
            (
                80,
                5,
                0,
                0,
                "Night of the museums",
                "Old mill",
                "2026-06-13 18:00:00",
                "<p>The ferry runs until two o'clock, bring a torch.</p>",
            )
        ],
        "sys_category": [
            (n, 0, name) for n, name in enumerate(["Citizens", "Leisure", "Business"], 1)
        ],
        "sys_category_mm": [(n % 3 + 1, n, "pages") for n in range(1, 71)],
        "sys_log": [
            (
                n,
                1,
                f"User editor logged in from the office, record tt_elements:{n} was updated by hand",
                "192.0.2.44",
                1_700_000_000,
            )
            for n in range(1, 300)
        ],
        "sys_history": [
            (
                n,
                "tt_elements",
                n,
                '{"oldRecord":{"bodytext":"<p>An older text of this element.</p>"}}',
            )
            for n in range(1, 150)
        ],
        "cache_pages": [
            (n, f"c{n:040x}", b"<html><body>cached page with words</body></html>")
            for n in range(1, 60)
        ],
        "be_users": [
            (
                1,
                "editor",
                "$argon2i$v=19$m=65536,t=16,p=1$dGVzdA$abcdEFGH",
                "editor@example.org",
                "Edda Itor",
                b"a:0:{}",
                '{"totp":{"secret":"JBSWY3DPEHPK3PXP"}}',
            )
        ],
        "fe_sessions": [(f"5e55{n:060x}", 0, b"a:0:{}") for n in range(1, 30)],
        "sys_registry": [
            (1, "core", "formProtectionSessionToken:1", "0123456789abcdef0123456789abcdef01234567"),
            (2, "extension", "api_key", "key-5f6e7d8c9b0a"),
        ],
    }


SAMPLE = Sample(
    tables=tables("pages"),
    rows=_rows(),
    questions=[
        Question("how long is a parking permit valid", "pages", "201", "two years"),
        Question("who gets a parking permit", "pages", "201", "zone B"),
        Question("marry on the lightship", "pages", "202", "Saturdays only"),
        Question("documents for getting married", "pages", "202", "register of births"),
        Question("when to put out bulky waste", "pages", "203", "evening before"),
        Question("dog tax for guide dogs", "pages", "204", "free of charge"),
        Question("waiting time for an allotment", "pages", "205", "four years"),
        Question("where are lost things kept", "pages", "206", "fire station"),
        Question("may I fell a tree of 80 cm", "pages", "207", "chest height"),
        Question("ferry in the night of the museums", "tx_events", "80", "until two"),
        Question("mattress bulky waste", "pages", "203", "mattresses"),
    ],
    hidden={
        "Aardvark": "who will be the new mayor",
        "pangolin": "old fees for parking",
        "narwhal": "secret skip monument",
        "platypus": "bulky waste was free",
    },
    secrets=[
        "$argon2i$",
        "JBSWY3DPEHPK3PXP",
        "5e550000",
        "0123456789abcdef0123",
        "key-5f6e7d8c9b0a",
    ],
    private=["editor@example.org", "192.0.2.44"],
)
