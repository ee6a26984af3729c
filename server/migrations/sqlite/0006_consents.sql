-- What relying parties asked people's phones, and how often lately.
CREATE TABLE consents (
    company TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
    ping_due INTEGER, expires INTEGER,
    PRIMARY KEY (company, id)
) STRICT;
CREATE INDEX consents_to_ping ON consents (ping_due, id);
CREATE INDEX consents_expiring ON consents (expires, id);

CREATE TABLE consent_histories (
    company TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
    expires INTEGER,
    PRIMARY KEY (company, id)
) STRICT;
CREATE INDEX consent_histories_expiring ON consent_histories (expires, id);
