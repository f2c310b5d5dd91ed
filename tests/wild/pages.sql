CREATE TABLE pages (uid INTEGER PRIMARY KEY, pid INTEGER NOT NULL, tstamp INTEGER, crdate INTEGER, deleted SMALLINT NOT NULL,
    hidden SMALLINT NOT NULL, sorting INTEGER, doktype INTEGER, title VARCHAR(255), nav_title VARCHAR(255), slug VARCHAR(255),
    abstract TEXT, keywords TEXT, fe_group VARCHAR(100), starttime INTEGER, endtime INTEGER);
CREATE TABLE tt_elements (uid INTEGER PRIMARY KEY, pid INTEGER NOT NULL, tstamp INTEGER, deleted SMALLINT NOT NULL, hidden SMALLINT NOT NULL,
    sorting INTEGER, CType VARCHAR(40), colPos INTEGER, header VARCHAR(255), header_layout INTEGER, bodytext TEXT, pi_flexform TEXT,
    image_alt VARCHAR(255));
CREATE TABLE tx_events (uid INTEGER PRIMARY KEY, pid INTEGER, deleted SMALLINT NOT NULL, hidden SMALLINT NOT NULL, title VARCHAR(255),
    place VARCHAR(120), starts DATETIME, description TEXT);
CREATE TABLE sys_category (uid INTEGER PRIMARY KEY, deleted SMALLINT NOT NULL, title VARCHAR(255));
CREATE TABLE sys_category_mm (uid_local INTEGER, uid_foreign INTEGER, tablenames VARCHAR(64), PRIMARY KEY (uid_local, uid_foreign, tablenames));
CREATE TABLE sys_log (uid INTEGER PRIMARY KEY, userid INTEGER, details TEXT, ip VARCHAR(39), tstamp INTEGER);
CREATE TABLE sys_history (uid INTEGER PRIMARY KEY, tablename VARCHAR(60), recuid INTEGER, history_data TEXT);
CREATE TABLE cache_pages (id INTEGER PRIMARY KEY, identifier VARCHAR(250), content BLOB);
CREATE TABLE be_users (uid INTEGER PRIMARY KEY, username VARCHAR(255), password VARCHAR(255), email VARCHAR(255), realName VARCHAR(80),
    uc BLOB, mfa TEXT);
CREATE TABLE fe_sessions (ses_id VARCHAR(190) PRIMARY KEY, ses_userid INTEGER, ses_data BLOB);
CREATE TABLE sys_registry (uid INTEGER PRIMARY KEY, entry_namespace VARCHAR(128), entry_key VARCHAR(128), entry_value TEXT);
