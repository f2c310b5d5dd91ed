"""A small repair workshop, as applications keep it: one repair lies in three tables, with HTML and
hidden rows.

repair      what was brought in, with a description in HTML; some are private
remark      what was found and done, many for each repair; some are internal
customer    whose it is, with an address that no search has to find
account     who logs in, with a password
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from rag_index.first_run.samples import new_database

COPIES = 12
_THINGS = (
    "kettle",
    "toaster",
    "desk lamp",
    "vacuum cleaner",
    "radio",
    "hair dryer",
    "coffee grinder",
    "sewing machine",
    "record player",
)
_FAULTS = (
    (
        "trips the fuse",
        "As soon as it is <b>switched on</b>, the whole flat is dark.",
        "Water had reached the terminal; dried for a day and sealed with silicone.",
        "The insulation measures 20 M&Omega; again.",
    ),
    (
        "smells of burning",
        "<p>After five minutes it smells like <i>fish</i>.</p>",
        "A capacitor of the motor was leaking. Replaced by one of class X2.",
        "Ran for an hour without smell.",
    ),
    (
        "makes a grinding noise",
        "<p>It began after the move.</p>",
        "The bearing is dry: cleaned with alcohol, two drops of sewing-machine oil.",
        "As quiet as new.",
    ),
    (
        "does nothing at all",
        "<ul><li>other sockets tried</li><li>fuse is fine</li></ul>",
        "Thermal fuse at 216&nbsp;&deg;C is open, crimped a new one: solder would melt it.",
        "The cause was a blocked vent.",
    ),
    (
        "has a loose cable",
        "<p>It only works if one holds the plug &amp; prays.</p>",
        "Cut off ten centimetres and fitted a new strain relief.",
        "Customer was shown how to wind it up.",
    ),
)
_NAMES = [
    "Ada Brandt",
    "Jon Weaver",
    "Mira Sand",
    "Olu Adeyemi",
    "Eva Lund",
    "Piet Vos",
    "Kim Soto",
]
_Row = tuple[object, ...]
_TABLES = """
CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT);
CREATE TABLE repair (id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customer (id), title TEXT NOT NULL,
    description TEXT, state TEXT, is_private INTEGER NOT NULL, updated_at TEXT);
CREATE TABLE remark (id INTEGER PRIMARY KEY, repair_id INTEGER NOT NULL, author TEXT, body TEXT,
    internal INTEGER NOT NULL, written_at TEXT);
CREATE TABLE account (id INTEGER PRIMARY KEY, login TEXT, email TEXT, password_hash TEXT);
"""


def write(out: Path) -> dict[str, int]:
    """Write the workshop into SQLite, always the same; return the rows by table. Raises SourceError
    if it cannot."""
    below = random.Random("workshop").random  # noqa: S311 - made-up texts, no secrets
    repairs: list[_Row] = []
    remarks: list[_Row] = []
    for number in range(1, COPIES * len(_FAULTS) + 1):
        fault, description, *done = _FAULTS[number % len(_FAULTS)]
        thing, day = (
            _THINGS[int(below() * len(_THINGS))],
            f"2026-0{number % 9 + 1}-{number % 27 + 1:02d}",
        )
        title, state = f"{thing.capitalize()} {fault}", ("new", "at work", "done")[number % 3]
        repairs.append(
            (number, number % 7 + 1, title, description, state, number % 20 == 0, f"{day} 09:00:00")
        )
        internal = (
            ["Pays late: ask for the money before you hand it out."] if number % 6 == 0 else []
        )
        for body in [*done, *internal]:
            hidden = body in internal
            remark = (
                len(remarks) + 1,
                number,
                _NAMES[number % 3],
                f"<p>{body}</p>",
                hidden,
                f"{day} 11:00:00",
            )
            remarks.append(remark)
    logins = [(number, name.split()[0].lower()) for number, name in enumerate(_NAMES, 1)]
    customers = [
        (n, name, f"{login}@example.org") for (n, login), name in zip(logins, _NAMES, strict=True)
    ]
    accounts = [(n, login, f"{login}@example.org", f"$2b$12$example{n}") for n, login in logins[:3]]
    tables: dict[str, Sequence[_Row]] = {
        "customer": customers,
        "repair": repairs,
        "remark": remarks,
        "account": accounts,
    }
    with new_database(out) as connection:
        connection.executescript(_TABLES)
        for table, rows in tables.items():
            connection.executemany(
                f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows
            )
    return {table: len(rows) for table, rows in tables.items()}
