CREATE TABLE accounts (id VARCHAR(36) PRIMARY KEY, name VARCHAR(255), subdomain VARCHAR(60), stripe_customer_id VARCHAR(60), created_at DATETIME);
CREATE TABLE users (id VARCHAR(36) PRIMARY KEY, account_id VARCHAR(36), email VARCHAR(255), encrypted_password VARCHAR(255),
    reset_password_token VARCHAR(255), first_name VARCHAR(80), last_name VARCHAR(80), otp_secret VARCHAR(80), sign_in_count INTEGER, created_at DATETIME);
CREATE TABLE tickets (id VARCHAR(36) PRIMARY KEY, account_id VARCHAR(36), requester_id VARCHAR(36), number INTEGER, subject VARCHAR(255), status INTEGER,
    priority VARCHAR(10), discarded_at DATETIME, created_at DATETIME, updated_at DATETIME);
CREATE TABLE solutions (id VARCHAR(36) PRIMARY KEY, account_id VARCHAR(36), title VARCHAR(255), state VARCHAR(20), published_at DATETIME,
    created_at DATETIME, updated_at DATETIME);
CREATE TABLE rich_texts (id VARCHAR(36) PRIMARY KEY, name VARCHAR(80), body TEXT, record_type VARCHAR(80), record_id VARCHAR(36), created_at DATETIME);
CREATE TABLE comments (id VARCHAR(36) PRIMARY KEY, commentable_type VARCHAR(80), commentable_id VARCHAR(36), user_id VARCHAR(36), body TEXT,
    internal BOOLEAN NOT NULL, deleted_at DATETIME, created_at DATETIME);
CREATE TABLE tags (id VARCHAR(36) PRIMARY KEY, name VARCHAR(80), taggings_count INTEGER);
CREATE TABLE taggings (id VARCHAR(36) PRIMARY KEY, tag_id VARCHAR(36), taggable_type VARCHAR(80), taggable_id VARCHAR(36));
CREATE TABLE versions (id INTEGER PRIMARY KEY, item_type VARCHAR(80), item_id VARCHAR(36), event VARCHAR(20), object TEXT, created_at DATETIME);
CREATE TABLE user_auth_tokens (id VARCHAR(36) PRIMARY KEY, user_id VARCHAR(36), auth_token VARCHAR(80), user_agent VARCHAR(255));
CREATE TABLE api_clients (id VARCHAR(36) PRIMARY KEY, name VARCHAR(80), client_secret VARCHAR(80), scopes VARCHAR(120));
CREATE TABLE ar_internal_metadata ("key" VARCHAR(80) PRIMARY KEY, "value" VARCHAR(80));
CREATE TABLE delayed_jobs (id INTEGER PRIMARY KEY, priority INTEGER, handler TEXT, last_error TEXT, run_at DATETIME);
