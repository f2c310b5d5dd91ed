"""Topics of the generated service desk, each with titles, symptoms, steps taken and causes.

Words in braces are slots; `vocabulary.POOLS` holds the words to fill them.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TOPICS", "TopicText"]


@dataclass(frozen=True, slots=True)
class TopicText:
    """The sentences of one topic, with slots."""

    name: str
    titles: tuple[str, ...]
    symptoms: tuple[str, ...]
    steps: tuple[str, ...]
    causes: tuple[str, ...]


_TEXT = """
# printing
t Printer {printer} prints blank pages
t Paper jam on {printer}, room {room}
t Cannot add network printer {printer}
s The printer {printer} on floor {floor} has printed only blank pages since {day}.
s Every job sent from {app} to {printer} stays in the queue with status "Error - {error}".
s {printer} pulls two sheets at once and then reports a paper jam in tray {number}.
s Duplex is greyed out after the driver went to {version}.
a Replaced the toner and the drum of {printer}; the test page from {time} was clean.
a Cleared the spooler on {server} and restarted the service; {number} stuck jobs were dropped.
a Installed driver {version} on {host} and mapped the queue again by group policy.
c The fuser unit of {printer} is worn out after about {number}00,000 pages.
c The print server {server} still handed out a driver that does not support 64-bit clients.
# vpn
t VPN drops every {number} minutes
t No VPN after the update to {version}
t {app} not reachable over VPN
s The VPN client disconnects after about {number} minutes with error {error}.
s Since {day} I can connect from home, but shares on {server} do not open.
s The client stays at "Negotiating" and then says that the gateway {ip} does not respond.
s On the train the tunnel comes up, yet no name inside the company is resolved.
a Renewed the machine certificate of {host} and deleted the old profile.
a Set the MTU to 1{number}0 on the client; no drop since {time}.
a Moved {user} to the gateway pool {ip} and asked for a test over the weekend.
c The certificate on {host} had expired on {day}.
c The provider's router answers with a private address that collides with our range {ip}.
# mail
t Mailbox full, cannot send
t Calendar of {dept} shows free although busy
t Mails from {company} land in quarantine
s Outgoing messages wait in the outbox with "{error}: mailbox quota exceeded".
s All mails from {company} have gone to quarantine since {day}.
s Appointments that {first} accepts on the phone are shown twice in the calendar.
s A shared mailbox of {dept} disappeared from the list after the restart at {time}.
a Raised the quota of {user} by {number} GB and started the online archive.
a Put the sender domain of {company} on the allow list and released {number} messages.
a Rebuilt the mail profile on {host}; the offline file had grown to {number}8 GB.
c The automatic mapping of shared mailboxes failed for accounts that were moved to {server}.
c The sender's SPF record does not list the host {ip}.
# password
t Account {user} locked again
t Password reset for {dept}
t Second factor lost, new phone
s The account {user} is locked again about {number} minutes after each unlock.
s The self-service page says that the new password does not meet the policy, without saying which rule.
s I have a new phone and the authenticator shows no codes any more.
s After the password change on {day} my laptop {host} still wants the old one.
a Unlocked {user} and found bad attempts coming from {host} at {time}.
a Removed the old device, sent a one-time code valid for {number} hours to the manager.
a Cleared stored credentials on {host} and signed in again.
c An old phone kept sending the former password for the mail account.
c A scheduled task on {server} still runs under the personal account {user}.
# laptop
t Laptop {host} does not start
t Battery swollen, device {host}
t Blue screen {error} when docking
s {host} shows a black screen after the logo, the fan runs at full speed.
s When I dock, both monitors flicker for {number} seconds and then a blue screen with {error} appears.
s The battery holds for less than {number} minutes and the touch pad is pushed up.
s The laptop gets so hot in meetings that the keyboard cannot be touched.
a Updated BIOS and dock firmware of {host} to {version}.
a Sent a replacement to room {room}; the old device {host} goes back under warranty.
a Ran the hardware test: memory is fine, the disk reports {number} pending sectors.
c The battery is swollen; the device must not be used any longer.
c The dock's firmware does not wake the second display port with driver {version}.
# network
t No network in room {room}
t Wi-Fi slow on floor {floor}
t Port blocked after move to room {room}
s None of the sockets in room {room} gives a link since the works on {day}.
s On floor {floor} the Wi-Fi shows full strength, but pages take {number} seconds to load.
s My desk phone restarts every {number} minutes and the computer behind it loses the network.
s A device with the address {ip} answers twice, so {app} loses its session.
a Patched the socket to switch port {number} and put it into the right VLAN.
a Replaced the access point near room {room}; channel use went from 90% to {number}%.
a Found the duplicate {ip} on a label printer and gave that one a reservation.
c Port security had shut the port down after an unknown device was plugged in at {time}.
c The uplink of floor {floor} runs with errors on one strand of the fibre.
# erp
t Posting in {app} ends with {error}
t Purchase orders of {dept} not transferred
t Period lock for {dept}
s Posting an invoice in {app} ends with "{error}" once it has more than {number} lines.
s Orders released at {time} have not arrived at the warehouse system.
s The report of open items needs {number} minutes; last month it took seconds.
s In the new release {version} the button to reverse a document is missing for {dept}.
a Restarted the interface queue on {server}; {number} orders were processed afterwards.
a Added the missing authorisation object to the role of {user} and transported it.
a Rebuilt the index on the items table overnight and compared run times at {time}.
c A number range for {dept} was exhausted.
c The statistics on {server} were stale after the upgrade to {version}.
# files
t Folder of {dept} gone from drive
t Restore {file} from backup
t Access denied on share of {dept}
s The folder with {file} has vanished from the share of {dept}, yesterday it was there.
s Saving {file} says that the disk is full although {number}00 GB are shown as free.
s {user} sees the folder of {dept} but opening {file} gives access denied.
s {file} is locked for editing by a colleague who left in spring.
a Restored {file} from the snapshot of {day}, {time}.
a Added {user} to the group that may change files of {dept}; a new sign-in is needed.
a Closed the open handle on {server} that came from {host}.
c The folder was dragged into a neighbouring one; the audit log shows {user} at {time}.
c A quota on the volume, not the free space, stops writing.
# software
t Please install {app} {version}
t {app} crashes on start
t Licence for {app} expired
s {app} closes without a message about {number} seconds after the start on {host}.
s Since the update to {version}, {app} asks for a licence each time.
s The export from {app} to {file} writes question marks where there were umlauts.
s The software centre has shown "Installing" for {app} since {time}.
a Removed {app}, deleted the profile folder and installed {version} from the software centre.
a Assigned a free licence to {user}; {number} are left in the pool.
a Opened a case with the vendor, number {ticket}, with the dump from {host}.
c An add-in of {company} loads a library that {version} no longer brings along.
c The package checks for {number} GB of free space and stops silently.
# onboarding
t New colleague in {dept} on {day}
t {first} leaves {dept}: close accounts
t Move of {number} desks to floor {floor}
s A new colleague starts in {dept} on {day} and needs a laptop, a phone and access to {app}.
s {first} changes from {dept} to another team; mailbox and shares have to be handed over.
s We move {number} desks from room {room} to floor {floor} and need the phones to follow.
s The badge of the new colleague opens the car park but not the door of floor {floor}.
a Created the account {user}, ordered {host} and booked a slot on {day} at {time}.
a Disabled {user}, set the out-of-office message and gave the mailbox to the manager.
a Programmed the badge for floor {floor}; tested at the door at {time}.
c The request had no cost centre, so it stayed with the approver.
c The template of {dept} does not contain the door group of floor {floor}.
# phone
t No incoming calls on {phone}
t Headset not recognised on {host}
t Hotline of {dept} drops callers
s Callers to {phone} hear the ringing tone, my client stays silent.
s The headset is shown as connected, but in calls the other side hears nothing.
s Callers of the hotline of {dept} are thrown out after {number} minutes of waiting.
s In video meetings the picture freezes every {number} seconds while the sound goes on.
a Reset the call forwarding of {phone} and signed the client out everywhere.
a Updated the headset firmware to {version} and chose it as the default device on {host}.
a Raised the limit of the waiting queue to {number} callers.
c {phone} was still forwarded to a mobile number nobody uses.
c Voice packets lose their priority on the switch of floor {floor}.
# database
t Database on {server} slow since {day}
t Backup of {server} failed: {error}
t Deadlocks in {app}
s Queries against {server} that took milliseconds have taken {number} seconds since {day}.
s The nightly backup of {server} ends with {error} after {number} minutes.
s Users of {app} get "deadlock detected" several times an hour, mostly around {time}.
s Replication to {server} is {number} minutes behind and does not catch up.
a Killed a session from {host} that had held a lock since {time}.
a Added an index on the foreign key; the plan no longer scans {number}00,000 rows.
a Gave the log volume of {server} another {number}0 GB and ran the backup by hand.
c A forgotten transaction of {user} kept old row versions alive.
c The vendor's patch {version} changed the order in which tables are locked.
# web
t {url} answers 502
t Certificate of {url} expires on {day}
t Sign-in loop in the customer portal
s {url} has answered with status 502 since {time}.
s Customers of {company} are sent back to the sign-in page again and again.
s The upload of {file} stops at 99% and then shows {error}.
s The browser warns that the certificate of {url} is for another name.
a Restarted the application pool on {server}; {url} answers in {number}0 ms again.
a Installed the new certificate on both balancers and noted the next date.
a Raised the upload limit of the proxy {ip} to {number}0 MB.
c One of the two nodes behind {ip} had run out of file handles.
c The clock of {server} was {number} minutes slow, so tokens looked as if from the future.
# security
t Suspicious mail from {company}
t Malware alert on {host}
t Clicked on a link, what now
s I received a message that looks as if {first} had sent it, with a link to {url}.
s The scanner moved {file} on {host} into quarantine and asks for a restart.
s I typed my password on a page that looked like ours, at about {time}.
s A USB stick was found in the car park next to room {room}.
a Blocked {url} at the proxy and searched all mailboxes: {number} more recipients were told.
a Took {host} off the network, kept an image for the analysts and set it up from scratch.
a Reset the password of {user} and revoked all sessions at {time}.
c It was a false alarm: the signature matched a macro of {app}.
c The sender's mailbox at {company} had been taken over.
# monitoring
t Disk full on {server}
t Job on {server} did not run
t CPU alert {server} since {time}
s The monitoring reports less than {number}% free space on the system volume of {server}.
s The job that loads data for {dept} did not run on {day}.
s CPU of {server} has been at 100% since {time}; users of {app} notice it.
s The probe of {url} has alternated between green and red for {number} hours.
a Deleted dumps older than {number} days and moved the logs of {server} to another volume.
a Started the job by hand at {time}, it ended without errors after {number} minutes.
a Lowered the log level of {app} back to warning.
c A debug log was left on after the analysis of ticket {ticket}.
c The time zone change on {day} made the scheduler skip the hour in which the job should start.
# mobile
t Phone does not sync mail
t SIM for {first}
t Tablet of {dept} lost
s The phone has not received mail since the update to {version}.
s The tablet of {dept} was left on a train on {day}.
s The company portal says that the device is not compliant, without a reason.
s Abroad the phone shows a network but has no data connection.
a Wiped the tablet remotely and blocked the SIM with number {phone}.
a Removed the profile, enrolled the phone again and checked with {first} at {time}.
a Booked the roaming option for {number} days.
c The passcode was shorter than the new policy asks for.
c The old mail server name was stored in the profile instead of {url}.
# meeting
t Room {room}: projector without picture
t Cannot book room {room}
t Echo in room {room}
s The projector in room {room} shows "no signal" with every laptop we tried.
s Room {room} cannot be booked on {day} although nobody is in it.
s Everyone who dials in hears an echo as soon as room {room} unmutes.
s The panel in front of room {room} restarts every {number} minutes.
a Replaced the cable and the adapter in room {room}; picture and sound tested at {time}.
a Deleted a series of bookings by {user}, who has left.
a Set the panel to version {version} and moved the microphone away from the speaker.
c The adapter does not pass on copy protection, so the picture stays black.
c A series of bookings without an end occupied room {room}.
# data
t Report of {dept} shows wrong totals
t Import of {file} failed
t Duplicate customers in {app}
s The totals in the report of {dept} do not match the ones in {app} since {day}.
s The import of {file} stops at line {number}04 with {error}.
s Customer {company} exists {number} times in {app}, each with another address.
s Amounts with a comma are read as thousands, so {company} was billed too much.
a Corrected the join in the report and loaded the days since {day} again.
a Saved {file} as UTF-8 and imported it again; {number}12 lines were taken over.
a Merged the duplicates of {company} and kept the oldest number.
c Two sources deliver the same booking with another time zone.
c The supplier changed the order of the columns without telling anyone.
"""


def _topics() -> tuple[TopicText, ...]:
    found = []
    for block in _TEXT.strip().removeprefix("# ").split("\n# "):
        name, *lines = block.split("\n")
        parts = [tuple(line[2:] for line in lines if line.startswith(mark)) for mark in ("t ", "s ", "a ", "c ")]
        found.append(TopicText(name, *parts))
    return tuple(found)


TOPICS = _topics()
