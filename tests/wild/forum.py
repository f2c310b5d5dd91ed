"""A forum: topics without text, posts in BBCode, a moderators' section that only a permission of
the group shows."""

from tests.wild.sample import Filler, Question, Sample, tables

fill = Filler(
    13,
    "carburettor|rear shock|clutch cable|fork seal|ignition coil|side stand|chain guard|fuel tap|headlight|speedometer",
    "leaks|rattles|was replaced|does not fit|came in the post|is out of stock|needs grease|broke again",
    "above 80 km/h|on the old model|after the winter|when it is cold|at the dealer in town|on the way to work",
)
FACTS = [
    (
        401,
        "Won't start when hot",
        [
            "Runs fine cold, dies after [b]20 minutes[/b].",
            "Check the gap of the pickup coil: 0.7 mm when warm.",
            '[quote="Rolf"]Check the gap[/quote]That was it, thank you!',
        ],
    ),
    (
        402,
        "Which oil?",
        ["Manual is lost.", "10W-40 without friction modifiers, or the [i]wet clutch[/i] slips."],
    ),
    (
        403,
        "Noise from the front",
        [
            "A clonk under braking.",
            "Steering head bearings. Torque the nut to 22 Nm, [url=https://example.org/x]photos here[/url].",
        ],
    ),
    (
        404,
        "Vibration",
        [
            "Above 90 my hands go numb.",
            "Synchronise the carbs with two vacuum gauges; heavier bar ends helped as well.",
        ],
    ),
    (
        405,
        "Battery drains overnight",
        [
            "Measured 80 mA at rest.",
            "[list][*]unplug the alarm[*]the regulator's diode leaks on this model[/list]",
        ],
    ),
    (
        406,
        "Touring with a tent",
        [
            "Where do you put the poles?",
            "Along the fork legs in a [color=red]drain pipe[/color] with screw caps.",
        ],
    ),
    (
        407,
        "Rust inside the tank",
        [
            "Flakes in the filter.",
            "Molasses one to nine for a week, then a handful of nuts and shake. [code]1 l molasses : 9 l water[/code]",
        ],
    ),
    (
        408,
        "Spokes",
        [
            "Two are broken on the drive side.",
            "Order 3.5 mm stainless, 157 long; the listed 160 are for the drum brake.",
        ],
    ),
]


def _rows() -> dict:
    topics, posts = [], []
    number = 1
    for topic in range(1, 91):
        topics.append(
            (topic, topic % 4 + 1, fill.title(), topic % 8 + 1, 1_700_000_000 + topic, 7, 0, 0, 1)
        )
        for _ in range(3):
            posts.append(
                (
                    number,
                    topic,
                    topic % 4 + 1,
                    number % 8 + 1,
                    "198.51.100.4",
                    1_700_000_000 + number,
                    f"Re: {topics[-1][2]}",
                    fill.text(2),
                    "3k8x1q",
                    f"{number:032x}",
                    0,
                    "",
                )
            )
            number += 1
    for topic, title, texts in FACTS:
        topics.append((topic, 2, title, 3, 1_710_000_000, 55, 0, 0, 1))
        for text in texts:
            posts.append(
                (
                    number,
                    topic,
                    2,
                    4,
                    "198.51.100.4",
                    1_710_000_000 + number,
                    f"Re: {title}",
                    text,
                    "3k8x1q",
                    f"{number:032x}",
                    0,
                    "",
                )
            )
            number += 1
    hidden = [
        (480, 9, "Members to ban", "The member quokka threatens others.", 1, 0),
        (481, 2, "Gone topic", "Stolen wyvern frames for sale.", 2, 0),
        (
            482,
            1,
            "Fuel tap dripping",
            "This post of mine names my address in Zanzibarweg.",
            1,
            1_712_000_000,
        ),
    ]
    for topic, place, title, text, visibility, deleted in hidden:
        topics.append((topic, place, title, 3, 1_710_000_000, 5, 0, 0, visibility))
        posts.append(
            (
                number,
                topic,
                place,
                4,
                "198.51.100.4",
                1_710_000_000,
                title,
                text,
                "3k8x1q",
                f"{number:032x}",
                deleted,
                "own wish" if deleted else "",
            )
        )
        number += 1
    return {
        "frm_forums": [
            (n, 0, name, fill.text(1), "", 0)
            for n, name in enumerate(["Engine", "Chassis", "Travel", "Market"], 1)
        ]
        + [(9, 0, "Moderators", "Internal talk of the team", "", 1)],
        "frm_topics": topics,
        "frm_posts": posts,
        "frm_users": [
            (
                n,
                f"rider{n}",
                f"$2y$10$abcdefghijklmnopqrstuu{n}Z5pQxkV1Wc7aBcDeFgHiJkLmNoPqRs",
                f"rider{n}@example.org",
                "1970-01-01",
                "Ride safe",
                f"deadbeefsalt{n}",
                f"ACT{n}KEYZZ",
            )
            for n in range(1, 9)
        ],
        "frm_privmsgs": [
            (1, 1, "u_2", "Meeting", "Let us meet at the ostrich farm, nobody else should know.")
        ]
        + [(n, n % 8 + 1, "u_3", "About your offer", fill.text(2)) for n in range(2, 40)],
        "frm_sessions": [
            (f"5e551011{n:024x}", n % 8, "198.51.100.4", "Mozilla/5.0 Firefox")
            for n in range(1, 60)
        ],
        "frm_search_wordlist": [
            (n, word, 3)
            for n, word in enumerate(sorted({w for row in posts for w in row[7].split()}), 1)
        ],
        "frm_config": [
            ("smtp_pass", "m41lpa55"),
            ("sitename", "Old twins forum"),
            ("rand_seed", "0f1e2d3c4b5a69788796a5b4c3d2e1f0"),
        ],
        "frm_log": [
            (n, 1, "198.51.100.4", "LOG_POST_EDITED", f'a:1:{{i:0;s:{len(t)}:"{t}";}}')
            for n, t in enumerate([fill.text(1) for _ in range(150)], 1)
        ],
        "frm_smilies": [(1, ":)", "Smile", "smile.gif")],
    }


SAMPLE = Sample(
    tables=tables("forum"),
    rows=_rows(),
    questions=[
        Question("engine dies when warm, pickup coil gap", "frm_topics", "401", "0.7 mm"),
        Question("bike does not start hot", "frm_topics", "401", "20 minutes"),
        Question("oil for wet clutch", "frm_topics", "402", "friction modifiers"),
        Question("clonk when braking", "frm_topics", "403", "22 Nm"),
        Question("numb hands from vibration", "frm_topics", "404", "vacuum gauges"),
        Question("current drawn at rest flattens battery", "frm_topics", "405", "diode leaks"),
        Question("how to carry tent poles", "frm_topics", "406", "drain pipe"),
        Question("clean rust from fuel tank with molasses", "frm_topics", "407", "handful of nuts"),
        Question("length of stainless spokes", "frm_topics", "408", "157 long"),
        Question("torque of the steering head nut", "frm_topics", "403", "22 Nm"),
        Question("carburettor synchronisation", "frm_topics", "404", "vacuum gauges"),
    ],
    hidden={
        "quokka": "members who threaten others",
        "wyvern": "stolen frames for sale",
        "Zanzibarweg": "fuel tap dripping address",
        "ostrich": "where do we meet",
    },
    secrets=[
        "$2y$10$abcdefgh",
        "deadbeefsalt",
        "KEYZZ",
        "5e551011",
        "m41lpa55",
        "0f1e2d3c4b5a6978",
    ],
    private=["rider1@example.org", "198.51.100.4"],
)
