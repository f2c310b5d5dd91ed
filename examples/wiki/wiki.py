"""Make wiki.db: a page table as wikis have it."""

import sqlite3

VAN = """<h1>Booking</h1><p>The key is with <b>Ines</b>. Whoever takes the van has a licence of class&nbsp;B
and enters the trip in the log.</p><script>track()</script>"""
PRINTERS = (
    "<p>Cartridges are in the cupboard:</p><ul><li>black: shelf one</li><li>colour: shelf"
    " two</li></ul>"
)
MERGER = "<p>A draft that nobody may find: the van is sold.</p>"
PAGES = [
    (1, "company-van", "Company van", VAN, "ines", "2026-03-02T09:00:00Z", True),
    (2, "printers", "Printers", PRINTERS, "kim", "2026-05-11T14:30:00Z", True),
    (3, "merger", "Merger", MERGER, "ceo", "2026-06-01T08:00:00Z", False),
]

with sqlite3.connect("wiki.db") as db:
    db.execute("DROP TABLE IF EXISTS page")
    db.execute(
        "CREATE TABLE page (id INTEGER PRIMARY KEY, slug TEXT, title TEXT, body TEXT, author TEXT, "
        "changed_at TEXT, published INTEGER)"
    )
    db.executemany("INSERT INTO page VALUES (?, ?, ?, ?, ?, ?, ?)", PAGES)
