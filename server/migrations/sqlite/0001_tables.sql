-- The tables of records: whose, which, at what version, the record as JSON, and beside it what
-- queries filter, search and sort by. Moments are milliseconds since 1970. Indexes that begin with
-- `company` are for what people list; those that do not are for the chores over all companies.

CREATE TABLE companies (
    company TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
    name TEXT, state TEXT,
    PRIMARY KEY (company, id)
) STRICT;
CREATE INDEX companies_by_name ON companies (company, name, id);
CREATE INDEX companies_by_state ON companies (company, state, id);

CREATE TABLE users (
    company TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
    login TEXT, name_folded TEXT, role TEXT, state TEXT,
    PRIMARY KEY (company, id)
) STRICT;
CREATE INDEX users_by_login ON users (company, login, id);
CREATE INDEX users_by_name ON users (company, name_folded, id);
CREATE INDEX users_by_role ON users (company, role, id);
CREATE INDEX users_by_state ON users (company, state, id);

CREATE TABLE clients (
    company TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
    state TEXT,
    PRIMARY KEY (company, id)
) STRICT;
CREATE INDEX clients_by_state ON clients (company, state, id);

-- The list people look at most: each way to sort it has an index of its own, and one more behind a
-- state, because one state holds nearly all of a company's tokens.
CREATE TABLE tokens (
    company TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
    serial TEXT, serial_folded TEXT, kind TEXT, state TEXT, holder TEXT, holder_name_folded TEXT, device TEXT,
    updated INTEGER,
    PRIMARY KEY (company, id)
) STRICT;
CREATE INDEX tokens_by_serial ON tokens (company, serial, id);
CREATE INDEX tokens_by_holder ON tokens (company, holder, id);
CREATE INDEX tokens_by_name ON tokens (company, holder_name_folded, id);
CREATE INDEX tokens_by_device ON tokens (company, device, id);
CREATE INDEX tokens_by_updated ON tokens (company, updated, id);
CREATE INDEX tokens_by_state ON tokens (company, state, id);
CREATE INDEX tokens_by_state_serial ON tokens (company, state, serial, id);
CREATE INDEX tokens_by_state_name ON tokens (company, state, holder_name_folded, id);
CREATE INDEX tokens_by_state_updated ON tokens (company, state, updated, id);

CREATE TABLE generations (
    company TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
    token TEXT, state TEXT,
    PRIMARY KEY (company, id)
) STRICT;
CREATE INDEX generations_by_token ON generations (company, token, id);

CREATE TABLE devices (
    company TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
    user TEXT, state TEXT,
    PRIMARY KEY (company, id)
) STRICT;
CREATE INDEX devices_by_user ON devices (company, user, id);
CREATE INDEX devices_by_state ON devices (company, state, id);

CREATE TABLE enrollments (
    company TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
    token TEXT, holder TEXT, state TEXT, expires INTEGER,
    PRIMARY KEY (company, id)
) STRICT;
CREATE INDEX enrollments_by_token ON enrollments (company, token, id);
CREATE INDEX enrollments_by_holder ON enrollments (company, holder, id);
CREATE INDEX enrollments_by_state ON enrollments (company, state, id);
CREATE INDEX enrollments_expiring ON enrollments (state, expires, id);

CREATE TABLE operations (
    company TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
    token TEXT, state TEXT, expires INTEGER, asker TEXT,
    PRIMARY KEY (company, id)
) STRICT;
CREATE INDEX operations_by_token ON operations (company, token, id);
CREATE INDEX operations_by_state ON operations (company, state, id);
CREATE INDEX operations_by_asker ON operations (company, asker, id);
CREATE INDEX operations_expiring ON operations (state, expires, id);

CREATE TABLE activations (
    company TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
    user TEXT, state TEXT, expires INTEGER,
    PRIMARY KEY (company, id)
) STRICT;
CREATE INDEX activations_by_user ON activations (company, user, id);
CREATE INDEX activations_expiring ON activations (expires, id);

CREATE TABLE access_tokens (
    company TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
    client TEXT, expires INTEGER,
    PRIMARY KEY (company, id)
) STRICT;
CREATE INDEX access_tokens_by_client ON access_tokens (company, client, id);
CREATE INDEX access_tokens_expiring ON access_tokens (expires, id);

CREATE TABLE idempotency (
    company TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
    client TEXT, expires INTEGER,
    PRIMARY KEY (company, id)
) STRICT;
CREATE INDEX idempotency_expiring ON idempotency (expires, id);

CREATE TABLE settings (
    company TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (company, id)
) STRICT;

CREATE TABLE inbox (
    company TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
    device TEXT, state TEXT, expires INTEGER,
    PRIMARY KEY (company, id)
) STRICT;
CREATE INDEX inbox_by_device ON inbox (company, device, id);
CREATE INDEX inbox_expiring ON inbox (expires, id);

-- Names that are unique, or looked up, across all companies.
CREATE TABLE names (
    scope TEXT NOT NULL, name TEXT NOT NULL, company TEXT NOT NULL, id TEXT NOT NULL,
    PRIMARY KEY (scope, name)
) STRICT, WITHOUT ROWID;

-- What codes are checked against. `sealed` is null before there is a seed (generation 0: attempts
-- are counted already) and once it is destroyed.
CREATE TABLE verifiers (
    company TEXT NOT NULL, token TEXT NOT NULL,
    generation INTEGER NOT NULL, open INTEGER NOT NULL, sealed TEXT, parameters TEXT NOT NULL,
    last_step INTEGER, failures INTEGER NOT NULL, waits_until INTEGER,
    PRIMARY KEY (company, token),
    CHECK (open = 0 OR sealed IS NOT NULL)
) STRICT, WITHOUT ROWID;

-- The chains. Their heads stand apart, so that a tail that is cut off shows.
CREATE TABLE chains (
    company TEXT NOT NULL PRIMARY KEY, sequence INTEGER NOT NULL, hash TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    company TEXT NOT NULL, sequence INTEGER NOT NULL,
    kind TEXT NOT NULL, token TEXT, body TEXT NOT NULL, hash TEXT NOT NULL,
    PRIMARY KEY (company, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_by_kind ON audit (company, kind, sequence);
CREATE INDEX audit_by_token ON audit (company, token, sequence) WHERE token IS NOT NULL;
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'audit records are never changed'); END;
CREATE TRIGGER audit_is_never_deleted BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'audit records are never deleted'); END;

-- The attempts that an audit record `otp.checked` stands for.
CREATE TABLE attempts (
    company TEXT NOT NULL, sequence INTEGER NOT NULL, position INTEGER NOT NULL,
    at INTEGER NOT NULL, token TEXT, client TEXT, outcome TEXT NOT NULL, failures INTEGER NOT NULL,
    PRIMARY KEY (company, sequence, position)
) STRICT, WITHOUT ROWID;
