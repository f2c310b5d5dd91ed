"""Secrets within texts: what a run puts in their place, and what it leaves alone."""

import pytest

from rag_index.components.sources.secret_values import without_secrets
from tests.project import Project

MAIL = "Please click http://cod.example/newsletter.html?token=nl-e6dc078cedb4eb739fef7 to subscribe."
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9"
BASE64 = "MHcCAQEEIIGkG5mA7zBq0e1p4rW9xYtQ3uVnJ8sLdKfHc2oXyZbT"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (MAIL, "Please click http://cod.example/newsletter.html?token=[secret] to subscribe."),
        ("https://x.example/reset-password/a8f3kk2093jdkl2 now", "https://x.example/reset-password/[secret] now"),
        ("https://x.example/magic-link/a8f3kk2093jdkl2", "https://x.example/magic-link/[secret]"),
        ("https://x.example/password_reset/MQ/a8f3kk2093jdkl2", "https://x.example/password_reset/MQ/[secret]"),
        ("https://x.example/user/reset/1/1690000000/a8f3kk2093jdkl2", "https://x.example/user/reset/1/1690000000/[secret]"),
        ('{"api_key": "8f3kk2093jdkl2x9", "n": 1}', '{"api_key": "[secret]", "n": 1}'),
        (f"Sent {JWT} twice: {JWT}", "Sent [secret] twice: [secret]"),
        ("root:$6$rounds8x$abcdefghij:0", "root:[secret]:0"),
        ("use sk_live_4eC39HqLyjWDarjtT1zdp7dc.", "use [secret]."),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nkeep it", "[secret]\nkeep it"),
        (f"-----BEGIN EC PRIVATE KEY-----\n{BASE64}\n{BASE64}\nthat was it", "[secret]\nthat was it"),
        ("It starts with -----BEGIN CERTIFICATE-----. Then restart.", "It starts with [secret]. Then restart."),
        (f"root:$6$rounds=656000$saltsalt${BASE64}:0", "root:[secret]:0"),
        (f"root:$1$salt${BASE64}:0", "root:[secret]:0"),
        (f"eve scrypt:32768:8:1$salt${BASE64}", "eve [secret]"),
        (f"userPassword: {{SSHA}}{BASE64}", "userPassword: [secret]"),
        ("see postgresql://mill:S3cr3tWheel9@db/mill", "see postgresql://mill:[secret]@db/mill"),
        ("Server=db;User Id=sa;Password=Wheel123!x;", "Server=db;User Id=sa;Password=[secret];"),
        (f"Authorization: Bearer {BASE64}", "Authorization: Bearer [secret]"),
        (f"hooks: https://x.example/api/webhooks/4711/{BASE64}", "hooks: https://x.example/api/webhooks/4711/[secret]"),
        (f"$y$j9T$saltsalt${BASE64}, hf_{BASE64} and SG.{BASE64}", "[secret], [secret] and [secret]"),
    ],
)  # fmt: skip
def test_a_secret_within_a_text_is_masked(text, read):
    assert without_secrets(text) == read


@pytest.mark.parametrize(
    "text",
    [
        "see https://git.example/a/b/commit/3541c75fd24df42fbb68e549b16dfa90",
        "https://docs.example/document/d/1A2b3C4d5E6f7G8h9I0j/edit and ?keyword=iphone13promax12",
        "token: 2024-03-05T10:00:00, costs $2, $100 or ${price}, session: introduction-2024",
        "The password has 12 characters at least; the token is in the header. Password: $PASSWORD1 or {pass2word}",
        "Basic knowledge of sk-learn, npm_config_registry_url_2 and hf_transformers_cache_directory at http://a.b:80/c@d",
        "0123456789abcdef0123456789abcdef",
        "run task_test_runner, docs_test_suite and disk_live_data with highs_and_lows_of_the_day",
        "https://x.example/presets/commonmark.cpython-311.pyc and https://x.example/verification/ISO9001-2015.pdf",
        "https://shop.example/magic-mouse/MK2E3AM4A1234",
        "\\textbf{SHA}-256, $argon2 and $1$replacement cost $5$; glpat-token",
    ],
)
def test_what_nothing_names_as_a_secret_is_left_alone(text):
    assert without_secrets(text) == text


def test_a_run_masks_secrets_in_titles_texts_and_parts_unless_the_settings_say_otherwise(tmp_path):
    project = Project(tmp_path / "project")
    project.execute("CREATE TABLE mail (id INTEGER PRIMARY KEY, subject TEXT, body TEXT)")
    project.execute("CREATE TABLE answer (id INTEGER PRIMARY KEY, mail_id INT, body TEXT)")
    project.execute("INSERT INTO mail VALUES (1, 'Key sk_live_4eC39HqLyjWDarjtT1', ?)", MAIL)
    project.execute("INSERT INTO answer VALUES (1, 1, ?)", f"You wrote {MAIL}")
    settings = (
        '[source]\nurl = "sqlite:///source.db"\n[[indexes]]\nname = "mail"\ntable = "mail"\nkey = "id"\n'
        'title = "subject"\ntext = ["body"]\n{}[[indexes.parts]]\ntable = "answer"\non = "mail_id"\ntext = ["body"]\n'
    )
    project.write_settings(settings.format(""))
    project.cli("index", "mail")
    (hit,) = project.json("search", "subscribe", "--index", "mail")["hits"]
    assert "e6dc078cedb4eb739fef7" not in str(hit)
    assert "4eC39HqLyjWDarjtT1" not in str(hit)
    assert hit["title"] == "Key [secret]"
    project.write_settings(settings.format('not_secret = ["body"]\n'))
    project.cli("index", "mail")
    (hit,) = project.json("search", "subscribe", "--index", "mail")["hits"]
    assert str(hit).count("e6dc078cedb4eb739fef7") >= 1
