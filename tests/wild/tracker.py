"""A tracker with journals: remarks and changes of states share a table, by type and id; some are
private."""

from tests.wild.sample import Filler, Question, Sample, tables

fill = Filler(
    11,
    "build|export of reports|login form|nightly backup|mail queue|search page|calendar|upload dialog|printer driver|REST client",
    "crashes|is slow|shows wrong totals|needs a new icon|ignores the filter|loses its state|times out|prints twice",
    "after the last release|on the second floor|with Firefox only|for some customers|since Monday|when the list is empty",
)
FACTS = [  # id, subject, description, notes
    (
        901,
        "Export to spreadsheet drops leading zeros",
        "Article numbers such as 00417 arrive as 417.",
        [
            "Reproduced with the French locale.",
            "Fixed by writing the cells as text instead of numbers.",
        ],
    ),
    (
        902,
        "Dark mode",
        "",
        ["Several people asked for it.", "Colours are now taken from prefers-color-scheme."],
    ),
    (
        903,
        "Calendar feed wrong by one hour",
        "Appointments in Lisbon are shown an hour late.",
        ["", "The server wrote local times without a zone; now each VEVENT carries TZID."],
    ),
    (
        904,
        "Memory grows during import",
        "After 40,000 rows the worker is killed.",
        ["The identity map kept every row; we expunge the session after each batch of 500."],
    ),
    (
        905,
        "Cannot attach HEIC photographs",
        None,
        ["iPhones send HEIC. The thumbnailer needs libheif, which is now in the image."],
    ),
    (
        906,
        "Umlauts in file names",
        "Attachments named Übersicht.pdf cannot be downloaded.",
        ["Content-Disposition needs filename*=UTF-8'' as of RFC 5987."],
    ),
    (
        907,
        "Two-factor login locks out field staff",
        "They have no phone in the clean room.",
        ["Hardware keys (WebAuthn) are allowed beside the app from now on."],
    ),
    (
        908,
        "Deadlock when two people close one parent",
        "",
        ["Always lock the parent row first, then its children by id."],
    ),
    (
        909,
        "Slow Gantt chart",
        "It takes 20 seconds with 800 tasks.",
        ["Relations were loaded one by one; preloading them brings it to 0.9 s."],
    ),
]


def _rows() -> dict:
    issues, journals, details = [], [], []
    for number in range(1, 181):
        body = fill.text(4) if number % 3 else ""
        issues.append(
            (
                number,
                number % 6 + 1,
                fill.title(),
                body,
                number % 4 + 1,
                number % 9 + 1,
                None,
                None,
                0,
                1,
                False,
                number,
                number + 1,
                fill.time(),
                fill.time(),
            )
        )
    for key, subject, body, notes in FACTS:
        issues.append(
            (
                key,
                key % 6 + 1,
                subject,
                body,
                3,
                2,
                4,
                None,
                100,
                1,
                False,
                1,
                2,
                fill.time(),
                fill.time(),
            )
        )
        journals += [
            (key * 10 + n, key, "Issue", 3, note, fill.time(), False)
            for n, note in enumerate(notes)
        ]
    issues.append(
        (
            990,
            1,
            "Salary data readable by interns",
            "The share marmalade is open to all.",
            1,
            1,
            1,
            None,
            0,
            1,
            True,
            1,
            2,
            fill.time(),
            fill.time(),
        )
    )
    journals.append(
        (
            99001,
            904,
            "Issue",
            1,
            "The customer Hinterwald refuses to pay for this, keep it among us.",
            fill.time(),
            True,
        )
    )
    for number in range(1, 400):
        kind, note = "Issue" if number % 7 else "Document", fill.text(1) if number % 2 else ""
        journals.append((number, number % 180 + 1, kind, number % 9 + 1, note, fill.time(), False))
        details.append(
            (number, number, "attr", fill.pick(["status_id", "done_ratio", "subject"]), "1", "4")
        )
    return {
        "projects": [
            (n, name, name.lower(), fill.text(2), True, fill.time())
            for n, name in enumerate(
                ["Billing", "Portal", "Warehouse", "Mobile", "Archive", "Gateway"], 1
            )
        ],
        "statuses": [
            (n, name, n > 2) for n, name in enumerate(["New", "In progress", "Done", "Rejected"], 1)
        ],
        "people": [
            (
                n,
                f"user{n}",
                f"{n:040x}a9b8c7d6e5f4",
                f"5a17{n:028x}",
                first,
                last,
                f"{first.lower()}@example.org",
                n == 1,
                fill.time(),
            )
            for n, (first, last) in enumerate(
                [
                    ("Ada", "Brandt"),
                    ("Jon", "Weaver"),
                    ("Mira", "Sand"),
                    ("Olu", "Adeyemi"),
                    ("Eva", "Lund"),
                    ("Piet", "Vos"),
                    ("Kim", "Soto"),
                    ("Rui", "Dias"),
                    ("Ina", "Falk"),
                ],
                1,
            )
        ],
        "tokens": [(n, n, "api", f"f00dcafe{n:032x}", fill.time()) for n in range(1, 10)],
        "issues": issues,
        "journals": journals,
        "journal_details": details,
        "documents": [(n, n % 6 + 1, fill.title(), fill.text(3), fill.time()) for n in range(1, 12)]
        + [
            (
                70,
                2,
                "Release checklist",
                "Freeze translations on Tuesday, tag on Wednesday, tell the hotline before noon.",
                fill.time(),
            )
        ],
        "settings": [
            (1, "mail_from", "desk@example.org", fill.time()),
            (2, "smtp_password", "tr0ub4dor&3xyz", fill.time()),
            (
                3,
                "welcome_text",
                "Welcome to the tracker, please search before you write.",
                fill.time(),
            ),
        ],
        "watchers": [(n, "Issue", n, n % 9 + 1) for n in range(1, 100)],
        "schema_migrations": [(f"2024010{n}120000",) for n in range(1, 10)],
        "repositories": [(1, 1, "https://git.example.org/billing.git", "g1t-pa55-w0rd")],
    }


SAMPLE = Sample(
    tables=tables("tracker"),
    rows=_rows(),
    questions=[
        Question(
            "article numbers lose their zeros in the export", "issues", "901", "cells as text"
        ),
        Question("how was dark mode done, which colours", "issues", "902", "prefers-color-scheme"),
        Question("appointments are an hour late", "issues", "903", "TZID"),
        Question(
            "worker runs out of memory on import of many rows",
            "issues",
            "904",
            "expunge the session",
        ),
        Question("photographs from iPhones cannot be attached", "issues", "905", "libheif"),
        Question("download of attachments with umlauts in the name", "issues", "906", "RFC 5987"),
        Question("second factor without a phone", "issues", "907", "WebAuthn"),
        Question("deadlock closing parent tasks", "issues", "908", "lock the parent row first"),
        Question("Gantt chart is slow", "issues", "909", "preloading"),
        Question("what has to be done before a release", "documents", "70", "hotline before noon"),
        Question("thumbnailer HEIC", "issues", "905", "libheif"),
    ],
    hidden={
        "marmalade": "salary data readable by interns",
        "Hinterwald": "customer refuses to pay for the import",
    },
    secrets=["a9b8c7d6e5f4", "5a17000", "f00dcafe", "tr0ub4dor&3xyz", "g1t-pa55-w0rd"],
    private=["ada@example.org"],
)
