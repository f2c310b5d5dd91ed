CREATE TABLE projects (id INTEGER PRIMARY KEY, name VARCHAR(255), identifier VARCHAR(60), description TEXT,
    is_public BOOLEAN, created_on DATETIME);
CREATE TABLE statuses (id INTEGER PRIMARY KEY, name VARCHAR(30), is_closed BOOLEAN);
CREATE TABLE people (id INTEGER PRIMARY KEY, login VARCHAR(60), hashed_password VARCHAR(64), salt VARCHAR(64),
    firstname VARCHAR(30), lastname VARCHAR(60), mail VARCHAR(120), admin BOOLEAN, last_login_on DATETIME);
CREATE TABLE tokens (id INTEGER PRIMARY KEY, user_id INTEGER, action VARCHAR(30), value VARCHAR(64), created_on DATETIME);
CREATE TABLE issues (id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL, subject VARCHAR(255), description TEXT,
    status_id INTEGER, author_id INTEGER, assigned_to_id INTEGER, due_date DATE, done_ratio INTEGER, lock_version INTEGER,
    is_private BOOLEAN NOT NULL, lft INTEGER, rgt INTEGER, created_on DATETIME, updated_on DATETIME);
CREATE TABLE journals (id INTEGER PRIMARY KEY, journalized_id INTEGER NOT NULL, journalized_type VARCHAR(30) NOT NULL,
    user_id INTEGER, notes TEXT, created_on DATETIME, private_notes BOOLEAN NOT NULL);
CREATE TABLE journal_details (id INTEGER PRIMARY KEY, journal_id INTEGER, property VARCHAR(30), prop_key VARCHAR(30),
    old_value TEXT, value TEXT);
CREATE TABLE documents (id INTEGER PRIMARY KEY, project_id INTEGER, title VARCHAR(255), description TEXT, created_on DATETIME);
CREATE TABLE settings (id INTEGER PRIMARY KEY, name VARCHAR(255), value TEXT, updated_on DATETIME);
CREATE TABLE watchers (id INTEGER PRIMARY KEY, watchable_type VARCHAR(60), watchable_id INTEGER, user_id INTEGER);
CREATE TABLE schema_migrations (version VARCHAR(255) PRIMARY KEY);
CREATE TABLE repositories (id INTEGER PRIMARY KEY, project_id INTEGER, url TEXT, password VARCHAR(255));
