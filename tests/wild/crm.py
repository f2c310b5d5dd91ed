"""A CRM of 196 tables, most of them empty or machinery: accounts, contacts, cases, notes by type and id, custom fields beside."""

from __future__ import annotations

import uuid

from tests.wild.sample import Filler, Question, Sample

MODULES = (
    "accounts",
    "contacts",
    "cases",
    "opportunities",
    "calls",
    "meetings",
    "notes",
    "leads",
    "bugs",
    "project",
    "campaigns",
    "documents",
)
COMMON = "date_entered DATETIME, date_modified DATETIME, modified_user_id CHAR(36), created_by CHAR(36), description TEXT, deleted SMALLINT NOT NULL, assigned_user_id CHAR(36)"
OWN = {
    "accounts": "name VARCHAR(150), account_type VARCHAR(50), industry VARCHAR(50), phone_office VARCHAR(100), website VARCHAR(255), billing_address_street VARCHAR(150), billing_address_city VARCHAR(100), parent_id CHAR(36)",
    "contacts": "first_name VARCHAR(100), last_name VARCHAR(100), title VARCHAR(100), department VARCHAR(255), phone_work VARCHAR(100), do_not_call SMALLINT",
    "cases": "name VARCHAR(255), case_number INTEGER, status VARCHAR(100), priority VARCHAR(100), resolution TEXT, work_log TEXT, account_id CHAR(36), internal SMALLINT NOT NULL",
    "notes": "name VARCHAR(255), filename VARCHAR(255), parent_type VARCHAR(255), parent_id CHAR(36), contact_id CHAR(36)",
    "calls": "name VARCHAR(50), duration_hours INTEGER, date_start DATETIME, status VARCHAR(100), parent_type VARCHAR(255), parent_id CHAR(36)",
    "opportunities": "name VARCHAR(50), amount DOUBLE, sales_stage VARCHAR(255), next_step VARCHAR(100), probability DOUBLE",
}
fill = Filler(
    25,
    "pump station|service contract|delivery of valves|price list|pilot line|spare part kit|training day|site survey|gasket set|control cabinet",
    "is on hold|was agreed|needs a signature|waits for budget|was postponed|goes well|is late",
    "until the fair|with their lawyer|in the second quarter|after the strike|at the Rotterdam plant|for the new owner",
)


def _tables() -> str:
    made = [
        f"CREATE TABLE {name} (id CHAR(36) PRIMARY KEY, {OWN.get(name, 'name VARCHAR(255), status VARCHAR(100)')}, {COMMON})"
        for name in MODULES
    ]
    made += [
        f"CREATE TABLE {name}_cstm (id_c CHAR(36) PRIMARY KEY, plant_c VARCHAR(255), remark_c TEXT)" for name in MODULES
    ]
    made += [
        f"CREATE TABLE {name}_audit (id CHAR(36) PRIMARY KEY, parent_id CHAR(36), date_created DATETIME, field_name VARCHAR(100), before_value_string VARCHAR(255), after_value_string VARCHAR(255), before_value_text TEXT)"
        for name in MODULES
    ]
    made += [
        f"CREATE TABLE {one}_{other} (id CHAR(36) PRIMARY KEY, {one}_id CHAR(36), {other}_id CHAR(36), date_modified DATETIME, deleted SMALLINT)"
        for n, one in enumerate(MODULES)
        for other in MODULES[n + 1 :]
    ]
    made += ["CREATE TABLE users (id CHAR(36) PRIMARY KEY, user_name VARCHAR(60), user_hash VARCHAR(255), first_name VARCHAR(30), last_name VARCHAR(30), title VARCHAR(50), phone_home VARCHAR(50), deleted SMALLINT)",
             "CREATE TABLE config (category VARCHAR(32), name VARCHAR(32), value TEXT)",
             "CREATE TABLE oauth2tokens (id CHAR(36) PRIMARY KEY, access_token VARCHAR(4000), client CHAR(36))",
             "CREATE TABLE outbound_email (id CHAR(36) PRIMARY KEY, name VARCHAR(50), mail_smtpuser VARCHAR(100), mail_smtppass VARCHAR(100))",
             "CREATE TABLE email_addresses (id CHAR(36) PRIMARY KEY, email_address VARCHAR(255), invalid_email SMALLINT, deleted SMALLINT)",
             "CREATE TABLE job_queue (id CHAR(36) PRIMARY KEY, name VARCHAR(255), message TEXT, status VARCHAR(20))",
             "CREATE TABLE tracker (id INTEGER PRIMARY KEY, item_id CHAR(36), item_summary VARCHAR(255), session_id CHAR(36), date_modified DATETIME)",
             "CREATE TABLE vcals (id CHAR(36) PRIMARY KEY, user_id CHAR(36), content TEXT)"]  # fmt: skip
    made += [
        f"CREATE TABLE custom_module_{n} (id CHAR(36) PRIMARY KEY, name VARCHAR(255), {COMMON})"
        for n in range(1, 196 - len(made) + 1)
    ]
    return ";".join(made)


def _id(*parts: object) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, "/".join(map(str, parts))))


CASES = [
    (
        "Seal leaks at 40 bar",
        "Water under pump 3.",
        "Replaced by the Viton version, the old one swells in diesel.",
        "Rotterdam hall 2",
    ),
    ("Display in wrong language", "It came up in Polish.", "Hold F2 and F7 while switching on.", "Gdansk"),
    ("Noise above 2,800 rpm", "", "Coupling was 0.4 mm out of line.", "Linz"),
    (
        "Invoice addressed to the old company",
        "They were bought last year.",
        "Credit note and new invoice went to the holding in Turku.",
        "Turku",
    ),
    ("Valve does not close", "Since cleaning.", "A cherry stone was stuck in the seat.", "Ghent cannery"),
]
ACCOUNTS = [
    ("Globex Canning", "Wants one supplier for everything; decision by the daughter of the founder."),
    ("Hydra Works", "Pays late but always pays."),
    ("Nordsee Fisch", "Only reachable before six in the morning."),
]
NOTES = [("Visit in March", "Accounts", "Globex Canning", "They still run two pumps from 1978 and want them kept."), ("Dinner", "Accounts", "Hydra Works", "Mrs Lim likes sailing; ask about the regatta."),
         ("Photo of the seat", "Cases", "Valve does not close", "The stone has the size of a pea.")]  # fmt: skip


def _rows() -> dict:
    def common(text: str | None, deleted: int = 0) -> tuple:
        return (fill.time(), fill.time(), _id("u", 1), _id("u", 1), text, deleted, _id("u", 2))

    accounts = [
        (
            _id("account", name),
            name,
            "Customer",
            "Food",
            "555-7001",
            "http://example.com",
            "Quay 1",
            "Ghent",
            None,
            *common(text),
        )
        for name, text in ACCOUNTS
    ]
    accounts += [
        (
            _id("account", n),
            f"Company {n}",
            fill.pick(["Customer", "Partner"]),
            "Food",
            "555-7002",
            "",
            "Street",
            "Lyon",
            None,
            *common(fill.text(1) if n % 2 else None),
        )
        for n in range(60)
    ]
    accounts.append(
        (
            _id("account", "gone"),
            "Peacock Ltd",
            "Customer",
            "Food",
            "",
            "",
            "",
            "",
            None,
            *common("Bankrupt, kingfisher deal.", 1),
        )
    )
    cases = [
        (
            _id("case", name),
            name,
            500 + n,
            "Closed",
            "P1",
            answer,
            None,
            _id("account", "Globex Canning"),
            0,
            *common(text),
        )
        for n, (name, text, answer, _) in enumerate(CASES)
    ]
    cases += [
        (
            _id("case", n),
            fill.title(),
            n,
            "New",
            "P2",
            fill.text(1) if n % 3 else None,
            None,
            _id("account", n % 60),
            0,
            *common(fill.text(2)),
        )
        for n in range(100)
    ]
    cases.append(
        (
            _id("case", "secret"),
            "Recall planned",
            900,
            "New",
            "P1",
            None,
            None,
            _id("account", 3),
            1,
            *common("Batch moose is unsafe."),
        )
    )
    parents = {"Accounts": "account", "Cases": "case"}
    notes = [
        (_id("note", name), name, None, kind, _id(parents[kind], parent), None, *common(text))
        for name, kind, parent, text in NOTES
    ]
    notes += [
        (
            _id("note", n),
            fill.title(),
            None,
            "Accounts" if n % 2 else "Cases",
            _id("account" if n % 2 else "case", n % 60),
            None,
            *common(fill.text(1)),
        )
        for n in range(80)
    ]
    notes.append(
        (
            _id("note", "gone"),
            "Old",
            None,
            "Accounts",
            _id("account", "Hydra Works"),
            None,
            *common("He drinks, says the flamenco teacher.", 1),
        )
    )
    contacts = [
        (_id("contact", n), fill.pick(["Ana", "Bo"]), f"Person{n}", "Buyer", "Purchasing", "555-3131", 0, *common(None))
        for n in range(40)
    ]
    contacts.append(
        (
            _id("contact", "x"),
            "Quirin",
            "Abel",
            "Plant manager",
            "Maintenance",
            "555-3132",
            0,
            *common("Prefers to be called after the early shift, knows the 1978 pumps by heart."),
        )
    )
    return {
        "accounts": accounts, "cases": cases, "notes": notes, "contacts": contacts,
        "cases_cstm": [(_id("case", name), plant, None) for name, _, _, plant in CASES] + [(_id("case", n), f"Plant {n}", None) for n in range(100)],
        "accounts_contacts": [(_id("ac", n), _id("account", n % 60), _id("contact", n), fill.time(), 0) for n in range(40)],
        "cases_audit": [(_id("au", n), _id("case", n % 100), fill.time(), "status", "New", "Closed", None) for n in range(200)],
        "opportunities": [(_id("o", n), fill.title()[:50], 1000.0 * n, fill.pick(["Prospecting", "Closed Won"]), "call them again", 10.0, *common(fill.text(2))) for n in range(50)]
        + [(_id("o", "ferry"), "Ballast pumps for the ferry", 120000.0, "Prospecting", "send drawings", 60.0, *common("The shipyard wants bronze impellers because of the cavitation."))],
        "calls": [(_id("k", n), fill.title()[:50], 0, fill.time(), "Held", "Accounts", _id("account", n % 60), *common(fill.text(1))) for n in range(50)],
        "users": [(_id("u", n), f"rep{n}", f"$1$oldmd5$zZ9yY8xX7wW6vV5u{n}", "Rep", f"No{n}", "Sales", "555-1", 0) for n in range(1, 6)],
        "config": [("smtp", "password", "c0nf1g-p455"), ("system", "name", "Our CRM")],
        "oauth2tokens": [(_id("t", n), f"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln{n}", _id("c", 1)) for n in range(30)],
        "outbound_email": [(_id("m", 1), "system", "mailer", "5mtp-p455w0rd")],
        "email_addresses": [(_id("e", n), f"person{n}@example.net", 0, 0) for n in range(40)],
        "job_queue": [(_id("j", n), "Prune the database on the first of the month", "done without any errors so far", "done") for n in range(60)],
        "tracker": [(n, _id("case", n % 100), "Somebody looked at this case", _id("s", n), fill.time()) for n in range(1, 200)],
    }  # fmt: skip


SAMPLE = Sample(
    tables=_tables(),
    rows=_rows(),
    questions=[
        Question("seal leaks diesel swells", "cases", _id("case", CASES[0][0]), "Viton"),
        Question("display came up in Polish", "cases", _id("case", CASES[1][0]), "F2 and F7"),
        Question("noise at high rpm coupling", "cases", _id("case", CASES[2][0]), "out of line"),
        Question("invoice went to the old company", "cases", _id("case", CASES[3][0]), "Credit note"),
        Question("valve does not close after cleaning", "cases", _id("case", CASES[4][0]), "cherry stone"),
        Question("case at the Ghent cannery", "cases", _id("case", CASES[4][0]), "Ghent cannery"),
        Question(
            "who decides at Globex Canning", "accounts", _id("account", "Globex Canning"), "daughter of the founder"
        ),
        Question(
            "customer with pumps from 1978 who wants them kept",
            "accounts",
            _id("account", "Globex Canning"),
            "two pumps from 1978",
        ),
        Question("Mrs Lim regatta sailing", "accounts", _id("account", "Hydra Works"), "sailing"),
        Question("when can Nordsee Fisch be reached", "accounts", _id("account", "Nordsee Fisch"), "before six"),
        Question("plant manager Quirin Abel", "contacts", _id("contact", "x"), "early shift"),
        Question("bronze impellers for the ferry", "opportunities", _id("o", "ferry"), "cavitation"),
        Question("how big was the stone in the valve", "cases", _id("case", CASES[4][0]), "size of a pea"),
    ],
    hidden={
        "kingfisher": "bankrupt customer deal",
        "moose": "recall planned for a batch",
        "flamenco": "what does the teacher say about drinking",
    },
    secrets=["$1$oldmd5$", "c0nf1g-p455", "eyJhbGciOiJSUzI1NiJ9", "5mtp-p455w0rd"],
    private=["person1@example.net", "555-7001", "555-3132"],
    settings="""
[[indexes]]
name = "cases"
table = "cases"
key = "id"
title = "name"
text = ["description", "resolution", "case_number", "account.name", "custom.plant_c"]
format = {case_number = "plain"}
where = "deleted = 0 AND internal = 0"
payload = ["status", "priority"]
[indexes.joins.account]
table = "accounts"
on = "account_id"
[indexes.joins.custom]
table = "cases_cstm"
on = {id_c = "id"}
[[indexes.parts]]
table = "notes"
on = "parent_id"
where = "parent_type = 'Cases' AND deleted = 0"
text = ["name", "description"]

[[indexes]]
name = "accounts"
table = "accounts"
key = "id"
title = "name"
text = ["description"]
where = "deleted = 0"
[[indexes.parts]]
table = "notes"
on = "parent_id"
where = "parent_type = 'Accounts' AND deleted = 0"
text = ["name", "description"]

[[indexes]]
name = "contacts"
table = "contacts"
key = "id"
title = "{first_name} {last_name}"
text = ["title", "department", "description"]
where = "deleted = 0"

[[indexes]]
name = "opportunities"
table = "opportunities"
key = "id"
title = "name"
text = ["description", "next_step"]
where = "deleted = 0"
""",
)
