CREATE TABLE wk_page (page_id INTEGER PRIMARY KEY, page_namespace INTEGER NOT NULL, page_title VARCHAR(255), page_is_redirect SMALLINT,
    page_random DOUBLE, page_touched VARCHAR(14), page_latest INTEGER, page_len INTEGER);
CREATE TABLE wk_revision (rev_id INTEGER PRIMARY KEY, rev_page INTEGER, rev_text_id INTEGER, rev_comment VARCHAR(255), rev_user INTEGER,
    rev_timestamp VARCHAR(14), rev_deleted SMALLINT NOT NULL, rev_len INTEGER, rev_sha1 VARCHAR(32));
CREATE TABLE wk_text (old_id INTEGER PRIMARY KEY, old_text BLOB, old_flags VARCHAR(30));
CREATE TABLE wk_user (user_id INTEGER PRIMARY KEY, user_name VARCHAR(255), user_password BLOB, user_email VARCHAR(255), user_token VARCHAR(32));
CREATE TABLE wk_categorylinks (cl_from INTEGER, cl_to VARCHAR(255), cl_sortkey VARCHAR(230), PRIMARY KEY (cl_from, cl_to));
CREATE TABLE wk_archive (ar_id INTEGER PRIMARY KEY, ar_title VARCHAR(255), ar_text BLOB, ar_comment VARCHAR(255));
CREATE TABLE wk_recentchanges (rc_id INTEGER PRIMARY KEY, rc_title VARCHAR(255), rc_comment VARCHAR(255), rc_ip VARCHAR(40));
CREATE TABLE wk_logging (log_id INTEGER PRIMARY KEY, log_type VARCHAR(32), log_title VARCHAR(255), log_comment TEXT, log_params BLOB);
CREATE TABLE wk_objectcache (keyname VARCHAR(255) PRIMARY KEY, value BLOB);
CREATE TABLE wk_searchindex (si_page INTEGER PRIMARY KEY, si_title VARCHAR(255), si_text TEXT);
