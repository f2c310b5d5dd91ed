CREATE TABLE frm_forums (forum_id INTEGER PRIMARY KEY, parent_id INTEGER, forum_name VARCHAR(255), forum_desc TEXT,
    forum_password VARCHAR(255), is_hidden SMALLINT NOT NULL);
CREATE TABLE frm_topics (topic_id INTEGER PRIMARY KEY, forum_id INTEGER NOT NULL REFERENCES frm_forums (forum_id),
    topic_title VARCHAR(255) NOT NULL, topic_poster INTEGER, topic_time INTEGER, topic_views INTEGER,
    topic_first_post_id INTEGER, topic_last_post_id INTEGER, topic_visibility SMALLINT NOT NULL);
CREATE TABLE frm_posts (post_id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL REFERENCES frm_topics (topic_id),
    forum_id INTEGER NOT NULL REFERENCES frm_forums (forum_id), poster_id INTEGER, poster_ip VARCHAR(40), post_time INTEGER, post_subject VARCHAR(255),
    post_text TEXT NOT NULL, bbcode_uid VARCHAR(8), post_checksum VARCHAR(32), post_delete_time INTEGER, post_delete_reason VARCHAR(255));
CREATE TABLE frm_users (user_id INTEGER PRIMARY KEY, username VARCHAR(255), user_password VARCHAR(255), user_email VARCHAR(100),
    user_birthday VARCHAR(10), user_sig TEXT, user_form_salt VARCHAR(32), user_actkey VARCHAR(32));
CREATE TABLE frm_privmsgs (msg_id INTEGER PRIMARY KEY, author_id INTEGER, to_address TEXT, message_subject VARCHAR(255), message_text TEXT);
CREATE TABLE frm_sessions (session_id CHAR(32) PRIMARY KEY, session_user_id INTEGER, session_ip VARCHAR(40), session_browser VARCHAR(150));
CREATE TABLE frm_search_wordlist (word_id INTEGER PRIMARY KEY, word_text VARCHAR(255), word_count INTEGER);
CREATE TABLE frm_config (config_name VARCHAR(255) PRIMARY KEY, config_value VARCHAR(255));
CREATE TABLE frm_log (log_id INTEGER PRIMARY KEY, user_id INTEGER, log_ip VARCHAR(40), log_operation TEXT, log_data TEXT);
CREATE TABLE frm_smilies (smiley_id INTEGER PRIMARY KEY, code VARCHAR(50), emotion VARCHAR(50), smiley_url VARCHAR(50))
