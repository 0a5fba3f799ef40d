-- Who somebody is: signing keys, accounts, operators, families of refresh tokens, API keys, and what was revoked. No secret lies here in the clear: of tokens, codes and keys there are
-- hashes, of passwords argon2, and seeds are sealed by the deployment's master key.

DELETE FROM secret WHERE name = 'token-signing-key';  -- it lay in the clear, and in backups; tokens it signed end here

CREATE TABLE signing_key (
    kid text PRIMARY KEY,
    public bytea NOT NULL,
    sealed bytea NOT NULL,
    made_ms bigint NOT NULL,
    signs_from_ms bigint NOT NULL,
    verifies_until_ms bigint  -- null: the key that signs, or will
);

-- Who a person is elsewhere: an issuer and a keyed hash of what it calls them (its `sub`, an address that a code was sent to).
CREATE TABLE account (
    tenant text NOT NULL REFERENCES tenant,
    issuer text NOT NULL,
    name_digest bytea NOT NULL,
    subject bigint NOT NULL,
    made_ms bigint NOT NULL,
    PRIMARY KEY (tenant, issuer, name_digest)
);
CREATE INDEX account_subject ON account (tenant, subject);

CREATE TABLE operator (
    tenant text NOT NULL REFERENCES tenant,
    name text NOT NULL,
    subject bigint NOT NULL,
    role text NOT NULL,
    password text NOT NULL,
    totp bytea,  -- sealed
    totp_step bigint NOT NULL DEFAULT 0,  -- the last time step whose code was taken
    failures integer NOT NULL DEFAULT 0,
    locked_until_ms bigint NOT NULL DEFAULT 0,
    made_ms bigint NOT NULL,
    disabled_ms bigint,
    PRIMARY KEY (tenant, name)
);

-- One sign-in, and every refresh token that came of it.
CREATE TABLE token_family (
    family text PRIMARY KEY,
    tenant text NOT NULL,
    subject bigint NOT NULL,
    role text NOT NULL,
    source text,
    client text NOT NULL,
    made_ms bigint NOT NULL,
    expires_ms bigint NOT NULL,
    revoked_ms bigint
);
CREATE INDEX token_family_subject ON token_family (tenant, subject);
CREATE INDEX token_family_expiry ON token_family (expires_ms);

CREATE TABLE refresh_token (
    digest bytea PRIMARY KEY,
    family text NOT NULL REFERENCES token_family ON DELETE CASCADE,
    made_ms bigint NOT NULL,
    spent_ms bigint
);
CREATE INDEX refresh_token_family ON refresh_token (family);

-- What is good for one use: authorization codes, codes sent to a phone.
CREATE TABLE one_time (
    kind text NOT NULL,
    id text NOT NULL,
    tenant text NOT NULL,
    body bytea NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    expires_ms bigint NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX one_time_expiry ON one_time (expires_ms);

CREATE TABLE api_key (
    id text PRIMARY KEY,
    tenant text NOT NULL REFERENCES tenant,
    name text NOT NULL,
    role text NOT NULL,
    permissions text[],  -- null: all that the role has
    venue text,
    unit text,
    source text,
    subject bigint NOT NULL,
    made_ms bigint NOT NULL,
    expires_ms bigint,
    revoked_ms bigint
);

CREATE TABLE api_key_secret (
    digest bytea PRIMARY KEY,
    key text NOT NULL REFERENCES api_key ON DELETE CASCADE,
    made_ms bigint NOT NULL,
    ends_ms bigint
);
CREATE INDEX api_key_secret_key ON api_key_secret (key);

-- What no longer counts though it has not run out. Kept until it would have; every gateway hears of a new line at once (channel esplanade_revocation).
CREATE TABLE revocation (
    tenant text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('family', 'subject', 'key')),
    what text NOT NULL,
    at_ms bigint NOT NULL,
    until_ms bigint NOT NULL,
    written_ms bigint NOT NULL DEFAULT now_ms(),
    PRIMARY KEY (tenant, kind, what)
);
CREATE INDEX revocation_written ON revocation (written_ms);

CREATE FUNCTION revocation_told() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('esplanade_revocation', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER revocation_told AFTER INSERT OR UPDATE ON revocation FOR EACH STATEMENT EXECUTE FUNCTION revocation_told();

GRANT SELECT, INSERT, UPDATE ON signing_key, account, operator, token_family, refresh_token, one_time, api_key, api_key_secret, revocation TO esplanade_writer;
GRANT DELETE ON one_time TO esplanade_writer;
GRANT DELETE ON account TO esplanade_keeper;  -- erasure
GRANT SELECT, DELETE ON token_family, refresh_token, one_time, revocation, signing_key TO esplanade_keeper;
GRANT SELECT ON account TO esplanade_keeper;

-- The reader sees who there is in its tenant, and nothing that could be tried.
GRANT SELECT (tenant, name, subject, role, made_ms, disabled_ms) ON operator TO esplanade_reader;
GRANT SELECT (tenant, family, subject, role, client, made_ms, expires_ms, revoked_ms) ON token_family TO esplanade_reader;
GRANT SELECT ON api_key, revocation TO esplanade_reader;

DO $$
DECLARE
    bound text;
BEGIN
    FOREACH bound IN ARRAY ARRAY['account', 'operator', 'token_family', 'one_time', 'api_key', 'revocation'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', bound);
        EXECUTE format('CREATE POLICY own_tenant ON %I FOR SELECT TO esplanade_reader USING (tenant = current_setting(''esplanade.tenant'', true))', bound);
        EXECUTE format('CREATE POLICY every_tenant ON %I TO esplanade_writer, esplanade_keeper USING (true) WITH CHECK (true)', bound);
    END LOOP;
END
$$;
