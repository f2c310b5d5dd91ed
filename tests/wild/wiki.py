"""A wiki: titles, revisions and compressed texts in three tables; only the newest revision counts;
some are suppressed."""

import zlib

from tests.wild.sample import Filler, Question, Sample, tables

fill = Filler(
    23,
    "telescope|dome|mirror cell|guide camera|night assistant|spectrograph|weather mast|liquid nitrogen|control room|dew heater",
    "was aligned|has a spare|drifts by two arcseconds|must be logged|is described elsewhere|was moved",
    "before first light|on the north pier|after each storm|by two persons|with the checklist|during the new moon",
)
FACTS = [
    (
        "Closing_the_dome",
        "Old way: by hand.",
        "== Steps ==\n# Park the telescope at '''zenith'''.\n# Turn the key to ''close'' and wait for the horn.\n\nIn wind above 60 km/h close at once.",
    ),
    (
        "Filling_the_dewar",
        "Wear gloves.",
        "Pour slowly, the '''boil-off''' takes ten minutes. Never close the valve before the plume is gone.",
    ),
    (
        "Mirror_washing",
        "Use soap.",
        "Distilled water only, and CO2 snow twice a month. See [[Coating]].",
    ),
    ("Guiding", "Choose a star.", "Exposures of 2 seconds; below that the seeing is chased."),
    ("Key_box", "Ask the janitor.", "The key box hangs behind the barometer."),
    ("Visitors'_nights", "Fridays.", "On the first Thursday of the month, with red torches only."),
    (
        "Lightning",
        "Unplug.",
        "Pull the blue connector on the pier, then the antenna, and stay away from the mast for 30 minutes.",
    ),
]


def _packed(text: str) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(text.encode()) + packer.flush()


def _rows() -> dict:
    pages, revisions, texts = [], [], []

    def page(
        number: int, title: str, versions: list[str], *, namespace: int = 0, deleted: int = 0
    ) -> None:
        for version in versions:
            texts.append((len(texts) + 501, _packed(version), "utf-8,gzip"))
            revisions.append(
                (
                    len(revisions) + 9001,
                    number,
                    len(texts) + 500,
                    "typo",
                    1,
                    "20240101000000",
                    deleted,
                    len(version),
                    f"{number:031x}",
                )
            )
        pages.append(
            (
                number,
                namespace,
                title,
                0,
                0.5,
                "20240101000000",
                len(revisions) + 9000,
                len(versions[-1]),
            )
        )

    for number in range(1, 81):
        page(number, f"{fill.title().replace(' ', '_')}_{number}", [fill.text(2), fill.text(4)])
    for number, (title, old, new) in enumerate(FACTS, 301):
        page(number, title, [old, new])
    page(390, "Bids_for_the_new_camera", ["Offer of Dromedary Optics: see envelope."], deleted=4)
    return {
        "wk_page": pages,
        "wk_revision": revisions,
        "wk_text": texts,
        "wk_user": [
            (
                n,
                f"Observer{n}",
                b":pbkdf2:sha512:30000:64:c2FsdA==:aGFzaGhhc2g=",
                f"observer{n}@example.org",
                f"{n:08x}a1b2c3d4e5f60718293a4b5c",
            )
            for n in range(1, 6)
        ],
        "wk_categorylinks": [(n, "Operations" if n % 2 else "Optics", "X") for n in range(1, 81)],
        "wk_archive": [
            (n, "Deleted_page", b"The quetzal bar is behind the dome, deleted page.", "vandalism")
            for n in range(1, 8)
        ],
        "wk_recentchanges": [
            (n, "Guiding", "typo fixed in the second line", "203.0.113.9") for n in range(1, 200)
        ],
        "wk_logging": [
            (n, "delete", "Page", "deleted because it was a test of somebody", b"a:0:{}")
            for n in range(1, 90)
        ],
        "wk_objectcache": [(f"wiki:parser:{n}", b'O:6:"Parser":0:{}') for n in range(1, 50)],
        "wk_searchindex": [
            (n, "guiding", "guiding words of the page in small letters") for n in range(1, 81)
        ],
    }


SAMPLE = Sample(
    tables=tables("wiki"),
    rows=_rows(),
    questions=[
        Question("close the dome in strong wind", "wk_page", "301", "60 km/h"),
        Question("where to park the telescope before closing", "wk_page", "301", "zenith"),
        Question("boil-off when filling the dewar", "wk_page", "302", "ten minutes"),
        Question("how often CO2 snow on the mirror", "wk_page", "303", "twice a month"),
        Question("exposure time for guiding", "wk_page", "304", "2 seconds"),
        Question("where is the key box", "wk_page", "305", "barometer"),
        Question("when are visitors' nights", "wk_page", "306", "first Thursday"),
        Question("lightning blue connector", "wk_page", "307", "30 minutes"),
        Question("washing mirrors with distilled water", "wk_page", "303", "Distilled water"),
        Question("key to close and wait for the horn", "wk_page", "301", "horn"),
    ],
    hidden={
        "Dromedary": "offer for the new camera",
        "quetzal": "bar behind the dome",
        "Old way": "closing by hand",
        "Ask the janitor": "ask the janitor for the key",
    },
    secrets=["pbkdf2", "a1b2c3d4e5f60718"],
    private=["observer1@example.org", "203.0.113.9"],
)
