"""Make shop.db: products, and their names and descriptions in three languages."""

import sqlite3

PRODUCTS = [(1, 149.0, True), (2, 24.5, True), (3, 89.0, False)]
TRANSLATIONS = [
    (
        1,
        "en",
        "Rain jacket “Fjell”",
        "A waterproof jacket for hikers, with sealed seams and a hood.",
    ),
    (
        1,
        "de",
        "Regenjacke „Fjell“",
        "Eine wasserdichte Jacke für Wanderer, mit verschweißten Nähten und Kapuze.",
    ),
    (
        1,
        "fr",
        "Veste de pluie « Fjell »",
        "Une veste imperméable pour la randonnée, aux coutures soudées.",
    ),
    (2, "en", "Insulated bottle", "Keeps tea hot for twelve hours and water cold for a day."),
    (2, "de", "Isolierflasche", "Hält Tee zwölf Stunden heiß und Wasser einen Tag lang kalt."),
    (
        2,
        "fr",
        "Bouteille isotherme",
        "Garde le thé chaud douze heures et l’eau froide toute la journée.",
    ),
    (3, "de", "Windjacke", "Eine leichte Jacke zum Wandern, nicht wasserdicht."),
]

with sqlite3.connect("shop.db") as db:
    db.executescript("DROP TABLE IF EXISTS translation; DROP TABLE IF EXISTS product")
    db.execute("CREATE TABLE product (id INTEGER PRIMARY KEY, price REAL, in_stock BOOLEAN)")
    db.execute(
        "CREATE TABLE translation (product_id INTEGER REFERENCES product, locale TEXT, name TEXT, "
        "description TEXT, PRIMARY KEY (product_id, locale))"
    )
    db.executemany("INSERT INTO product VALUES (?, ?, ?)", PRODUCTS)
    db.executemany("INSERT INTO translation VALUES (?, ?, ?, ?)", TRANSLATIONS)
