"""The words by which `init` judges names of tables and columns, and values that say who may see a row.

Names are compared in small letters, word by word, tables in the singular. A comment says where words were met.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _ordered(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# --- What columns are called ---

# The last words of columns that say what a row is called, best first. `subject`: Redmine; `header`: TYPO3;
# `fullname`: Moodle.
TITLES = _ordered("""
    title subject headline heading name caption label topic question summary header term concept fullname
    displayname
""")
# Columns with what a person wrote over a text, which says something without it.
SUBJECTS = ("subject", "headline")
# Columns that are what a row is called, though many may have the same, or a number.
WHOLE_TITLES = ("title", *SUBJECTS)
# The last words of columns with texts. `bodytext`, `teaser`: TYPO3; `excerpt`: WordPress; `intro`: Moodle; `notes`:
# Redmine; `text`: Trac, MediaWiki; `summary`: Mantis; `desc`: Bugzilla; `body`: Stack Exchange.
PROSE = _words("""
    abstract answer article bio biography body bodytext comment content contents description details desc detail
    diagnosis excerpt explanation finding findings html instructions intro introduction lead message note notes
    observation question reason remark remarks resolution review solution statement story summary synopsis teaser
    text transcript
""")
# The last words of columns that people know a row by. `sku`, `ean`: OpenCart; `isbn`: Calibre; `reference`:
# PrestaShop; `number`: osTicket.
CODES = _words("sku ean isbn code number no nr ref reference symbol ticker article barcode identifier")
# Words of columns with data about persons. `address1`, `postcode`: PrestaShop; `bic`: Odoo; `ip`: phpBB; `birthdate`:
# OpenMRS; `fax`: OpenCart.
PERSONAL = _words("""
    ip ssn iban bic birthday birthdate birth dob passport insurance salary gender sex latitude longitude lat lng card
""")
# Words of columns with where a person, or a company, is found.
ADDRESSES = _words("street address address1 address2")
# Words of columns with how they are reached.
CONTACT = ADDRESSES | _words("""
    email mail emails phone telephone tel mobile cell fax pager zip zipcode postcode postal whatsapp skype
""")
PERSONAL |= CONTACT
# What companies and places are called, whose addresses anybody may read.
ORGANISATIONS = _words("""
    company organisation organization supplier vendor manufacturer office store branch venue location warehouse hotel
    restaurant school hospital clinic library museum station airport site
""")
# Words of columns with the names of files, which people read if they are made of words.
FILES = _words("file filename path")
# Words of columns, types and values for few eyes. `staff`: osTicket; `whisper`: Discourse; `manager`: Kanboard.
INTERNAL = _words("""
    internal nonpublic private hidden confidential secret restricted classified sealed backoffice admin administrator
    manager staff moderator agents whisper direct
""")
# Words of columns that programs read. `lft`, `rgt`: Redmine; `sha1`: MediaWiki; `bitfield`: phpBB; `filtered`,
# `guid`: WordPress; `rewrite`: PrestaShop.
MACHINE = _words("""
    guid uuid uid path url uri href file filename mime mimetype agent useragent browser checksum md5 sha1 etag slug
    permalink referer referrer class template theme color colour icon lft rgt depth level hash crc filtered vector
    tsv searchable normalized sortkey query sql rewrite encoding charset timezone bitfield
""")
# Words of columns whose JSON is for programs. `params`: Joomla.
SETTINGS = _words("""
    settings config configuration options params preferences meta metadata payload session state data args
""")
# Words of columns whose JSON says what a thing is like, in however few words.
ATTRIBUTES = _words("attribute property spec feature characteristic translation name title")


# --- How columns name rows ---

# Words of columns with keys. `ptr`: Django; `uid`: TYPO3.
KEY_WORDS = _words("id ids key no nr number code uuid guid fk ptr ref pk oid")
# What tables with a row for each language are called.
LANGUAGES = _words("lang language locale")
# The last words of columns that say of which table a row is that the column beside names. `doctype`: ERPNext;
# `model`: Odoo; `module`: SuiteCRM.
TYPE_WORDS = _words("type types class module model kind entity table object doctype")
# Words of columns that name the version that counts. `latest`: MediaWiki, Wagtail; `live`: Wagtail.
OUT = _words("current live published active")
POINTERS = OUT | _words("latest head newest")
ENDS = _words("first last")
# What tables are called that hold the versions, or the text, of another one's rows, the likeliest first. `revision`,
# `text`: MediaWiki; `content`: Confluence.
VERSIONS = _ordered("revision version content text body blob")
# Words of columns that name a row, but not of which table. `pid`: TYPO3; `node`: Drupal; `res`: Odoo; `regarding`:
# Dynamics.
GENERIC = _words("""
    pid parent owner item record entity object node ref foreign source target rel related about regarding res
    resource
""")
# Words of columns that name a person, whatever the table of persons is called.
WRITERS = _words("owner author creator assignee reporter editor sender poster writer actor user recipient tagger")
BUYERS = _words("customer client buyer")
# Words of columns with numbers that count or order. `sorting`: TYPO3; `views`: phpBB; `highest`: Discourse; `rev`:
# Trac.
NUMBERS = _words("""
    version revision rev position sequence sort sorting order rank level depth count total quantity amount score
    points limit max min highest size length width height hours minutes days percent ratio interval timeout year
    month day hour minute status priority views visibility
""")
# Nouns of tables whose rows contain those of the same table. `page`: Wagtail; `board`: SMF; `space`: Confluence;
# `channel`: Mattermost; `chapter`: BookStack.
CONTAINERS = _words("""
    page folder category forum board section space directory project collection node department notebook chapter
    area channel
""")
# Words of columns that name a row of the same table. `root`: Redmine; `original`: Mattermost; `reply`: Discourse.
PARENTS = _words("parent reply original root")
TABLE_WORDS = ("table", "tbl")


# --- What tables are called ---

# Nouns of tables that programs need; rows prove it too seldom. `acl`: phpBB; `redirect`: TYPO3.
MACHINERY = _words("""
    cache migration queue audit token setting config configuration preference permission acl trigram captcha
    cron nonce outbox sequence changelog oauth credential hook webhook emoji smiley metum meta lock temp tmp backup
    staging sitemap redirect telemetry authentication spam pref prefs grant privilege capability lease consent watcher
    throttle blacklist banlist trail django
""")
MACHINE_NOUN = re.compile(
    r"\w*cach\w*|(?!\w*research)\w+search|index_?entry|\w*log_?entry|(?:event|audit|access|error|sys)?logging|search_?\w+|\w*fulltext|queued\w+|cron\w+|recent_?changes?|\w{3,}session|\w{3,}token|archive"
)
# Nouns that say so together. Mails that an application sent hold links to new passwords: `email_log`.
MACHINE_PAIRS = {"index": {"search", "entry"}, "log": {"mail", "email", "sms"}}
# Words of tables that may hold texts of others once more. `search_dataset`: Drupal; `searchindex`: MediaWiki.
SEARCHES = _words("search searchindex index fulltext")
# Nouns of tables that are seldom looked for. `cart`, `history`: OpenCart; `vote`: Stack Exchange; `menu`: Joomla.
DOUBTFUL = _words("""
    log job option role device history schedule revision version notification search import export subscription vote
    like favorite favourite counter stat statistic metric event_log activity_log plugin module widget menu template
    variable param parameter feature_flag address cart basket
""")
# Nouns of tables for few eyes. `privmsgs`: phpBB; `reminder`: GLPI; `draft`: osTicket; `recyclebin`: XWiki.
PRIVATE = re.compile(r"privmsgs?|(?:private|personal|direct)message|pm|dm|reminder|notepad|draft|trash|\w*recyclebin")
# Nouns of tables of persons, the likeliest first. `employee`: Northwind; `patient`: OpenMRS.
PEOPLE = _ordered("""
    user people person staff member employee login operator agent admin customer patient subscriber participant
    account
""")
# Those without companies among their rows.
PERSONS = {*PEOPLE, *_words("student client tenant resident guest member donor pupil")} - {"customer", "account"}
# Nouns of tables whose rows belong to a row of another one. `journal`: Redmine; `followup`: GLPI; `obs`: OpenMRS;
# `paragraph`: Drupal; `communication`: ERPNext.
PARTS = _words("""
    comment remark reply answer review rating feedback translation i18n line item detail section block paragraph
    element text body content journal note response step ingredient followup caption tag alias synonym description
    attribute property spec faq annotation observation obs finding diagnosis communication
""")
# Nouns of tables whose rows are parts of some tables alone.
PAIRS = {
    "post": frozenset(["topic", "thread", "discussion"]),
    "message": frozenset(
        ["topic", "thread", "conversation", "ticket", "case", "issue", "chat", "request", "enquiry", "inquiry"]
    ),
    "email": frozenset(["ticket", "case", "thread", "conversation", "request"]),
    "article": frozenset(["ticket", "case"]),
    "entry": frozenset(["ticket", "case", "thread", "conversation", "request"]),
    "activity": frozenset(["ticket", "case", "request", "deal", "lead"]),
    "option": frozenset(["product", "question"]),
}
# What a table of documents may be called, though others of that name hold parts.
MAIN = _words("item content entry section element")
COMPLAINTS = ("report", "flag", "complaint")
# Nouns of tables of what people say and others may report to moderators.
MESSAGES = _words("post comment message topic note reply remark")
# The last nouns of tables with what rows of another table were once.
OLD_VERSIONS = _words("version revision history archive backup draft snapshot")
# Words of tables that hold what the rows of another one were, too.
VERSIONED = ("revision", "version")
FIRST_NAMES = ("first_name", "firstname", "given_name")
LAST_NAMES = ("last_name", "lastname", "surname", "family_name")
SUMMARIES = ("summary", "short_desc", "short_description")
PASSWORDS = _words("password passwd pass pwd hash salt")
# Words of columns that tables of accounts have, beside a password.
LOGINS = _words("email mail login username user")
LOGIN_NAMES = _words("login username userid nickname nick")
# Last words of columns of people who log in. `validation_code`: SMF; `encrypted_otp_secret_iv`: GitLab.
OF_ACCOUNTS = _words("code key iv hash token remember question answer otp seed")
SETTING_NAMES = _words("name key option property setting parameter")
# Last words of columns by which programs know a row. `machine_name`, `module`: Drupal; `code`: OpenCart.
PROGRAM_NAMES = _words("name key code id identifier type")
# Words of columns whose labels say little about what a row is about. `tracker`: Redmine; `severity`: Mantis.
STATE_LABELS = _words("""
    status state priority severity type kind stage tracker currency unit country language locale gender
""")
KINDS = STATE_LABELS | {"role", "class", "datatype", "source", "level", "group", "method", "setting", "tag", "label"}
# The last nouns of tables whose rows are kinds of those of other tables: people look for these.
KINDS_OF_ROWS = KINDS - _words("country gender source level method setting tag label")
# Words of columns that say how far a person has read a conversation.
READ = _words("read unread seen unseen muted")
# Names of columns that say which person wrote to which.
CORRESPONDENT = re.compile(r"user_?(?:id)?_?(?:from|to)|(?:from|to)_?user(?:_?id)?|(?:to|recipient|receiver)_?id", re.I)


# --- Who may see a row ---

# Words of columns that say that a row was deleted, or when. `deleted`: Moodle, Discourse.
DELETED = _words("deleted delete deletion removed trashed discarded hidden withdrawn retracted superseded trash")
# Words of columns that say of a row that it is not for everybody. `voided`, `retired`: OpenMRS; `redirect`:
# MediaWiki; `private`: Redmine; `priv`: Dolibarr.
HIDDEN_FLAGS = DELETED | _words("""
    private priv internal confidential hide spam draft sealed restricted blocked banned disabled suppressed
    classified sensitive unlisted obsolete embargoed secret redacted inactive personal void voided quarantined system
    retire retired redirect erroneous erroneously offline held hold queued expired deactivated template
""")
# Words of columns that say of a row that it may be seen, or is the one that counts. `approved`: WordPress;
# `validate`: PrestaShop; `valid`: OTRS; `public`: Redmine.
SHOWN_FLAGS = _words("""
    public published publish active enabled approved visible visibility live current latest released online shown
    is_public valid validate validated moderated pub
""")
# Words that say how a thing is sold or changed unless they are last: `online_only`, `live_edit` (PrestaShop).
IN_PLACE = _words("live online")
QUALIFIED = _words("only edit editing chat payment mode support join write")
# What columns are called that say for which groups a row is. `fe_group`: TYPO3; `usergroup`: MyBB.
AUDIENCE = re.compile(r"(?:(?:user|fe|access|allowed|view|visible|member)_?)?(?:groups?|roles)|(?:role|group)_?level")
# Words of columns with numbers that say when, why or how often, and not whether.
NO_FLAGS = _words("count by at on time date number id reason revision version")
TIME_ENDS = _words("at on time date timestamp")
# Words of times that are empty for drafts. `published`: Ghost.
PUBLISHED_TIMES = _words("published publish publication released approved post posted")
UNPUBLISHED_TIMES = ("archived", "unpublished", "retired", "depublished")
# Last words of columns with states. `moderation`: Drupal; `access`: Joomla; `statut`: SPIP.
STATES = _words("""
    status state visibility workflow stage moderation access scope privacy audience verification policy statut estado
    stato zustand sichtbarkeit
""")
# What states are called, in a table of their own, of what few may see.
STATES_FOR_FEW = _words("deleted trashed trash removed spam draft unpublished hidden private internal quarantined")
# Values of what is out. `publish`: WordPress; `publie`: SPIP.
PUBLISHED_VALUES = _words("""
    publish published public live visible everyone anyone all world online released publie publié publiée veröffentlicht
    veroeffentlicht publicado publicada pubblicato pubblicata gepubliceerd
""")
# Values of what a moderator let pass. `approved`: WordPress.
MODERATED_VALUES = _words("approved accepted active enabled")
# Values of a column that says how a moderator decided. `hold`: WordPress.
MODERATION = _words("""
    approved accepted rejected refused declined denied disapproved archived pending new waiting hold flagged
    offensive spam unapproved trash
""") | {"not approved"}
# Values of what is not for everybody. `auto-draft`, `inherit`: WordPress; `entered-in-error`: FHIR.
HIDDEN_VALUES = STATES_FOR_FEW | _words("""
    drafts auto-draft autosave inherit withdrawn confidential secret future scheduled redacted banned blocked embargoed
    embargo inactive disabled retracted obsolete superseded unapproved moderated in_review in-review entwurf gelöscht
    geloescht papierkorb intern brouillon borrador restricted voided void waiting denied hold expired entered-in-error
    historical outdated replaced discarded flagged offensive queued delayed poubelle corbeille refuse refusé papelera
    eliminado eliminada bozza cestino rascunho verborgen versteckt
""")
# Names of flags that say the same as these words.
FLAG_NAMES = {
    "private": re.compile(
        r"(?:\w+_)?(?:acl|(?:login|members|registered|subscribers|password|staff|admins?|moderators?|invite)_(?:required|only|protected))"
    ),
    "public": re.compile(
        r"(?:is_)?(?:viewable|most_recent|(?:display|show|shown)\w*_(?:customer|client|public|guest|everyone))"
    ),
}
# Names of flags that say it if most rows have them. `activity`: OpenEMR; `is_on_sale`: ECShop.
SHOWN_IF_MOST = re.compile(r"activity|(?:is_)?on_(?:sale|shelf)")
YES = _words("y yes t true 1 on j ja o oui s si")
NO = _words("n no f false 0 off nein non")
SUFFIX = r"(?:_(?:at|on|date|time|utc|gmt))*"
UNTIL = re.compile(
    r"(?:valid|effective|active|visible|available|publish(?:ed)?|show)_?(?:to|until|till|through|ends?|down)"
    + SUFFIX
    + r"|(?:expire[sd]?|expiry|expiration|superseded|discontinue|retract(?:ion)?|unpub(?:lish)?)_?(?:at|on|date|time)?"
)
STARTS = re.compile(
    r"(?:valid|effective|active|visible|available|publish(?:ed)?|show)_?(?:from|since|starts?|up)"
    + SUFFIX
    + r"|(?:embargo(?:ed)?|hidden)_?(?:until|till|to|ends?)|pub_?date|effective(?:_date)?"
    + r"|available_(?:date|on|at)|date_available"
)
BEGINS = re.compile(r"(?:time_?)?(?:starts?|begins?)_?(?:at|on|date|time)?")
# Names of times that say when a row is shown, unless most rows have a time to begin, as appointments do.
STOPS = re.compile(r"(?:time_?)?ends?_?(?:at|on|date|time)?")
# Names of numbers that are 0 for what all may see: else they name a workspace of drafts, or the only reader.
ALONE = re.compile(r"\w*(?:wsid|workspace)|private(?:\w*to|web)|visible_?to")
# Names of keys that drafts and former versions have, and few rows. `draftId`: Craft.
DRAFT_KEYS = re.compile(r"(?:draft|revision)_id")
# Words of flags that say where else a row is shown.
PLACES = _words("nav menu dashboard toc sitemap home homepage")
# What people work off: if it is not active, it is done.
TASKS = _ordered("task ticket issue case story bug request todo incident opportunity lead deal")
# Words of columns with the name of a row in an address: it is published.
SLUGS = _words("slug alias permalink")
# Words of columns that say of an entry of a history whether people were told.
NOTIFIED = _words("notify notified")
# Last words of columns, but for those of keys, that say who may see a row: for few if it differs from most.
SENSITIVITY = _words("""
    sensitivity confidentiality secrecy security access view viewlevel visibility privacy audience policy
""")
# Values beside `private` that say of a category, say, that it means who may see a row.
SHARED = _words("public shared workspace team everyone")
# The last words of the names of codes that may say who may see a row, which only the application knows.
CODED = ("type", "kind", "class", "status", "state")
# What a note among those who answer is called, by what an answer is. `correspond`: Request Tracker.
NOTES_BESIDE = {"reply": "note", "correspond": "comment"}
# The types of channels that all people, only some, or two can read: open, private, direct.
MESSENGER = ("O", "P", "D")
# Nouns of tables, and words of columns, whose types say what kind of content a row is: `post_type` of WordPress.
CONTENT = _words("""
    post message comment note page node content entry topic article document thread remark reply journal email activity
    communication channel msg
""")
# Words of types that are not for people. `revision`, `nav`, `attachment`, `oembed`, `css`, `changeset`, `trackback`:
# WordPress; `redirect`: MediaWiki.
BAD_TYPES = INTERNAL | _words("""
    revision autosave draft nav menu attachment template log system changeset oembed css redirect trackback pingback
    old archive archived bot
""")
# Words that say nothing beside these: a `draft version`, a `private message`, but no `draft beer`.
TYPE_FILLERS = CONTENT | _words("item version custom record type msg channel category")
# Tables with the rows that only those may see who log in, or know a password.
RESTRICTS = re.compile(r"\w*(?:view|read|access)_?restriction")
# Tables that say of rows of their own who may see or change them.
PERMITS = re.compile(r"\w*(?:page|entity|content|node|object|item|document|article|topic|space|book)_?permission")
GROUP_NOUNS = _words("group role usergroup")
# Names of forums, spaces and projects that are not for everybody.
INTERNAL_NAMES = re.compile(
    r".*\b(?:moderators?|moderation|staff (?:only|room|area)|internal|intern|private|confidential|admins? only|"
    r"administrators?|trash ?can|trash|recycle bin|papierkorb|hidden)\b.*",
    re.IGNORECASE,
)
# What a row of a tree is called that has what was thrown away below it. `trash`: ProcessWire.
BINS = re.compile(r"trash(?:ed|can)?|recycle[ _-]?bin|papierkorb|corbeille|papelera|cestino|lixeira|prullenbak", re.I)
# Words of columns that name a row of the same table that is not above this one.
COPIES = _words("alias copy translation source")


# --- What a document shows ---

USEFUL_NUMBERS = _words("""
    amount price total quantity points rating score priority year stock weight cost duration votes
""")
CREATED = _words("""
    create created creation date posted published submitted opened written ordered sent received added start time on
    at
""")
# Words of times at which a row itself was made, whatever it tells.
MADE = _words("created create creation added update")
CHANGED = _words("updated modified changed edited mtime lastmod")
# What columns are called that order parts. `ordering`: Joomla; `index`: Zotero.
ORDERS = _words("""
    position sort sorting sequence seq ordinal order rank line lineno line_no number no idx index ordering
""")
# Last words of columns with what a row has of what it is linked to, such as the weight of a product.
LINK_VALUES = ("value", "text")
# The same of a person who took part. `role`: Kodi.
PLAYED = ("role", "character", "job")
# Last words of columns with what a list names. `data`: ProcessWire.
LIST_VALUES = _words("data value target")
# Last words of tables with what rows of another one are called in each language.
TRANSLATIONS = _words("lang translation translations i18n")
