"""A shop: names and descriptions by locale in a table of translations, reviews, categories over a link table, old prices."""

import json

from tests.wild.sample import Filler, Question, Sample

TABLES = """
CREATE TABLE manufacturer (id INTEGER PRIMARY KEY, name VARCHAR(255), link VARCHAR(255));
CREATE TABLE product (id INTEGER PRIMARY KEY, sku VARCHAR(40) NOT NULL, manufacturer_id INTEGER REFERENCES manufacturer (id),
    active BOOLEAN NOT NULL, stock INTEGER, weight DOUBLE, ean VARCHAR(20), attributes JSON, created_at DATETIME, updated_at DATETIME);
CREATE TABLE product_translation (product_id INTEGER NOT NULL, locale VARCHAR(5) NOT NULL, name VARCHAR(255), description TEXT,
    meta_title VARCHAR(255), meta_description VARCHAR(255), keywords TEXT, PRIMARY KEY (product_id, locale));
CREATE TABLE product_review (id INTEGER PRIMARY KEY, product_id INTEGER NOT NULL REFERENCES product (id), customer_id INTEGER,
    title VARCHAR(255), content TEXT, points DOUBLE, status BOOLEAN NOT NULL, created_at DATETIME);
CREATE TABLE category (id INTEGER PRIMARY KEY, parent_id INTEGER, active BOOLEAN NOT NULL);
CREATE TABLE category_translation (category_id INTEGER, locale VARCHAR(5), name VARCHAR(255), PRIMARY KEY (category_id, locale));
CREATE TABLE product_category (product_id INTEGER, category_id INTEGER, PRIMARY KEY (product_id, category_id));
CREATE TABLE product_price (id INTEGER PRIMARY KEY, product_id INTEGER, amount DECIMAL(10, 2), valid_from DATE, valid_to DATE, note TEXT);
CREATE TABLE customer (id INTEGER PRIMARY KEY, first_name VARCHAR(255), last_name VARCHAR(255), email VARCHAR(255), phone VARCHAR(40),
    password VARCHAR(255), salutation VARCHAR(10), birthday DATE);
CREATE TABLE customer_address (id INTEGER PRIMARY KEY, customer_id INTEGER, street VARCHAR(255), zipcode VARCHAR(10), city VARCHAR(80));
CREATE TABLE customer_order (id INTEGER PRIMARY KEY, customer_id INTEGER, order_number VARCHAR(64), amount DECIMAL(10, 2), state VARCHAR(20),
    customer_comment TEXT, internal_comment TEXT, deep_link_code VARCHAR(32), ordered_at DATETIME);
CREATE TABLE order_line (id INTEGER PRIMARY KEY, order_id INTEGER, product_id INTEGER, label VARCHAR(255), quantity INTEGER, price DECIMAL(10, 2));
CREATE TABLE cart (token VARCHAR(50) PRIMARY KEY, payload BLOB, created_at DATETIME);
CREATE TABLE payment_method (id INTEGER PRIMARY KEY, name VARCHAR(80), handler VARCHAR(80), api_secret VARCHAR(80));
CREATE TABLE cms_page (id INTEGER PRIMARY KEY, title VARCHAR(255), body TEXT, published BOOLEAN NOT NULL);
"""
fill = Filler(
    14,
    "lamp|chair|shelf|rug|mirror|curtain|drawer|stool|clock|basket",
    "comes in oak|folds flat|is dimmable|arrives assembled|stacks easily|has a linen cover|is washable|was redesigned",
    "for small rooms|with five years of warranty|for the hallway|made to order|from local workshops|in three sizes",
)
german = Filler(
    15,
    "Leuchte|Kommode|Truhe|Garderobe|Decke|Bank|Vase|Uhr",
    "besteht aus Eiche|passt in jeden Flur|ist abwaschbar|wird montiert geliefert|hat einen Bezug aus Leinen",
    "und kommt aus der Region|mit langer Garantie|in drei Farben|auch für kleine Zimmer",
)
FACTS = [  # id, english name, english text, german name, german text, review
    (301, "Back trainer", "<p>Strengthens the lower back in ten minutes a day.</p>", "R&uuml;ckensystem", "<p>St&auml;rkt die Muskeln der Wirbels&auml;ule.</p>",
     "Squeaks on tiles until you put felt under it."),
    (302, "Desk Aldo", "<p>Height from 62 to 128 cm, <b>two motors</b>.</p>", "Schreibtisch Aldo", "<p>H&ouml;henverstellbar mit zwei Motoren.</p>",
     "The crossbar hits the knees of tall people."),
    (303, "Kettle Nova", "", "Wasserkocher Nova", "<p>Kocht einen Liter in drei Minuten.</p>", "Lid hinge broke after eleven months, they replaced it."),
    (304, "Sofa bed Tilda", "<p>Sleeps two; the mattress is 14 cm of cold foam.</p>", "Schlafsofa Tilda", "<p>F&uuml;r zwei Personen.</p>", ""),
    (305, "Blind Ombra", "<p>Blocks 99% of light, no drilling.</p>", "Rollo Ombra", "<p>Verdunkelt ohne Bohren.</p>", "The clamps slip on round frames."),
    (306, "Lantern Fyr", "<p>Runs 40 hours from one charge.</p>", "Laterne Fyr", "<p>H&auml;lt 40 Stunden.</p>", "Glass fogs up in the rain, otherwise lovely."),
    (307, "Wardrobe Nord", "<p>Solid spruce, oiled.</p>", "Kleiderschrank Nord", "<p>Massive Fichte, ge&ouml;lt.</p>", "Doors need adjusting after a winter of dry air."),
]  # fmt: skip


def _rows() -> dict:
    products, texts, reviews, links, prices = [], [], [], [], []
    for n in range(1, 101):
        products.append((n, f"SKU-{n:05d}", n % 5 + 1, True, n % 40, 1.5, f"40{n:011d}", json.dumps({"colour": "oak"}), fill.time(), fill.time()))  # fmt: skip
        texts.append((n, "en", fill.title(), f"<p>{fill.text(3)}</p>", "", "", None))
        texts.append((n, "de", german.title(), f"<p>{german.text(3)}</p>", "", "", None))
        reviews += [(n * 2 + k, n, n % 20 + 1, "Nice", fill.text(1), 4.0, True, fill.time()) for k in range(n % 2 + 1)]
        links.append((n, n % 4 + 1))
        prices.append((n, n, 10 + n, "2024-01-01", None, None))
    for n, name, text, name_de, text_de, review in FACTS:
        attributes = {"colour": "moss green", "load": "140 kg"} if n == 304 else {"colour": "oak"}
        products.append(
            (n, f"SKU-{n:05d}", 2, True, 3, 9.0, f"40{n:011d}", json.dumps(attributes), fill.time(), fill.time())
        )
        texts += [(n, "en", name, text, "", "", None), (n, "de", name_de, text_de, "", "", None)]
        reviews += [(n * 10, n, 3, "Review", review, 3.0, True, fill.time())] if review else []
        links.append((n, 2))
    products.append((390, "SKU-00390", 1, False, 0, 1.0, "4000000000390", "{}", fill.time(), fill.time()))
    texts.append((390, "en", "Recalled heater Ignis", "<p>May catch fire near salamander curtains.</p>", "", "", None))
    reviews.append((3999, 302, 2, "Bad", "The clerk is a crook called Mandragora", 1.0, False, fill.time()))
    prices.append((900, 302, 12.34, "2019-01-01", "2019-12-31", "Christmas price nutcracker"))
    return {
        "manufacturer": [(n, name, "") for n, name in enumerate(["Holzwerk", "Lumo", "Textura", "Feinform", "Nordbo"], 1)],
        "product": products, "product_translation": texts, "product_review": reviews,
        "category": [(n, None, True) for n in range(1, 5)],
        "category_translation": [(n, "en", name) for n, name in enumerate(["Living", "Working", "Sleeping", "Garden"], 1)]
        + [(n, "de", name) for n, name in enumerate(["Wohnen", "Arbeiten", "Schlafen", "Garten"], 1)],
        "product_category": links, "product_price": prices,
        "customer": [(n, fill.pick(["Ina", "Joe", "Kai"]), f"Kunde{n}", f"kunde{n}@example.com", f"+49 30 23125 {n:03d}",
                      f"$argon2id$v=19$m=65536$c29tZXNhbHQ{n}$abcdefgh", "Mx", "1980-01-01") for n in range(1, 21)],
        "customer_address": [(n, n, f"Lindenweg {n}", f"10{n:03d}", "Berlin") for n in range(1, 21)],
        "customer_order": [(n, n % 20 + 1, f"O-{n:06d}", 99.5, "paid", "", "", f"dl{n:030x}", fill.time()) for n in range(1, 90)]
        + [(95, 4, "O-000777", 120, "open", "Please deliver to the bakery next door, I am away until the ninth.", "Customer is a werewolf, charge twice", "dl95", fill.time())],
        "order_line": [(n, n % 89 + 1, n % 100 + 1, fill.title(), 1, 9.5) for n in range(1, 200)] + [(500, 95, 304, "Sofa bed Tilda", 1, 99)],
        "cart": [(f"ca27{n:028x}", b"O:8:\"stdClass\":1:{s:1:\"a\";i:1;}", fill.time()) for n in range(1, 40)],
        "payment_method": [(1, "Card", "card", "rk_live_9Zx81secret"), (2, "Invoice", "invoice", None)],
        "cms_page": [(1, "Returns", "<h1>Returns</h1><p>Send it back within 60 days; large furniture is collected by the forwarder.</p>", True),
                     (2, "Jobs", "<p>We look for a joiner in Leipzig.</p>", True), (3, "Relaunch", "<p>Secret plan bumblebee.</p>", False)],
    }  # fmt: skip


SAMPLE = Sample(
    tables=TABLES,
    rows=_rows(),
    questions=[
        Question("Rückensystem Wirbelsäule", "product", "301", "Wirbelsäule"),
        Question("back trainer squeaks", "product", "301", "felt under it"),
        Question("desk with two motors", "product", "302", "62 to 128"),
        Question("Schreibtisch Höhenverstellbar", "product", "302", "zwei Motoren"),
        Question("kettle lid broke", "product", "303", "hinge broke"),
        Question("Wasserkocher drei Minuten", "product", "303", "drei Minuten"),
        Question("thickness of the sofa bed's mattress", "product", "304", "14 cm"),
        Question("moss green sofa bed load", "product", "304", "140 kg"),
        Question("blind without drilling on round frames", "product", "305", "clamps slip"),
        Question("lantern fogs up in rain", "product", "306", "Glass fogs"),
        Question("wardrobe doors in dry winter air", "product", "307", "adjusting"),
        Question("can I send furniture back", "cms_page", "1", "60 days"),
        Question("order to be delivered at the bakery", "customer_order", "95", "until the ninth"),
    ],
    hidden={
        "salamander": "recalled heater near curtains",
        "Mandragora": "the clerk is a crook",
        "nutcracker": "christmas price of the desk",
        "werewolf": "strange customer",
        "bumblebee": "relaunch plan",
    },
    secrets=["$argon2id$", "ca27000", "rk_live_9Zx81secret", "dl00000"],
    private=["kunde1@example.com", "+49 30 23125"],
)
