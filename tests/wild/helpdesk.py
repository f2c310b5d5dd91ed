"""A Rails application: polymorphic comments and tags, rich texts in a table of their own, soft
deletes, UUID keys."""

import uuid

from tests.wild.sample import Filler, Question, Sample, tables

fill = Filler(
    22,
    "scanner|badge reader|meeting room display|payroll export|VPN client|shared mailbox|label printer|dashboard|forklift tablet|time clock",
    "is frozen|shows yesterday's data|asks for a licence|beeps all the time|lost its network|needs a new battery",
    "since the update|in building C|for the night shift|after a power cut|in the cold store|with gloves on",
)
FACTS = [  # subject, text, comments, tag
    (
        "Label printer smears",
        "<div>Every <strong>third label</strong> is unreadable.</div>",
        ["Print head cleaned with isopropanol, density down to 12."],
        "zebra",
    ),
    (
        "No dial tone",
        "<div>Desk 14 has been silent since Monday.</div>",
        ["The switch port had lost its voice VLAN."],
        "telephony",
    ),
    (
        "Badge not accepted at gate 3",
        "",
        ["Reader firmware 2.8 refuses cards issued before 2015; reissued."],
        "access",
    ),
    (
        "Scale shows negative weight",
        "<div>Minus 4 kg with nothing on it.</div>",
        ["Taring with the pallet removed helped."],
        "scales",
    ),
    (
        "Mail from customer lost",
        "<div>They wrote three times.</div>",
        ["Greylisting kept them out; their relay changes address each time."],
        "mail",
    ),
    (
        "Tablet charges slowly",
        "<div>Five hours for a full charge.</div>",
        ["Cable only carries 500 mA, use the yellow ones."],
        "forklift",
    ),
]
ARTICLES = [
    (
        "Working from abroad",
        "<div>Up to <em>twenty days</em> a year inside the union; ask for form A1 two weeks before.</div>",
        ["Switzerland counts as well since May."],
    ),
    (
        "Printing from a phone",
        "<div>Join the network <code>guest-print</code> and choose the printer by its room.</div>",
        [],
    ),
    (
        "Backup of laptops",
        "<div><ul><li>daily at noon</li><li>deleted files are kept for 45 days</li></ul></div>",
        [],
    ),
]


def _id(*parts: object) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(map(str, parts))))


TICKET = {subject: _id("fact", n) for n, (subject, *_) in enumerate(FACTS)}
ARTICLE = {title: _id("article", n) for n, (title, *_) in enumerate(ARTICLES)}


def _rows() -> dict:
    tickets, texts, comments, tags, taggings = [], [], [], [], []

    def comment(
        kind: str, record: str, body: str, *, internal: bool = False, deleted: str | None = None
    ) -> None:
        count = len(comments)
        comments.append(
            (
                _id("c", count),
                kind,
                record,
                _id("u", count % 9),
                body,
                internal,
                deleted,
                fill.time(),
            )
        )

    def text(kind: str, record: str, body: str) -> None:
        texts.append((_id("r", len(texts)), "content", body, kind, record, fill.time()))

    for n in range(120):
        record = _id("t", n)
        tickets.append(
            (
                record,
                _id("a", n % 4),
                _id("u", n % 9),
                1000 + n,
                fill.title(),
                n % 3,
                fill.pick(["low", "high"]),
                None,
                fill.time(),
                fill.time(),
            )
        )
        text("Ticket", record, f"<div>{fill.text(2)}</div>")
        comment("Ticket", record, fill.text(1))
        if n % 2:
            comment("Ticket", record, f"We ask the vendor about it. {fill.text(1)}")
    for n, (subject, body, answers, tag) in enumerate(FACTS):
        record = TICKET[subject]
        tickets.append(
            (
                record,
                _id("a", 1),
                _id("u", 2),
                2000 + n,
                subject,
                2,
                "high",
                None,
                fill.time(),
                fill.time(),
            )
        )
        if body:
            text("Ticket", record, body)
        for answer in answers:
            comment("Ticket", record, answer)
        tags.append((_id("tag", n), tag, 1))
        taggings.append((_id("tagging", n), _id("tag", n), "Ticket", record))
    for n in range(40):
        taggings.append((_id("tagging", 100 + n), _id("tag", n % 5 + 1), "Ticket", _id("t", n)))
    articles = [
        (ARTICLE[title], _id("a", 1), title, "published", fill.time(), fill.time(), fill.time())
        for title, *_ in ARTICLES
    ]
    for title, body, answers in ARTICLES:
        text("Solution", ARTICLE[title], body)
        for answer in answers:
            comment("Solution", ARTICLE[title], answer)
    for n in range(25):
        articles.append(
            (
                _id("s", n),
                _id("a", 1),
                fill.title(),
                "published",
                fill.time(),
                fill.time(),
                fill.time(),
            )
        )
        text("Solution", _id("s", n), f"<div>{fill.text(3)}</div>")
    articles.append((_id("draft"), _id("a", 1), "Layoffs", "draft", None, fill.time(), fill.time()))
    text("Solution", _id("draft"), "<div>The plant in Okapiville closes.</div>")
    tickets.append(
        (
            _id("gone"),
            _id("a", 1),
            _id("u", 1),
            3000,
            "Harassment report",
            0,
            "high",
            "2024-05-05 10:00:00",
            fill.time(),
            fill.time(),
        )
    )
    text("Ticket", _id("gone"), "<div>About Mr Capybara of sales.</div>")
    comment(
        "Ticket",
        TICKET["No dial tone"],
        "Customer is a pest, let him wait, wombat rule.",
        internal=True,
    )
    comment(
        "Ticket",
        TICKET["No dial tone"],
        "My home number is under the axolotl.",
        deleted="2024-06-06 10:00:00",
    )
    yaml = "--- !ruby/object:Job\nname: cleanup\n"
    return {
        "accounts": [
            (_id("a", n), name, name.lower(), f"cus_{n}Xk29QqLm", fill.time())
            for n, name in enumerate(["Acme", "Globex", "Initech", "Umbrella"])
        ],
        "users": [
            (
                _id("u", n),
                _id("a", n % 4),
                f"agent{n}@example.org",
                f"$2a$12$KIXQ0{n}abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJ",
                f"rst{n}QWERTYzxcvb98765",
                fill.pick(["Ada", "Ben"]),
                f"Agent{n}",
                f"OTP{n}JBSWY3DP",
                3,
                fill.time(),
            )
            for n in range(9)
        ],
        "tickets": tickets,
        "solutions": articles,
        "rich_texts": texts,
        "comments": comments,
        "tags": tags,
        "taggings": taggings,
        "versions": [
            (
                n,
                "Ticket",
                _id("t", n % 120),
                "update",
                f"---\nid: {n}\nsubject: An older subject of it\nbody: older text of the ticket\n",
                fill.time(),
            )
            for n in range(1, 200)
        ],
        "user_auth_tokens": [
            (_id("tok", n), _id("u", n % 9), f"tok_{n}Zx81Kq93LmPw27", "Mozilla/5.0 (X11)")
            for n in range(60)
        ],
        "api_clients": [(_id("api", 1), "Warehouse sync", "shhh_7h15_15_53cr37", "read write")],
        "ar_internal_metadata": [("environment", "production")],
        "delayed_jobs": [(n, 0, yaml, None, fill.time()) for n in range(1, 50)],
    }


SAMPLE = Sample(
    tables=tables("helpdesk"),
    rows=_rows(),
    questions=[
        Question(
            "smeared labels on the printer",
            "tickets",
            TICKET["Label printer smears"],
            "isopropanol",
        ),
        Question(
            "phone without dial tone voice VLAN", "tickets", TICKET["No dial tone"], "voice VLAN"
        ),
        Question(
            "old badge refused at the gate",
            "tickets",
            TICKET["Badge not accepted at gate 3"],
            "before 2015",
        ),
        Question(
            "negative weight on the scale",
            "tickets",
            TICKET["Scale shows negative weight"],
            "pallet removed",
        ),
        Question(
            "customer's mail lost by greylisting",
            "tickets",
            TICKET["Mail from customer lost"],
            "relay changes",
        ),
        Question(
            "tablet takes hours to charge",
            "tickets",
            TICKET["Tablet charges slowly"],
            "yellow ones",
        ),
        Question("zebra", "tickets", TICKET["Label printer smears"], "zebra"),
        Question(
            "how many days may I work from abroad",
            "solutions",
            ARTICLE["Working from abroad"],
            "twenty days",
        ),
        Question(
            "work from Switzerland",
            "solutions",
            ARTICLE["Working from abroad"],
            "Switzerland counts",
        ),
        Question(
            "print from my phone", "solutions", ARTICLE["Printing from a phone"], "guest-print"
        ),
        Question(
            "how long are deleted files kept in the laptop backup",
            "solutions",
            ARTICLE["Backup of laptops"],
            "45 days",
        ),
        Question(
            "unreadable third label", "tickets", TICKET["Label printer smears"], "third label"
        ),
    ],
    hidden={
        "Okapiville": "layoffs, which plant closes",
        "Capybara": "harassment report in sales",
        "wombat": "customer is a pest",
        "axolotl": "home number",
    },
    secrets=["$2a$12$", "QWERTYzxcvb98765", "JBSWY3DP", "tok_1Zx81", "shhh_7h15", "cus_1Xk29"],
    private=["agent1@example.org"],
)
