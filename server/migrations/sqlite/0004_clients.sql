-- Assertions of programs that were used: each counts once, also across a restart.
CREATE TABLE used_assertions (
    company TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
    expires INTEGER,
    PRIMARY KEY (company, id)
) STRICT;
CREATE INDEX used_assertions_expiring ON used_assertions (expires, id);
