"""A weblog: articles and their revisions, pages and menu entries in one table; HTML; meta data as pairs; drafts."""

from tests.wild.sample import Filler, Question, Sample

TABLES = """
CREATE TABLE blg_posts (ID BIGINT PRIMARY KEY, post_author BIGINT NOT NULL, post_date DATETIME, post_content TEXT NOT NULL,
    post_title TEXT NOT NULL, post_excerpt TEXT NOT NULL, post_status VARCHAR(20) NOT NULL, comment_status VARCHAR(20),
    post_password VARCHAR(255), post_name VARCHAR(200), post_modified DATETIME, post_content_filtered TEXT NOT NULL,
    post_parent BIGINT, guid VARCHAR(255), menu_order INTEGER, post_type VARCHAR(20) NOT NULL, comment_count BIGINT);
CREATE TABLE blg_postmeta (meta_id BIGINT PRIMARY KEY, post_id BIGINT, meta_key VARCHAR(255), meta_value TEXT);
CREATE TABLE blg_comments (comment_ID BIGINT PRIMARY KEY, comment_post_ID BIGINT, comment_author VARCHAR(255),
    comment_author_email VARCHAR(100), comment_author_IP VARCHAR(100), comment_date DATETIME, comment_content TEXT,
    comment_approved VARCHAR(20), comment_agent VARCHAR(255), comment_type VARCHAR(20), comment_parent BIGINT, user_id BIGINT);
CREATE TABLE blg_users (ID BIGINT PRIMARY KEY, user_login VARCHAR(60), user_pass VARCHAR(255), user_nicename VARCHAR(50),
    user_email VARCHAR(100), user_activation_key VARCHAR(255), display_name VARCHAR(250));
CREATE TABLE blg_terms (term_id BIGINT PRIMARY KEY, name VARCHAR(200), slug VARCHAR(200));
CREATE TABLE blg_term_relationships (object_id BIGINT, term_taxonomy_id BIGINT, term_order INTEGER,
    PRIMARY KEY (object_id, term_taxonomy_id));
CREATE TABLE blg_options (option_id BIGINT PRIMARY KEY, option_name VARCHAR(191), option_value TEXT, autoload VARCHAR(20));
CREATE TABLE blg_links (link_id BIGINT PRIMARY KEY, link_url VARCHAR(255), link_name VARCHAR(255), link_notes TEXT);
"""
fill = Filler(
    12,
    "sourdough|garden shed|rain barrel|bicycle|cast iron pan|north wall|compost heap|old window|workbench|tomato bed",
    "needs patience|was a gift|surprised me|looks better now|costs less than I thought|has to wait|is done at last",
    "this spring|after three tries|with the neighbours' help|before the frost|on a rainy Sunday|for the price of a coffee",
)
FACTS = [
    (501, "Cleaning rust off hand planes", "<p>Soak the iron in <strong>citric acid</strong> &ndash; 60&nbsp;g a litre &ndash; overnight.</p>"
     "<p>Neutralise with baking soda, then wax.</p>", [("Horst", "Evapo-Rust did the same for me without the smell.")]),
    (502, "Kr&auml;uterbutter f&uuml;r den Grill", "<p>Die Butter muss zimmerwarm sein. Schnittlauch, Petersilie und etwas "
     "Zitronenabrieb unter&shy;heben, dann in Folie rollen.</p>", [("Uschi", "Mit ger&ouml;stetem Knoblauch noch besser!")]),
    (503, "Why my tomatoes split", "<ul><li>irregular watering</li><li>a hot week after rain</li></ul><p>Mulch evens it out.</p>", []),
    (504, "Truing a wheel without a stand", "<p>Turn the bike over; a zip tie on the stay is your gauge.</p><script>var tracker=1;</script>",
     [("Lena", "Quarter turns only, or you chase the wobble all night.")]),
    (505, "Hello", "<!-- block --><p>We moved the site to a small computer in the cellar that runs on 4 watts.</p>", []),
    (506, "A door that sticks", "<p>Chalk the edge, close it, and plane where the chalk is gone.</p>",
     [("Per", "In winter do nothing: the wood shrinks back by February.")]),
    (507, "Starter that will not rise", "<p>Feed it rye for two days &amp; keep it at 26&deg;C.</p>",
     [("Noor", "Chlorinated tap water killed mine, let it stand overnight.")]),
    (508, "Storing dahlias", "<table><tr><th>Where</th><th>Temperature</th></tr><tr><td>cellar</td><td>5 to 8 degrees</td></tr></table>", []),
]  # fmt: skip


def _post(
    number: int,
    title: str,
    body: str,
    *,
    status: str = "publish",
    kind: str = "post",
    parent: int = 0,
    password: str = "",
):
    name = title.lower().replace(" ", "-")[:60]
    return (number, number % 3 + 1, fill.time(), body, title, "", status, "open", password, name, fill.time(), "", parent,
            f"https://blog.example.org/?p={number}", 0, kind, 0)  # fmt: skip


def _rows() -> dict:
    posts = [_post(n, fill.title(), "".join(f"<p>{fill.text(3)}</p>" for _ in range(3))) for n in range(1, 121)]
    comments = []
    for number, title, body, remarks in FACTS:
        posts.append(_post(number, title, body))
        for revision in range(3):
            posts.append(_post(number * 10 + revision, title, body + f"<p>Draft {revision}.</p>", status="inherit",
                               kind="revision", parent=number))  # fmt: skip
        for n, (author, text) in enumerate(remarks):
            comments.append((number * 10 + n, number, author, f"{author.lower()}@example.net", "192.0.2.7", fill.time(), text, "1",
                             "Mozilla/5.0", "comment", 0, 0))  # fmt: skip
    posts.append(
        _post(601, "About the workshop", "<p>Open on Thursdays from four; ring the brass bell twice.</p>", kind="page")
    )
    posts.append(
        _post(602, "Selling the house", "<p>We ask for periwinkle thousand, do not tell anyone.</p>", status="draft")
    )
    posts.append(_post(603, "Family letter", "<p>Grandmother's gherkin cure, for relatives.</p>", status="publish", password="rosebud77"))  # fmt: skip
    posts.append(_post(604, "Old rant", "<p>The mayor and his flamingo project.</p>", status="trash"))
    posts += [_post(700 + n, "", "", kind="nav_menu_item") for n in range(12)]
    comments.append((1, 503, "Buy pills", "x@spam.example", "203.0.113.5", fill.time(), "Cheap zolpidoxin for tomatoes", "spam", "bot", "comment", 0, 0))  # fmt: skip
    for n in range(10, 150):
        comments.append((n, n % 120 + 1, fill.pick(["Ann", "Bo", "Cy"]), "reader@example.net", "192.0.2.9", fill.time(), fill.text(1), "1",
                         "Mozilla/5.0 (X11; Linux)", "comment", 0, 0))  # fmt: skip
    php = 'a:2:{s:5:"width";i:640;s:4:"file";s:11:"picture.jpg";}'
    return {
        "blg_posts": posts,
        "blg_postmeta": [(n, n % 120 + 1, fill.pick(["_edit_lock", "_thumbnail_id", "_wp_attachment_metadata"]), php) for n in range(1, 300)],
        "blg_comments": comments,
        "blg_users": [(n, login, f"$P$B{login}55IQ0xN3Vd7GkPqW8yZ1", login, f"{login}@example.org", f"1700000000:$P$Bkey{n}aa99", login.title())
                      for n, login in enumerate(["marta", "tom", "guest"], 1)],
        "blg_terms": [(n, name, name.lower()) for n, name in enumerate(["Garden", "Kitchen", "Tools", "House"], 1)],
        "blg_term_relationships": [(n, n % 4 + 1, 0) for n in range(1, 121)] + [(501, 3, 0), (503, 1, 0)],
        "blg_options": [(1, "siteurl", "https://blog.example.org", "yes"), (2, "auth_salt", "x9!kfQ2%vbN7$pLz", "yes"),
                        (3, "payment_secret_key", "sk_live_51Habc99XYZ", "yes"), (4, "cron", php, "yes"),
                        (5, "blogdescription", "Notes from a workshop and a garden", "yes")],
        "blg_links": [(1, "https://example.com", "Example", "")],
    }  # fmt: skip


SAMPLE = Sample(
    tables=TABLES,
    rows=_rows(),
    questions=[
        Question("how to get rust off a plane iron", "blg_posts", "501", "citric acid"),
        Question("Kräuterbutter Zitronenabrieb", "blg_posts", "502", "Zitronenabrieb"),
        Question("Kräuterbutter mit geröstetem Knoblauch", "blg_posts", "502", "geröstetem Knoblauch"),
        Question("tomatoes split after rain", "blg_posts", "503", "irregular watering"),
        Question("true a wheel with a zip tie", "blg_posts", "504", "gauge"),
        Question("wheel wobble quarter turns", "blg_posts", "504", "Quarter turns"),
        Question("how much power does the server in the cellar use", "blg_posts", "505", "4 watts"),
        Question("sticking door in winter", "blg_posts", "506", "shrinks back"),
        Question("does chlorine in water kill a sourdough starter", "blg_posts", "507", "Chlorinated tap water"),
        Question("temperature to store dahlias in the cellar", "blg_posts", "508", "5 to 8 degrees"),
        Question("when is the workshop open", "blg_posts", "601", "brass bell"),
        Question("Evapo-Rust smell", "blg_posts", "501", "Evapo-Rust"),
    ],
    hidden={"periwinkle": "selling the house price", "gherkin": "grandmother's cure", "flamingo": "the mayor and his project", "zolpidoxin": "cheap pills for tomatoes"},
    secrets=["55IQ0xN3Vd7GkPqW8yZ1", "$P$Bkey", "x9!kfQ2%vbN7$pLz", "sk_live_51Habc99XYZ", "rosebud77"],
    private=["horst@example.net", "192.0.2.7"],
)  # fmt: skip
