-- Signed statements about the audit chains, until they are written outside the database and after.
CREATE TABLE checkpoints (
    company TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
    first INTEGER, state TEXT,
    PRIMARY KEY (company, id)
) STRICT;
CREATE INDEX checkpoints_by_first ON checkpoints (company, first, id);
CREATE INDEX checkpoints_by_state ON checkpoints (state, first, id);
