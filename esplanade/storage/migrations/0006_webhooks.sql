-- What partners are told over HTTP, and what they tell. `secret` and `former` are sealed by the deployment's master key; `former` signs too until `former_until_ms`.
CREATE TABLE webhook (
    tenant text NOT NULL REFERENCES tenant,
    webhook text NOT NULL,
    url text NOT NULL,
    venue text NOT NULL,
    types text[] NOT NULL CHECK (cardinality(types) >= 1),
    filter text NOT NULL,
    secret bytea NOT NULL,
    former bytea NOT NULL,
    former_until_ms bigint NOT NULL,
    enabled boolean NOT NULL,
    created_ms bigint NOT NULL,
    PRIMARY KEY (tenant, webhook)
);

-- How far each topic of a webhook is delivered. Who delivers holds the row until `held_until_ms`; a place is written by who holds it alone.
CREATE TABLE webhook_cursor (
    tenant text NOT NULL,
    webhook text NOT NULL,
    topic text NOT NULL,
    epoch bigint NOT NULL,
    "offset" bigint NOT NULL,
    attempts integer NOT NULL,
    failing boolean NOT NULL,
    due_ms bigint NOT NULL,
    held_until_ms bigint NOT NULL,
    PRIMARY KEY (tenant, webhook, topic),
    FOREIGN KEY (tenant, webhook) REFERENCES webhook ON DELETE CASCADE
) WITH (fillfactor = 50);
CREATE INDEX webhook_cursor_topic ON webhook_cursor (tenant, topic);

-- The newest attempts of each webhook, numbered in their order.
CREATE TABLE webhook_delivery (
    tenant text NOT NULL,
    webhook text NOT NULL,
    number bigint NOT NULL,
    message text NOT NULL,
    topic text NOT NULL,
    epoch bigint NOT NULL,
    "offset" bigint NOT NULL,
    type text NOT NULL,
    at_ms bigint NOT NULL,
    attempt integer NOT NULL,
    status integer NOT NULL,
    outcome text NOT NULL,
    error text NOT NULL,
    PRIMARY KEY (tenant, webhook, number),
    FOREIGN KEY (tenant, webhook) REFERENCES webhook ON DELETE CASCADE
);

-- What was given up, kept to be listed and sent again.
CREATE TABLE webhook_dead (
    tenant text NOT NULL,
    webhook text NOT NULL,
    message text NOT NULL,
    type text NOT NULL,
    body bytea NOT NULL,
    at_ms bigint NOT NULL,
    attempts integer NOT NULL,
    error text NOT NULL,
    PRIMARY KEY (tenant, webhook, message),
    FOREIGN KEY (tenant, webhook) REFERENCES webhook ON DELETE CASCADE
);

-- Who may tell: a payment provider, a supplier of sensors.
CREATE TABLE webhook_source (
    tenant text NOT NULL REFERENCES tenant,
    source text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('payments', 'sensors')),
    venue text NOT NULL,
    secret bytea NOT NULL,
    created_ms bigint NOT NULL,
    PRIMARY KEY (tenant, source)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON webhook, webhook_cursor, webhook_dead, webhook_source TO esplanade_writer;
GRANT SELECT, INSERT, DELETE ON webhook_delivery TO esplanade_writer;
GRANT SELECT ON webhook, webhook_delivery, webhook_dead, webhook_source TO esplanade_reader;

DO $$
DECLARE
    bound text;
BEGIN
    FOREACH bound IN ARRAY ARRAY['webhook', 'webhook_cursor', 'webhook_delivery', 'webhook_dead', 'webhook_source'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', bound);
        EXECUTE format('CREATE POLICY own_tenant ON %I FOR SELECT TO esplanade_reader USING (tenant = current_setting(''esplanade.tenant'', true))', bound);
        EXECUTE format('CREATE POLICY every_tenant ON %I TO esplanade_writer USING (true) WITH CHECK (true)', bound);
    END LOOP;
END
$$;
