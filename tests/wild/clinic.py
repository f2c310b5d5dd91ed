"""Clinical notes: composite keys, versions of which the newest counts, sections as lines, codes in tables of their own."""

from __future__ import annotations

from tests.wild.sample import Filler, Question, Sample

TABLES = """
CREATE TABLE "Patient" ("PatID" VARCHAR(12) PRIMARY KEY, "Name" VARCHAR(80), "BirthDate" DATE, "Sex" CHAR(1), "Insurance No" VARCHAR(30));
CREATE TABLE "Ward" ("WardCode" VARCHAR(6) PRIMARY KEY, "WardName" VARCHAR(60));
CREATE TABLE "Encounter" ("PatID" VARCHAR(12), "EncNo" INTEGER, "WardCode" VARCHAR(6), "Admitted" DATETIME, "Discharged" DATETIME,
    "Reason" VARCHAR(200), PRIMARY KEY ("PatID", "EncNo"));
CREATE TABLE "Note" ("PatID" VARCHAR(12), "EncNo" INTEGER, "NoteNo" INTEGER, "Version" INTEGER, "NoteType" VARCHAR(20), "Heading" VARCHAR(120),
    "Body" TEXT, "Author" VARCHAR(30), "Written" DATETIME, "Sealed" CHAR(1) NOT NULL, PRIMARY KEY ("PatID", "EncNo", "NoteNo", "Version"));
CREATE TABLE "NoteLine" ("PatID" VARCHAR(12), "EncNo" INTEGER, "NoteNo" INTEGER, "Version" INTEGER, "LineNo" INTEGER, "Text" TEXT,
    PRIMARY KEY ("PatID", "EncNo", "NoteNo", "Version", "LineNo"));
CREATE TABLE "Diagnosis" ("PatID" VARCHAR(12), "EncNo" INTEGER, "Seq" INTEGER, "Code" VARCHAR(8), PRIMARY KEY ("PatID", "EncNo", "Seq"));
CREATE TABLE "DiagnosisCode" ("Code" VARCHAR(8) PRIMARY KEY, "Label" VARCHAR(200));
CREATE TABLE "Staff" ("Login" VARCHAR(30) PRIMARY KEY, "FullName" VARCHAR(80), "Pwd" VARCHAR(64), "PIN" VARCHAR(8), "Pager" VARCHAR(20));
CREATE TABLE "AuditTrail" ("AuditID" INTEGER PRIMARY KEY, "Login" VARCHAR(30), "At" DATETIME, "What" TEXT);
CREATE TABLE "Guideline" ("GuidelineID" INTEGER PRIMARY KEY, "Title" VARCHAR(200), "Content" BLOB, "Valid" DATE);
"""
fill = Filler(
    16,
    "blood pressure|wound|left knee|appetite|night sleep|temperature|cough|gait|skin|mood",
    "was checked|has improved|remains unchanged|was discussed with the family|needs another look|is within limits",
    "during the morning round|before physiotherapy|on day three|after the change of medication|without complaints",
)
FACTS = [  # patient, encounter, note, heading, old line, lines of the newest version
    ("P0901", 1, 1, "Discharge summary", "Suspected gout.", ["Admitted with swollen ankle.", "Crystals negative; it was a stress fracture of the second metatarsal."]),
    ("P0902", 1, 1, "Allergy", "No allergies.", ["Rash after amoxicillin in 2019.", "Tolerates clindamycin."]),
    ("P0903", 2, 1, "Neurology consult", "Migraine?", ["Zigzag lights for twenty minutes without headache.", "Aura without migraine; stop the pill containing oestrogen."]),
    ("P0904", 1, 3, "Operation note", "Planned.", ["Laparoscopic removal of the appendix.", "Appendix was retrocaecal, conversion was not necessary."]),
    ("P0905", 1, 1, "Nursing handover", "Quiet.", ["Refuses the bed rail.", "Likes the lamp on at night, otherwise gets disoriented."]),
    ("P0906", 1, 2, "Diet", "Normal food.", ["Thickened fluids only.", "Speech therapist found silent aspiration of water."]),
    ("P0907", 3, 1, "Anaesthesia", "Unremarkable.", ["Grandfather died under narcosis.", "Malignant hyperthermia suspected: trigger-free anaesthesia only."]),
    ("P0908", 1, 1, "Wound care", "Dry dressing.", ["Heel ulcer, size of a coin.", "Honey dressing every other day, offloading boot from orthopaedics."]),
]  # fmt: skip


def _rows() -> dict:
    patients, encounters, notes, lines, diagnoses = [], [], [], [], []
    for n in range(1, 61):
        pat = f"P{n:04d}"
        patients.append((pat, f"Patient {n}", "1950-02-03", "f" if n % 2 else "m", f"INS{n:07d}"))
        encounters.append((pat, 1, fill.pick(["CARD", "NEUR", "SURG"]), fill.time(), None, fill.title()))
        diagnoses.append((pat, 1, 1, fill.pick(["I10", "M25", "R05"])))
        for note in range(1, 4):
            notes.append((pat, 1, note, 1, "progress", fill.title(), None, "dr.kern", fill.time(), "N"))
            lines += [(pat, 1, note, 1, line, fill.text(1)) for line in range(1, 4)]
    for pat, enc, note, heading, old, new in FACTS:
        patients.append((pat, f"Patient {pat[1:]}", "1961-05-06", "f", f"INS9{pat[1:]}"))
        encounters.append((pat, enc, "SURG", fill.time(), fill.time(), heading))
        diagnoses.append((pat, enc, 1, "K35" if pat == "P0904" else "M25"))
        notes.append((pat, enc, note, 1, "summary", heading, None, "dr.kern", fill.time(), "N"))
        lines.append((pat, enc, note, 1, 1, old))
        notes.append((pat, enc, note, 2, "summary", heading, None, "dr.osei", fill.time(), "N"))
        lines += [(pat, enc, note, 2, n, text) for n, text in enumerate(new, 1)]
    notes.append(("P0001", 1, 9, 1, "progress", "Psychiatric evaluation", None, "dr.osei", fill.time(), "Y"))
    lines.append(("P0001", 1, 9, 1, 1, "Hears the voice of a walrus."))
    guide = "Before any transfusion two people compare bracelet and bag; start at 20 drops a minute."
    return {
        "Patient": patients, "Ward": [("CARD", "Cardiology"), ("NEUR", "Neurology"), ("SURG", "Surgery")],
        "Encounter": encounters, "Note": notes, "NoteLine": lines, "Diagnosis": diagnoses,
        "DiagnosisCode": [("I10", "Essential hypertension"), ("M25", "Joint disorder"), ("R05", "Cough"), ("K35", "Acute appendicitis")],
        "Staff": [(login, name, f"{login}:9f86d081884c7d659a2f", "4711", "0170 555") for login, name in
                  [("dr.kern", "Dr Kern"), ("dr.osei", "Dr Osei")]],
        "AuditTrail": [(n, "dr.kern", fill.time(), f"opened record P{n % 60:04d} from the terminal in the corridor") for n in range(1, 300)],
        "Guideline": [(1, "Transfusion", guide.encode("utf-8"), "2027-01-01"),
                      (2, "Händedesinfektion", "Dreißig Sekunden einreiben, Daumen nicht vergessen, Ärmel kürzen.".encode("cp1252"), "2027-01-01"),
                      (3, "Scan of the fire plan", bytes(range(256)) * 4, "2027-01-01")],
    }  # fmt: skip


SAMPLE = Sample(
    tables=TABLES,
    rows=_rows(),
    questions=[
        Question("stress fracture of a metatarsal instead of gout", "Note", '["P0901",1,1,2]', "second metatarsal"),
        Question("allergy amoxicillin rash", "Note", '["P0902",1,1,2]', "Tolerates clindamycin"),
        Question("zigzag lights without headache", "Note", '["P0903",2,1,2]', "oestrogen"),
        Question("retrocaecal appendix removal", "Note", '["P0904",1,3,2]', "conversion was not necessary"),
        Question("patient who wants a lamp at night", "Note", '["P0905",1,1,2]', "disoriented"),
        Question("silent aspiration thickened fluids", "Note", '["P0906",1,2,2]', "Speech therapist"),
        Question("malignant hyperthermia in the family", "Note", '["P0907",3,1,2]', "trigger-free"),
        Question("honey dressing for a heel ulcer", "Note", '["P0908",1,1,2]', "offloading boot"),
        Question("diet consult thickened", "Note", '["P0906",1,2,2]', "Thickened fluids"),
        Question("how fast to start a transfusion", "Guideline", "1", "20 drops"),
        Question("Daumen bei der Händedesinfektion", "Guideline", "2", "Dreißig Sekunden"),
    ],
    hidden={"walrus": "hears voices", "Suspected gout": "suspected gout", "No allergies": "no allergies"},
    secrets=["9f86d081884c7d659a2f", "4711"],
    private=["0170 555"],
    settings="""
[[indexes]]
name = "notes"
table = "Note"
key = ["PatID", "EncNo", "NoteNo"]
newest = "Version"
title = "Heading"
text = ["Heading", "Body"]
where = "\\"Sealed\\" = 'N'"
payload = ["NoteType", "Written"]
[[indexes.parts]]
table = "NoteLine"
on = {PatID = "PatID", EncNo = "EncNo", NoteNo = "NoteNo", Version = "Version"}
order_by = "LineNo"
text = ["Text"]

[[indexes]]
name = "guidelines"
table = "Guideline"
key = "GuidelineID"
title = "Title"
text = ["Title", "Content"]
format = {Content = "auto"}
""",
)
