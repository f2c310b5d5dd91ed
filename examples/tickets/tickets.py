"""Make the schema desk_example in the database of RAG_INDEX_SOURCE__URL: tickets, their customers
and comments."""

import os

from sqlalchemy import create_engine, text

TABLES = """
DROP SCHEMA IF EXISTS desk_example CASCADE;
CREATE SCHEMA desk_example;
SET search_path TO desk_example;
CREATE TABLE customer (id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE ticket (id integer PRIMARY KEY, customer_id integer NOT NULL REFERENCES customer, subject text NOT NULL,
  description text, state text NOT NULL, opened_at timestamptz NOT NULL);
CREATE TABLE comment (id integer PRIMARY KEY, ticket_id integer NOT NULL REFERENCES ticket, body text NOT NULL,
  internal boolean NOT NULL, written_at timestamptz NOT NULL);
INSERT INTO customer VALUES (1, 'Acme'), (2, 'Umbrella');
INSERT INTO ticket VALUES
  (1, 1, 'Printer of the second floor', 'Nothing can be printed since the move.', 'open', '2026-05-04 08:12+02'),
  (2, 2, 'Blank pages', 'The copier prints white pages only.', 'closed', '2026-03-19 15:40+01'),
  (3, 1, 'Login', 'My password has expired, and the page to change it is not found.', 'open', '2026-06-01 09:00+02');
INSERT INTO comment VALUES
  (11, 1, 'Which printer is it, and what does its display say?', false, '2026-05-04 09:00+02'),
  (12, 1, 'The queue works again, but now the pages come out white.', false, '2026-05-05 11:30+02'),
  (13, 1, 'They have not paid for the last cartridges.', true, '2026-05-05 11:45+02');
"""

with create_engine(os.environ["RAG_INDEX_SOURCE__URL"]).begin() as connection:
    connection.execute(text(TABLES))
