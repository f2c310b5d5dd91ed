"""Words of the generated service desk: fillers for the slots, and phrases that people write around their subject.

All of it is made up: addresses are from ranges and domains that are reserved for examples.
"""

from __future__ import annotations

__all__ = [
    "AUTHORS",
    "CANNED",
    "CLOSINGS",
    "DISCLAIMERS",
    "EMOJI",
    "FOREIGN",
    "GENERIC",
    "GREETINGS",
    "POOLS",
    "TRACES",
]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _lines(text: str) -> tuple[str, ...]:
    return tuple(text.splitlines())


_FIRST = _words(
    "Anna Bert Carla Deniz Elif Farid Greta Henrik Ines Jörg Katarzyna Luca Marta Nils Olga Paul Quentin Rosa Søren"
    " Tomáš Ulrike Viktor Wendy Xenia Yusuf Zoë Aoife Björn Chiara Dimitra"
)
_LAST = _words(
    "Müller O'Brien Kowalska García Nguyen Papadopoulos Ivanova Schäfer Özdemir Andersson Rossi Novák Dubois Tanaka"
    " Almeida van-Dijk Smith Łukasik Hartmann Weiß Fernández Haddad Chen Petrov Lindqvist Brown Costa Meier Singh Kaya"
)
_APPS = _words(
    "Outlook Excel Teams SAP Citrix Jira Confluence AutoCAD Acrobat SharePoint Salesforce Tableau Firefox Chrome"
    " Photoshop MATLAB DATEV TimeTrack WarehouseOne LabBook PayRoll DocuFlow"
)
_DEPARTMENTS = _words(
    "Accounting Sales Purchasing Logistics Legal Marketing Research Production Quality Facilities Treasury Payroll"
)
_COMPANIES = _words("Acme Initech Globex Umbrella Hooli Vandelay Stark Wayne Tyrell Wonka Cyberdyne Soylent")
_SITES = ("ber", "muc", "lon", "par", "ath", "waw", "osa", "rio")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "the weekend", "the 1st", "month's end")
_FILES = ("budget", "forecast", "invoice", "minutes", "price_list", "Übersicht", "contract", "inventory", "roadmap")
_FAULTS = ("TIMEOUT", "ACCESS_DENIED", "OUT_OF_RANGE", "NOT_FOUND", "CONFLICT", "DISK_FULL", "BAD_STATE", "NO_ROUTE")
_PAGES = ("portal", "intranet", "wiki", "shop", "files", "hr", "tickets", "api", "login", "reports")

AUTHORS = tuple(f"{first} {last}" for last in _LAST for first in _FIRST)

POOLS: dict[str, tuple[str, ...]] = {
    "app": _APPS,
    "company": tuple(f"{name} {form}" for name in _COMPANIES for form in ("Ltd", "GmbH", "S.A.", "Inc.")),
    "dept": _DEPARTMENTS,
    "day": _DAYS,
    "error": tuple(f"0x8007{i * 2371 % 65536:04X}" for i in range(60))
    + tuple(f"{fault}_{i * 37 % 900 + 100}" for fault in _FAULTS for i in range(9)),
    "file": tuple(
        f"{name}_{year}.{suffix}" for name in _FILES for year in range(2017, 2025) for suffix in ("xlsx", "pdf", "csv")
    ),
    "first": _FIRST,
    "floor": tuple(str(i) for i in range(1, 13)),
    "host": tuple(f"{site.upper()}-NB-{i * 7919 % 9000 + 1000}" for site in _SITES for i in range(80)),
    "ip": tuple(f"192.0.2.{i}" for i in range(2, 255)) + tuple(f"10.{i % 31}.{i % 7}.{i}" for i in range(1, 250)),
    "number": tuple(str(i) for i in range(2, 61)),
    "phone": tuple(f"+49 30 23125 {i * 67 % 900 + 100}" for i in range(200)),
    "printer": tuple(f"{site}-prn-{i:03d}" for site in _SITES for i in range(40)),
    "room": tuple(f"{building}{floor}.{i:02d}" for building in "ABC" for floor in range(1, 7) for i in range(1, 24)),
    "server": tuple(
        f"{site}-{role}{i:02d}" for site in _SITES for role in ("app", "db", "fs", "web") for i in range(9)
    ),
    "ticket": tuple(f"INC{i * 104729 % 900000 + 100000:07d}" for i in range(900)),
    "time": tuple(f"{hour:02d}:{minute:02d}" for hour in range(6, 22) for minute in range(0, 60, 7)),
    "url": tuple(
        f"https://{page}.example.{end}/{i:x}" for page in _PAGES for end in ("com", "org") for i in range(9, 40)
    ),
    "user": tuple(f"{first[0]}{last[:6]}".lower().replace("'", "") for first in _FIRST for last in _LAST),
    "version": tuple(f"{major}.{minor}.{major * minor % 17}" for major in range(2, 12) for minor in range(12)),
}

GREETINGS = (
    "Hi {first},",
    "Hello {first},",
    "Hello Service Desk,",
    "Dear colleagues,",
    "Good morning,",
    "Hi all,",
    "Dear Sir or Madam,",
    "Hallo {first},",
)

CLOSINGS = (
    "Thanks\n{first}",
    "Best regards\n{first}\n{dept} | Phone {phone}",
    "Kind regards,\n\n{first}\nService Desk, second level\nTel. {phone}\n{url}",
    "Mit freundlichen Grüßen\n{first}\n\n{company}\n{dept}\nTelefon: {phone}",
    "Cheers, {first}",
    "Sent from my phone",
    "--\n{first} | {dept} | {company} | {phone}",
)

DISCLAIMERS = (
    (
        "This e-mail may contain confidential and/or privileged information. If you are not the intended recipient (or"
        " have received this e-mail in error) please notify the sender immediately and destroy this e-mail. Any"
        " unauthorised copying, disclosure or distribution of the material in this e-mail is strictly forbidden."
    ),
    (
        "Diese E-Mail enthält vertrauliche Informationen. Wenn Sie nicht der richtige Adressat sind, informieren Sie"
        " bitte sofort den Absender und vernichten Sie diese Mail. Sitz der Gesellschaft: Musterstadt, HRB 00000."
    ),
    "Please consider the environment before printing this message.",
    "CAUTION: This message comes from outside the organisation. Do not click links unless you know the sender.",
)

CANNED = (
    "Closed, no answer from user.",
    "Done.",
    "Ticket was closed automatically after 7 days without an answer.",
    "User called back, works again.",
    "Forwarded to second level.",
    "See attachment.",
    "Thank you!",
    "erledigt",
    "Duplicate, see parent ticket.",
    "+1",
    "Waiting for user.",
    "Reminder sent.",
)

GENERIC = _lines(
    """\
I restarted {host} twice, it did not help.
It worked until {day}, nothing was changed on our side.
The same happens to {first} in room {room}.
Please call me on {phone}, I am at my desk until {time}.
This is urgent, {dept} cannot work at all.
We saw this before in {ticket}, but the fix from there does not apply.
I attached a screenshot and the log of {host}.
Could you confirm that it is fine now?
User was not reachable at {time}, left a message on {phone}.
Set to pending until {day}.
Handed over to the team that looks after {server}.
We have a workaround: use {app} on {host} for the time being.
The change is planned for {day} at {time}, about {number} minutes of downtime.
Only {number} users are affected, all of them on floor {floor}.
I could reproduce it with {app} {version}, not with the version before.
Remote session with {user} from {time} on, {number} minutes.
The event log shows {error} from {ip} at {time}.
{first} from {company} says it is not their fault.
Spoke to {first}, who agrees to close the ticket on {day}.
According to {url} this is a known problem of {version}.
Nothing in the logs of {server} between {time} and the restart.
Checked again after the maintenance: no {error} for {number} hours.
No feedback since {day}, second reminder sent to {user}.
For the auditors: approved by {first}, {dept}, on {day}.
As discussed on the phone, the cost is booked on {dept}.
What I do not understand is why it only happens on {host}.
The vendor wants the output of the diagnostic tool, {file}, see below.
Please do not close this again without asking me, I have called {number} times!
Room {room}, {host}, user {user}, error {error}.
Compared {host} with a machine that works: only the driver {version} differs."""
)

TRACES = (
    (
        "java.lang.IllegalStateException: {error}\n\tat com.example.desk.Session.open(Session.java:{number}1)\n"
        "\tat com.example.desk.Pool.borrow(Pool.java:{number})\n"
        "\tat java.base/java.lang.Thread.run(Thread.java:8{number})\n"
        "Caused by: java.net.SocketTimeoutException: connect timed out: {ip}\n\t... {number} more"
    ),
    (
        'Traceback (most recent call last):\n  File "/opt/jobs/load.py", line {number}, in <module>\n    main()\n'
        '  File "/opt/jobs/load.py", line 1{number}, in main\n    rows = fetch("{url}")\n'
        "requests.exceptions.ConnectionError: {error} ({ip})"
    ),
    (
        "System.NullReferenceException: Object reference not set to an instance of an object.\r\n   at {app}.Start("
        "String[] args) in C:\\build\\{version}\\Program.cs:line {number}\r\n   at {app}.Main() ({error})"
    ),
    "{day} {time}:07,{number}3 ERROR [{server}] {error}: request from {ip} failed after {number}000 ms",
    (
        "C:\\> ping {server}\r\nReply from {ip}: Destination host unreachable.\r\nRequest timed out.\r\n"
        "Packets: Sent = 4, Received = 1, Lost = 3 (75% loss)"
    ),
)

EMOJI = ("🙂", "👍", "🙏", "😡", "🎉", "⚠️", "✅", "👩‍💻", "🖨️", "🤷‍♂️", "🇩🇪", "☕")

FOREIGN: dict[str, tuple[str, ...]] = {
    "de": (
        "Der Drucker {printer} druckt seit {day} nur noch leere Seiten, bitte prüfen Sie das.",
        "Nach der Änderung des Passworts ist das Konto {user} schon wieder gesperrt.",
        "Ich habe {host} neu gestartet und den Treiber {version} installiert, leider ohne Erfolg.",
        "Können Sie mich bitte unter {phone} zurückrufen? Größere Störung in {dept}!",
        "Die Übertragung der Datei {file} bricht mit {error} ab.",
        "Rückmeldung vom Anwender: funktioniert wieder, Ticket kann geschlossen werden.",
        "Das Zertifikat auf {server} war abgelaufen und wurde um {time} Uhr erneuert.",
        "Für den neuen Kollegen in Raum {room} fehlt noch der Zugriff auf {app}.",
    ),
    "el": (
        "Ο εκτυπωτής {printer} στον όροφο {floor} δεν εκτυπώνει από {day}.",
        "Ο λογαριασμός {user} κλειδώθηκε ξανά μετά την αλλαγή του κωδικού.",
        "Η σύνδεση με τον διακομιστή {server} διακόπτεται κάθε {number} λεπτά με σφάλμα {error}.",
        "Έγινε επανεκκίνηση του {host}, παρακαλώ επιβεβαιώστε ότι λειτουργεί.",
        "Δεν μπορώ να ανοίξω το αρχείο {file} από το σπίτι.",
    ),
    "ru": (
        "Принтер {printer} в кабинете {room} печатает пустые страницы.",
        "Учётная запись {user} снова заблокирована, разблокируйте её, пожалуйста.",
        "После обновления до версии {version} программа {app} выдаёт ошибку {error}.",
        "Сервер {server} не отвечает с {time}, весь отдел не может работать.",
        "Файл {file} восстановлен из резервной копии, заявку можно закрыть.",
        "Позвоните мне, пожалуйста, по номеру {phone}.",
    ),
    "ar": (
        "الطابعة {printer} في الطابق {floor} لا تطبع منذ {day}.",
        "تم قفل الحساب {user} مرة أخرى بعد تغيير كلمة المرور.",
        "لا أستطيع فتح الملف {file} من المنزل، ويظهر الخطأ {error}.",
        "تمت إعادة تشغيل الخادم {server} والخدمة تعمل الآن.",
        "يرجى الاتصال بي على الرقم {phone}.",
    ),
    "zh": (
        "{floor}楼的打印机{printer}只打印空白页，请尽快处理。",
        "更改密码后，账户{user}又被锁定了。",
        "升级到{version}之后，{app}启动时报错{error}。",
        "服务器{server}已重启，请确认是否恢复正常。",
        "在家无法连接VPN，网关{ip}没有响应。",
        "文件{file}已从备份中恢复，可以关闭此工单。",
    ),
    "ja": (
        "{floor}階のプリンター{printer}で白紙しか印刷されません。",
        "パスワード変更後、アカウント{user}がまたロックされました。",
        "{app}を{version}に更新してから、エラー{error}が表示されます。",
        "サーバー{server}を再起動しました。ご確認をお願いいたします。",
        "共有フォルダーの{file}が開けません。至急対応をお願いします。",
        "内線{phone}までご連絡ください。",
    ),
    "fr": (
        "L'imprimante {printer} à l'étage {floor} n'imprime plus que des pages blanches.",
        "Le compte {user} est de nouveau bloqué après le changement de mot de passe.",
        "Le fichier {file} a été restauré, merci de vérifier côté {dept}.",
        "Depuis la mise à jour {version}, {app} s'arrête avec l'erreur {error}.",
    ),
}
