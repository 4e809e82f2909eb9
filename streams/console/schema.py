"""The tables of the console's store, and how a connection to them is opened.
A file of another layout is deleted: all that is in it comes again from the topics.
"""

import sqlite3
from pathlib import Path

LAYOUT = 3
CACHE_KB = 8_192  # of each connection

# Alerts are narrow, as a filter may have to look at all of them: what only a case shows has tables of its own.
TABLES = """
CREATE TABLE offsets (
  topic TEXT, partition INTEGER, topic_id TEXT NOT NULL, next INTEGER NOT NULL, PRIMARY KEY (topic, partition)
) WITHOUT ROWID;

CREATE TABLE alerts (
  id INTEGER PRIMARY KEY, alert_id TEXT NOT NULL UNIQUE, order_id TEXT NOT NULL, user_id TEXT NOT NULL,
  event_time INTEGER NOT NULL, raised_at INTEGER NOT NULL, policy TEXT NOT NULL, release TEXT NOT NULL,
  probability REAL NOT NULL, decision TEXT NOT NULL, amount INTEGER, currency TEXT NOT NULL, country TEXT,
  loss REAL NOT NULL, sentence TEXT NOT NULL, sentence_zh TEXT NOT NULL, grp TEXT NOT NULL,
  answered INTEGER NOT NULL DEFAULT 0, answer REAL, answer_source TEXT, answered_at INTEGER,
  waiting INTEGER NOT NULL DEFAULT 0, assignee TEXT
);
CREATE INDEX alerts_order ON alerts (order_id);
CREATE INDEX alerts_user ON alerts (user_id);
CREATE INDEX alerts_group ON alerts (grp);
CREATE INDEX alerts_cases ON alerts (answered, grp);
CREATE INDEX alerts_loss ON alerts (answered, loss, alert_id);
CREATE INDEX alerts_probability ON alerts (answered, probability, alert_id);
CREATE INDEX alerts_newest ON alerts (answered, raised_at, alert_id);
CREATE INDEX all_loss ON alerts (loss, alert_id);
CREATE INDEX all_probability ON alerts (probability, alert_id);
CREATE INDEX all_newest ON alerts (raised_at, alert_id);
CREATE INDEX alerts_facets ON alerts (answered, waiting, decision, country, release);

CREATE TABLE details (alert_id TEXT PRIMARY KEY, detail TEXT NOT NULL);
CREATE TABLE features (
  alert_id TEXT PRIMARY KEY, format INTEGER NOT NULL, row BLOB NOT NULL, fields BLOB NOT NULL
);
CREATE TABLE rules (rule TEXT, alert_id TEXT, PRIMARY KEY (rule, alert_id)) WITHOUT ROWID;
CREATE INDEX rules_alert ON rules (alert_id);
CREATE TABLE entities (
  token TEXT, user_id TEXT, alert_id TEXT, PRIMARY KEY (token, user_id, alert_id)
) WITHOUT ROWID;
CREATE INDEX entities_alert ON entities (alert_id);

CREATE TABLE labels (
  seq INTEGER PRIMARY KEY, label_id TEXT NOT NULL UNIQUE, order_id TEXT NOT NULL, value REAL NOT NULL,
  source TEXT NOT NULL, observed_at INTEGER NOT NULL, revision INTEGER NOT NULL, withdrawn INTEGER NOT NULL,
  local INTEGER NOT NULL
);
CREATE INDEX labels_order ON labels (order_id);
CREATE TABLE opinions (
  order_id TEXT, who TEXT, value REAL NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (order_id, who)
) WITHOUT ROWID;
CREATE TABLE assignments (order_id TEXT PRIMARY KEY, who TEXT NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE changes (
  change_id INTEGER PRIMARY KEY, order_id TEXT NOT NULL, who TEXT NOT NULL, action TEXT NOT NULL, at INTEGER NOT NULL,
  detail TEXT NOT NULL
);
CREATE INDEX changes_order ON changes (order_id);
"""


def connect(path: Path) -> sqlite3.Connection:
    """To a store that is there; autocommit, so that whoever writes says BEGIN."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KB}")
    return connection


def prepare(path: Path) -> sqlite3.Connection:
    """The store at `path`, made if need be; one that is damaged or of another layout is made anew."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        connection = connect(path)
        layout = connection.execute("PRAGMA user_version").fetchone()[0]
        if layout == LAYOUT:
            return connection
        empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    except sqlite3.DatabaseError:
        return _anew(path)
    if layout or not empty:
        connection.close()
        return _anew(path)
    connection.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {LAYOUT}; COMMIT;")
    path.chmod(0o600)
    return connection


def _anew(path: Path) -> sqlite3.Connection:
    for name in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        name.unlink(missing_ok=True)
    return prepare(path)
