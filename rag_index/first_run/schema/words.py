"""Every word and number by which `init` decides, with its reason. Names are compared word by word, in small letters.

Values decide before names do: a word here only tells apart what values cannot, such as whether a yes hides a row.
"""

from __future__ import annotations

import re
from functools import lru_cache


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


@lru_cache(maxsize=20_000)
def words(name: str) -> tuple[str, ...]:
    """Return the words of a name in small letters: `postTitle` and `post_title` are both post, title."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[\W_]+", " ", name)
    return tuple(spaced.lower().split()) or (name.lower(),)


@lru_cache(maxsize=20_000)
def singular(word: str) -> str:
    """Return the singular of an English noun, near enough to compare two."""
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if re.search(r"(?:ss|x|ch|sh|[^aeo]us)es$", word) and len(word) > 4:
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3 else word


# --- What columns hold ---

MIN_SENTENCES = 0.3
"""Text is prose if at least this share of its characters stands in runs of four words."""
MIN_PROSE_CHARS = 30
"""Shorter texts are names, even if they have four words."""
MAX_NAME_CHARS = 150
"""Longer texts are not the name of anything."""
MAX_CHOICES = 50
"""A column with at most this many values, each in several rows, is a choice that people filter by."""
MIN_SECRETS, MIN_PERSONAL = 0.2, 0.3
"""The share of values that makes a column secret, or personal: lower for secrets, since one shown is too many."""
TITLES = (
    "title", "subject", "headline", "heading", "name", "caption", "label", "topic", "question", "term", "summary",
    "displayname", "fullname", "titel", "betreff", "titre", "sujet", "nom", "titulo", "asunto", "nombre", "titolo",
    "oggetto", "nome", "onderwerp", "naam", "bezeichnung", "libelle",
)  # fmt: skip
"""Last words of columns that name a row, the surest first: among several short texts, values do not tell which."""
STRONG_TITLES = _words("title subject headline heading titel betreff titre sujet titulo asunto titolo onderwerp")
"""Names that stay names though they repeat: many rows may have one subject."""
FIRST_NAMES = ("first_name", "firstname", "given_name", "givenname", "forename", "vorname", "prenom")
LAST_NAMES = ("last_name", "lastname", "surname", "family_name", "familyname", "nachname")
"""A person is called by two columns together."""
PERSONAL = _words("""
    email mail emails phone telephone tel mobile cell fax ip iban bic ssn birthday birthdate birth dob passport
    salary wage payroll income gender sex latitude longitude lat lng zip zipcode postcode postal address street
    address1 address2 login username userid nickname health medical allergies allergy disability religion ethnicity
    insurance blood gehalt lohn geburtstag geburtsdatum krankheit telefon anschrift adresse strasse plz salaire
    naissance sueldo salario nacimiento stipendio bsn nin nif taxid
""")
"""Words of columns about a person that a stranger should not meet in a search."""
PLACES = _words("""
    zip zipcode postcode postal address street address1 address2 latitude longitude lat lng phone fax tel
""")
"""Those that anybody may read of a company or a place."""
ORGANISATIONS = _words("""
    company supplier vendor manufacturer office shop store branch venue location organization organisation warehouse
    hotel restaurant school hospital clinic library museum station site place
""")
PERSONS = _words("""
    user person people staff member employee login operator agent admin customer patient client student tenant guest
    donor applicant candidate contact subscriber participant passenger citizen teacher
""")
"""Nouns of tables of persons: what belongs to one is personal, and nobody's rows are hidden with the person."""
CUSTOMERS = _words("customer client patient student employee supplier vendor")
"""Nouns of persons and companies whom people look for, though they may log in."""
REMARKS = _words("""
    note remark comment memo annotation bemerkung notiz notizen anmerkung nota observacion observación observaciones
    comentario commentaire remarque opmerking commento osservazioni anotacion
""")
"""Words of texts that are said about a person, or to colleagues, by what stands before them."""
SAID = REMARKS | {*TITLES, "text", "body", "content", "description", "reason"}
"""Words of columns with what a row says."""
ABOUT_PERSONS = _words("""
    account staff internal private admin hr confidential personal secret agent moderator office recruiter
    interviewer hiring screening background credit support backoffice rejected rejection refusal denial dismissal
    termination ban banned
""")
WRITERS = _words("""
    author owner user creator writer poster sender reporter assignee assigned agent editor requester requestor by
    responsible customer submitter recipient approver reviewer handler manager
""")
"""Words of columns that name a person to whom a row belongs."""
MIME = _words("mime mimetype contenttype mediatype filetype")
"""Words of columns with the kind of the file beside them."""

# --- How much is enough: what a column is ---

MAX_CODE_CHARS = 24
"""Longer values without letters are no codes, but numbers that programs give."""
MIN_SAYING = 0.3
"""If fewer objects have any text, they are for programs."""
FORMATS_READ = 100
"""Values of a column whose format is found out."""

# --- How much is enough: what a table is ---

MIN_UNIX_SECONDS = 400_000_000
MIN_MINUTES, MIN_OWN_MINUTES = 3, 0.2
"""Rows that came in as many minutes, and such a share of them, were written one by one; others came together."""
MIN_USED, MIN_USED_ROWS = 0.3, 30
"""A list is used if others name this share of its rows, or so many of them."""
MIN_RANDOM_CHARS, MIN_RANDOM_DIGITS = 10, 8
"""Longer keys are random: nothing else has the same by chance."""
MAX_TEXTS = 10
"""More columns of text than these, prose first, say little."""
MAX_LABEL_CHARS = 20
"""Longer names are titles of things that others tell of."""
MAX_ROWS_OF_ONE = 30
"""A row with more rows below it, on average, contains documents: it is none of one piece."""
MAX_LABEL_ROWS = 50
"""A larger table of names is a list of things, and no label of others."""

# --- How much is enough: what belongs together ---

MIN_FOUND = 0.85
"""The share of a column's values that are keys of the table it names: others name rows that are gone."""
MIN_RANDOM_FOUND = 0.03
"""The same for random keys, of which one column may name rows of several tables."""
MIN_STEM = 3
"""The letters of a word that may be the beginning of what a table is called."""
MAX_TYPES = 20
"""A column with more values tells of no table."""

# --- How much is enough: what becomes of a table ---

MAX_STEPS = 2
"""Parts of parts stand in a document; what is below them is one of its own."""
MAX_PARTS = 10
"""Each is read by a query for each page of documents."""
LARGE = 0.2
"""A table with this share of all text is not left out for its name."""
PIECES, PIECE = 30, 30
"""How many texts of a copy are looked for, and how many of their letters."""
FEW_NAMED = 0.95
"""If fewer rows name one of a table, they hang on rows of several tables."""
MIN_ROWS = 3
"""Fewer rows prove nothing."""
LITTLE = 15
"""Rows that say less in sentences than this many characters have names alone."""
MIN_TOLD, MANY_TOLD = 2, 6
"""Rows that have a name and no prose are things if as many columns tell of them."""
PROSE, MIN_TEXTS = 100, 5
"""If no table has a few texts of this length, people look for what has a name in this database."""

# --- How much is enough: what is written ---

MAX_JOINS, MAX_PAYLOAD = 8, 12
"""More slow a query, or fill a page with facets."""
MAX_GRADES = 12
"""Numbers with at most this many values, such as priorities, are filtered by."""
MIN_NAMED = 0.05
"""What fewer rows name is not worth a join."""
SHORT = 40
"""Parts whose texts have fewer characters stand in the text of their document."""

# --- What tables are for ---

MACHINE = _words("""
    cache migration queue token session setting settings config configuration preference permission oauth audit cron
    lock redirect statistic stat counter hook trigger fulltext sequence schema changelog credential capability acl
    throttle nonce template syslog search
""")
"""Nouns of tables that programs need, whatever stands in them."""
DOUBTFUL = _words("log job version index import export history address")
"""Nouns that do so where no name and no prose speaks against it: people look for a job, and in the log of a ship."""
LOGS = re.compile(
    r"(?:sys|event|audit|access|error|change|mail|email|query|activity|admin|debug)logs?|watchdog|\w*searchindex"
)
"""Such nouns in one word, or two."""
BROUGHT = _words("""
    country zone state province region county city currency language locale timezone tax unit layout menu module
    extension plugin widget theme block route router url path status type kind role right group format field form
    option method carrier geo profile tab hook meta alias access schema attribute property element enumeration enum
    value option lookup constant parameter price snippet plugin keyword
""")
"""Nouns of lists of names that come filled with applications. They decide only where prose is what people look for."""
REPLIES = _words("""
    comment remark reply answer response message note review followup journal annotation translation kommentar
""")
"""Nouns of what people say about a row: it belongs to it, though it has a subject of its own."""
COPIES = tuple(
    _words("""
    version revision history archive backup snapshot autosave search index indexentry copy old
""")
)
"""Ends of nouns of tables with what other tables have, too: their texts have to prove it."""
POINTERS = _words("first last latest newest head current live")
"""Words of columns that name one of the rows that belong to this one."""
VERSIONS = _words("version revision edition draft snapshot")
"""Nouns of states of a row of another table, which may point to the one that holds."""
FORMER = _words("past old older former previous prior")
"""Words of columns that name a version that holds no more."""
AWAY = _words("archive trash deleted bin backup old")
"""Nouns of tables with rows that were taken out of another one, whose rows have the same name of a title."""
FREE_ID = _words("id handle guid uuid key name uid")
"""Last words of a column whose table a type beside it tells."""
GENERIC = _words("""
    parent owner item record entity object node ref rel related about regarding res resource target
""")
"""Words of columns that name a row, but not of which table."""
KEY_WORDS = _words("id ids fk no nr key uuid guid code number ref handle uid pk oid")
TYPE_WORDS = _words("type class model kind entity table doctype")
"""Last words of columns that say of which table the row is that the column beside names."""
CONTAINERS = _words("page folder category forum board section space directory project collection node chapter area")
"""Nouns of tables whose rows contain those of the same table, and of others by a column of the same name."""
PARENT_WORDS = _words("parent root pid reply original")
"""Words of columns that name a row of the same table."""
CODE_NAMES = _words("number no nr code reference ref ticket tn sku isbn key symbol identifier barcode nummer")
"""Words of columns by whose unique codes people know a row."""
NUMBERS_OF_ROWS = _words("number no nr nummer ticket reference")
"""The same of numbers."""
ORDERS = _words("position sort sorting order ordering rank number line sequence seq index idx page")
CHANGED = _words("updated modified changed edited update mtime lastmod")
STATE_LABELS = _words("status state priority severity type kind stage currency unit country language locale gender")
"""Words of columns whose labels people filter by, but which say little about what a row is about."""

# --- Who may see a row ---

FOR_FEW = _words("""
    private confidential secret internal restricted geheim vertraulich intern privat prive privé confidentiel privado
    privato vertrouwelijk
""")
"""Words of what few may see. A label that is called so hides what carries it."""
SURE = FOR_FEW | _words("""
    deleted trash trashed spam hidden draft drafts whisper redacted papierkorb entwurf brouillon corbeille borrador
    papelera bozza cestino rascunho lixeira prullenbak
""")
"""Words that say so as values, and as names of tables and labels, whatever the column is called."""
HIDE = SURE | _words("""
    personal priv erroneous erroneously delete removed hide hides banned void voided withdrawn revoked retracted sealed
    embargoed embargo quarantined suppressed suppress destroyed purged unlisted classified sensitive discarded exclude
    excluded noindex versteckt verborgen geloescht gelöscht gesperrt vernichtet entfernt borrado privée supprime
    supprimé caché cachée confidentielle poubelle interne masque masqué masquée privada eliminado eliminada oculto
    oculta reservado interno interna privata eliminato nascosto nascosta riservato riservata excluido excluído escondido
    verwijderd ocultar masquer verbergen nascondere esconder skjult slettet utkast dold raderad
""")
"""Words that say of a row that it is not for everybody."""
SHOW = _words("""
    public publish published visible visibility released listed advertised shown show display displayed searchable
    indexable indexed viewable öffentlich oeffentlich sichtbar veröffentlicht veroeffentlicht freigegeben publie
    publié publiee publiée publique publico público publicado pública publica publicada pubblico pubblica pubblicato
    publicar publier veröffentlichen veroeffentlichen pubblicare publiceren mostrar mostrare anzeigen afficher
    pubblicata visibile visivel visível openbaar gepubliceerd zichtbaar offentlig publicerad synlig
""")
"""Words that say of a row that it is for everybody."""
OFF = _words(
    "disabled inactive deactivated retired expired invalid offline obsolete deaktiviert inaktiv inactif inactivo"
)
ON = _words("""
    active enabled valid online live current latest validated approved moderated available sale aktiv actif activo
    attivo actief ativo gueltig gültig aktiviert
""")
"""Weaker words, of whether a thing is in use: they hide a minority alone, and nothing below it."""
NOT = _words("non not no never without dont nicht kein keine nie pas sin nao não niet geen ikke inte")
NEGATIONS = _words("non not un in dis de no nicht nao")
"""Words, and beginnings of words, that turn the others round: `not_visible`, `unpublished`, `nonpublic`."""
NEGATED_BY_IN = _words("visible visivel visibile valid active actif activo attivo")
"""What `in` negates: elsewhere it says where."""
ABOUT_ROWS = _words("""
    is are was be has been have as in on at by to for from of the a it this do does flag flagged mark marked status
    state web website site internet online portal page record row entry item soft all everyone everybody anyone
    world people search searches list listing index results guest guests customer customers only mode level longer
    any ist im al au zum en ne el la le les der die das fuer für pour para per voor wide can suche recherche
""")
"""Words beside them that do not say that the column is about something else than the row: `hide_from_search`."""
SEARCHED = _words("search searches searching index indexing robots list listing results suche recherche")
LETS_IN = _words("include included allow allowed")
"""What a row is left out of, or let into, if nothing else says so: `no_index`."""
VERBS = _words("show display hide shows displays hides")
PLACES_OF_LINKS = _words("""
    nav menu navigation dashboard toc sitemap home homepage breadcrumb footer sidebar feed slider
""")
"""Words of flags that say where a row is linked: in no menu, it may be seen all the same."""
PUBLIC = SHOW - _words("visible visibility viewable searchable indexable indexed listed show shown display displayed")
"""Words that hide all rows if none has a yes: others say where a row is shown, and may be of nobody's use."""
FEW_READERS = re.compile(
    r"(?:is_|visible_(?:to|for)_|for_)*(?:(?:staff|admins?|members?|registered|login|moderators?|employees|team|invite"
    r"|password|subscribers?|me)_?only|only_?(?:for_?)?(?:staff|admins?|members?|me|team)"
    r"|(?:login|members?|password|registration|auth(?:entication)?|invite)_(?:required|protected)"
    r"|requires?_(?:login|auth|authentication|password)|invite_only)"
)
"""Names of flags that say who alone may read a row."""
NO_FLAGS = _words("count number reason revision version total level")
"""Last words of columns that say how often, how far or why."""
STATES = _words("""
    status state visibility workflow stage moderation access scope privacy audience policy statut estado stato
    zustand sichtbarkeit class classification confidentiality sensitivity secrecy security sharing share acl
    publication verification approved published
""")
"""Last words of columns whose values say who may see a row, or how far the work on it has come."""
SWITCHES = _words("status state statut estado stato zustand")
"""Names of columns that switch a row off if they hold 0 and 1 alone."""
WORK = _words("""
    ticket task todo job order request issue incident case project milestone invoice payment delivery booking claim
    report complaint lead inquiry
""")
"""Nouns of what people work on: there it says how far they are."""
SECRECY = _words("visibility privacy access confidentiality sensitivity secrecy viewlevel sichtbarkeit vertraulichkeit")
"""Those that say nothing but who may see it: values that are not understood hide all rows but the majority."""
CODED_SECRECY = SECRECY | _words("classification security policy")
"""The same of numbers."""
BETWEEN_PERSONS = _words("direct dm im mpim one2one oneonone personal")
CONVERSATIONS = _words("channel conversation room chat message thread group dialog dialogue")
ONE_SAYS = _words("message thread")
"""Kinds of conversations between a few persons, what these are called, and those whose kind says what is in them."""
PUBLIC_VALUES = SHOW - _words("listed released indexed") | _words("everyone everybody anyone all world")
HIDDEN_VALUES = HIDE | _words("""
    auto-draft autosave inherit future scheduled unapproved obsolete superseded outdated entered-in-error disapproved
    revision refuse prepa concept
""")
"""Values of what is for everybody, or is not, as a whole or with words that say nothing. `inherit`: an old version."""
MODERATION = _words("""
    approved accepted rejected refused declined denied disapproved pending spam trash unapproved flagged hold held
    waiting new offensive unmoderated
""")
LET = _words("approved accepted")
"""If a column of what people write has only these values, a moderator decides: what was not let pass is hidden."""
KINDS = _words("type kind mode level folder mailbox")
"""Last words of columns whose values say surely of which kind a row is."""
TIME_ENDS = _words("at on date time timestamp by utc gmt")
PUBLISHED_TIMES = _words("published publish publication released release approved pub")
"""Words of times that are empty for drafts, and to come for what is not out yet."""
UNTIL = re.compile(
    r"(?:valid|effective|active|visible|available|publish(?:ed)?|show|display)_?(?:to|until|till|through|ends?|down)\w*"
    r"|(?:expire[sd]?|expiry|expiration|discontinued?|unpublish(?:ed)?)(?:_?(?:at|on|date|time))?|gueltig_bis"
)
FROM = re.compile(
    r"(?:valid|effective|active|visible|available|publish(?:ed)?|show|display)_?(?:from|since|starts?|up)\w*"
    r"|(?:publish(?:ed)?|embargo(?:ed)?|hidden|release|pub)_(?:until|till|to|at|on|date|time)|embargo(?:_ends?)?|gueltig_ab"
)
"""Names of times between which a row may be seen."""
NUMBERS = re.compile(r"-?\d+(?:,-?\d+)*")
"""A list of the groups that may read a row; `0` or nothing if all may."""
YES = _words("y yes t true 1 -1 on j ja oui o si s sí sim wahr vrai")
NO = _words("n no f false 0 off nein non nee falsch faux")
HALF, FEW = 0.5, 0.3
"""A doubtful word does not hide most rows; a column that is set says so of few."""
VOCABULARY = 3
"""Tables whose rows name another one by several columns each, if its rows are values and not what others belong to."""
MAX_PASSWORDS = 0.2
"""If more rows have a password, it is that of an account."""
MAX_STATES, MAX_STATE_CHARS = 30, 40
"""A column with more values, or longer ones, says no state."""
MAX_CODE, MAX_LEVELS = 2, 8
"""Characters of a code (O for an open channel, P for a private one), and values of levels of secrecy."""
BETWEEN = re.compile(r"(?:priv(?:ate)?|direct|personal)_?(?:msg|message|mail)s?|[pd]ms?|recycle_?bin")
"""What tables of what persons wrote to each other are called."""
MAX_LINK_COLUMNS = 8
"""A table of links to labels has no more."""
LISTS = FOR_FEW | _words("restriction hidden embargo embargoed unlisted nonpublic")
"""Words of tables that list rows of another one which few may see."""
CONTENT = _words("""
    post message comment note page node content entry topic article document thread remark reply journal email item
    record row version msg type only mode list review rating feedback group channel room folder label tag
""")
"""What people write, and words that say nothing beside a hidden value: a `private message`, but no `draft beer`."""
KEY_NAMES = _words("name key property attribute option setting field param slot variable meta")
VALUE_NAMES = _words("value val data content text string")
"""Last words of the columns of a table that has names with values."""
