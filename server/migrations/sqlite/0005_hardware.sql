-- Tokens that come with their seeds. By how many steps a token's own clock is ahead of ours:
ALTER TABLE verifiers ADD COLUMN drift INTEGER NOT NULL DEFAULT 0;

-- The seeds, sealed, from import to the end of the token; all of them the bank's.
CREATE TABLE own_seeds (
    company TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (company, id)
) STRICT;

-- What a company chose before there was this to choose.
UPDATE companies SET body = json_set(body, '$.policy.look_ahead', 10)
    WHERE json_extract(body, '$.policy.look_ahead') IS NULL;
