-- Where companies want to be told, and what became of each delivery.
CREATE TABLE webhooks (
    company TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
    state TEXT,
    PRIMARY KEY (company, id)
) STRICT;
CREATE INDEX webhooks_by_state ON webhooks (company, state, id);
CREATE INDEX webhooks_active ON webhooks (state, id);

CREATE TABLE deliveries (
    company TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
    webhook TEXT, state TEXT, due INTEGER,
    PRIMARY KEY (company, id)
) STRICT;
CREATE INDEX deliveries_by_webhook ON deliveries (company, webhook, id);
CREATE INDEX deliveries_by_webhook_state ON deliveries (company, webhook, state, id);
CREATE INDEX deliveries_due ON deliveries (state, due, id);
