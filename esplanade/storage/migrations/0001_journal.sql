-- The journal and the catalogue.
--
-- Three roles, none of which can log in; the login role is a member of each and takes one on:
--   esplanade_writer  appends segments, outbox entries and idempotency keys, and keeps leases, snapshots and the catalogue; never changes a segment
--   esplanade_reader  reads rows of the tenant named by the setting `esplanade.tenant`, and no others
--   esplanade_keeper  drops what is past its keeping: old outbox entries, expired keys
-- Row-level security binds them all, because none owns a table.

DO $$
DECLARE
    wanted name;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['esplanade_writer', 'esplanade_reader', 'esplanade_keeper']::name[] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT NOBYPASSRLS', wanted);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- roles belong to the whole server: another database of ours made it
        END;
        BEGIN
            EXECUTE format('GRANT %I TO %I', wanted, current_user);  -- having made a role does not yet mean to be able to take it on
        EXCEPTION WHEN insufficient_privilege THEN
            NULL;  -- the server's administrator made the roles and granted them
        END;
    END LOOP;
END
$$;

GRANT USAGE ON SCHEMA esplanade TO esplanade_writer, esplanade_reader, esplanade_keeper;

-- Times are milliseconds since 1970-01-01T00:00Z, by this server's clock.
CREATE FUNCTION now_ms() RETURNS bigint LANGUAGE sql VOLATILE PARALLEL SAFE
    AS $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;

CREATE TABLE partition_lease (
    partition integer PRIMARY KEY CHECK (partition BETWEEN 0 AND 255),
    owner text NOT NULL,
    epoch bigint NOT NULL CHECK (epoch >= 1),
    expires_ms bigint NOT NULL
) WITH (fillfactor = 50);

-- One row a flush and (tenant, partition). Entity i of the index has the versions first_versions[i] to last_versions[i] in it.
CREATE TABLE segment (
    tenant text NOT NULL,
    partition integer NOT NULL,
    position bigint NOT NULL CHECK (position >= 1),
    epoch bigint NOT NULL,
    written_ms bigint NOT NULL,
    entities text[] NOT NULL,
    first_versions bigint[] NOT NULL,
    last_versions bigint[] NOT NULL,
    body bytea NOT NULL,
    crc bigint NOT NULL,
    PRIMARY KEY (tenant, partition, position),
    CHECK (cardinality(entities) >= 1 AND cardinality(entities) = cardinality(first_versions) AND cardinality(entities) = cardinality(last_versions))
);
ALTER TABLE segment ALTER COLUMN body SET STORAGE EXTERNAL;  -- uncompressed: a megabyte in 3 ms where compression takes 16

CREATE TABLE snapshot (
    tenant text NOT NULL,
    partition integer NOT NULL,
    position bigint NOT NULL,
    written_ms bigint NOT NULL,
    body bytea NOT NULL,
    crc bigint NOT NULL,
    PRIMARY KEY (tenant, partition)
);
ALTER TABLE snapshot ALTER COLUMN body SET STORAGE EXTERNAL;

-- `epoch` is the generation of a topic's history: it changes only when that history was lost. Offsets up to `trimmed` are past their keeping.
CREATE TABLE outbox_topic (
    tenant text NOT NULL,
    topic text NOT NULL,
    epoch bigint NOT NULL DEFAULT 1,
    last_offset bigint NOT NULL DEFAULT 0,
    trimmed bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, topic),
    CHECK (epoch >= 1 AND trimmed BETWEEN 0 AND last_offset)
) WITH (fillfactor = 50);  -- updated by every flush: room for the new version on the same page

CREATE TABLE outbox (
    tenant text NOT NULL,
    topic text NOT NULL,
    epoch bigint NOT NULL,
    "offset" bigint NOT NULL CHECK ("offset" >= 1),
    created_ms bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (tenant, topic, epoch, "offset")
);
CREATE INDEX outbox_age ON outbox USING brin (created_ms);

CREATE TABLE idempotency (
    tenant text NOT NULL,
    key bytea NOT NULL,
    digest bytea NOT NULL,
    reply bytea NOT NULL,
    expires_ms bigint NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX idempotency_expiry ON idempotency (expires_ms);

CREATE TABLE tenant (
    tenant text PRIMARY KEY,
    name text NOT NULL,
    created_ms bigint NOT NULL
);

CREATE TABLE venue (
    tenant text NOT NULL REFERENCES tenant,
    venue text NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    digest text NOT NULL,
    created_ms bigint NOT NULL,
    document bytea NOT NULL,
    PRIMARY KEY (tenant, venue)
);

CREATE TABLE subject_sequence (
    tenant text PRIMARY KEY REFERENCES tenant,
    last_subject bigint NOT NULL
);

CREATE TABLE secret (
    name text PRIMARY KEY,
    value bytea NOT NULL
);

-- What each role may do.

GRANT SELECT, INSERT, UPDATE ON partition_lease, snapshot, outbox_topic, idempotency, venue, subject_sequence TO esplanade_writer;
GRANT SELECT, INSERT ON segment, outbox, tenant, secret TO esplanade_writer;
GRANT SELECT ON segment, snapshot, outbox_topic, outbox, idempotency, venue TO esplanade_reader;
GRANT SELECT, DELETE ON outbox, idempotency TO esplanade_keeper;
GRANT SELECT, UPDATE ON outbox_topic TO esplanade_keeper;

DO $$
DECLARE
    bound text;
BEGIN
    FOREACH bound IN ARRAY ARRAY['segment', 'snapshot', 'outbox_topic', 'outbox', 'idempotency', 'venue'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', bound);
        EXECUTE format('CREATE POLICY own_tenant ON %I FOR SELECT TO esplanade_reader USING (tenant = current_setting(''esplanade.tenant'', true))', bound);
        EXECUTE format('CREATE POLICY every_tenant ON %I TO esplanade_writer, esplanade_keeper USING (true) WITH CHECK (true)', bound);
    END LOOP;
END
$$;

-- One flush, one round trip, one transaction. Parameters are columns; the arrays of one group have one length. The index of append i is the next
-- counts[i] elements of `entities`, `first_versions` and `last_versions`; an append with count 0 checks and appends nothing.
-- Answers (epoch, offset) of the outbox entries, in their order.
-- Errors: ES001 an epoch or position is not the log's; ES002 a key is recorded already. Nothing happened then.
--
-- Locks, always in this order, so that flushes never deadlock: leases by partition, topics by (tenant, topic), keys by (tenant, key). A lease is held
-- FOR KEY SHARE: a renewal passes, a takeover (FOR UPDATE) waits for the commit and then raises the epoch, or came first and the flush sees its epoch.
CREATE FUNCTION journal_flush(
    tenants text[], partitions integer[], epochs bigint[], positions bigint[], counts integer[], bodies bytea[], crcs bigint[],
    entities text[], first_versions bigint[], last_versions bigint[],
    topic_tenants text[], topics text[], topic_bodies bytea[],
    key_tenants text[], keys bytea[], digests bytea[], replies bytea[], expiries bigint[]
) RETURNS TABLE (topic_epoch bigint, topic_offset bigint)
LANGUAGE plpgsql
SET search_path = esplanade, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    written bigint := now_ms();
    wrong record;
BEGIN
    PERFORM 1 FROM partition_lease WHERE partition = ANY (partitions) ORDER BY partition FOR KEY SHARE;

    SELECT a.partition, a.epoch, l.epoch AS held INTO wrong
    FROM unnest(partitions, epochs) AS a (partition, epoch) LEFT JOIN partition_lease l ON l.partition = a.partition
    WHERE l.epoch IS DISTINCT FROM a.epoch LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'ES001', MESSAGE = 'epoch', DETAIL = json_build_array(wrong.partition, wrong.epoch, wrong.held)::text;
    END IF;

    SELECT a.tenant, a.partition, a.position, head.position AS head INTO wrong
    FROM unnest(tenants, partitions, positions) AS a (tenant, partition, position)
    CROSS JOIN LATERAL (
        SELECT coalesce(max(s.position), 0) AS position FROM segment s WHERE s.tenant = a.tenant AND s.partition = a.partition
    ) AS head
    WHERE a.position <> head.position + 1 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'ES001', MESSAGE = 'position',
            DETAIL = json_build_array(wrong.tenant, wrong.partition, wrong.position, wrong.head)::text;
    END IF;

    INSERT INTO segment (tenant, partition, position, epoch, written_ms, entities, first_versions, last_versions, body, crc)
    SELECT a.tenant, a.partition, a.position, a.epoch, written,
        entities[a.until - a.count + 1 : a.until], first_versions[a.until - a.count + 1 : a.until], last_versions[a.until - a.count + 1 : a.until],
        a.body, a.crc
    FROM (
        SELECT u.*, sum(u.count) OVER (ORDER BY u.ordinal)::integer AS until
        FROM unnest(tenants, partitions, epochs, positions, counts, bodies, crcs) WITH ORDINALITY
            AS u (tenant, partition, epoch, position, count, body, crc, ordinal)
    ) AS a
    WHERE a.count > 0;

    IF cardinality(topics) > 0 THEN
        RETURN QUERY
        WITH entry AS (
            SELECT e.ordinal, e.tenant, e.topic, e.body,
                row_number() OVER (PARTITION BY e.tenant, e.topic ORDER BY e.ordinal) AS nth, count(*) OVER (PARTITION BY e.tenant, e.topic) AS total
            FROM unnest(topic_tenants, topics, topic_bodies) WITH ORDINALITY AS e (tenant, topic, body, ordinal)
        ), advanced AS (
            INSERT INTO outbox_topic AS t (tenant, topic, last_offset)
            SELECT tenant, topic, count(*) FROM entry GROUP BY tenant, topic ORDER BY tenant, topic
            ON CONFLICT (tenant, topic) DO UPDATE SET last_offset = t.last_offset + excluded.last_offset
            RETURNING t.tenant, t.topic, t.epoch, t.last_offset
        ), placed AS (
            SELECT e.ordinal, e.tenant, e.topic, a.epoch, a.last_offset - e.total + e.nth AS place, e.body
            FROM entry e JOIN advanced a ON a.tenant = e.tenant AND a.topic = e.topic
        ), stored AS (
            INSERT INTO outbox (tenant, topic, epoch, "offset", created_ms, body)
            SELECT tenant, topic, epoch, place, written, body FROM placed
        )
        SELECT epoch, place FROM placed ORDER BY ordinal;
    END IF;

    IF cardinality(keys) > 0 THEN
        INSERT INTO idempotency AS known (tenant, key, digest, reply, expires_ms)
        SELECT k.tenant, k.key, k.digest, k.reply, k.expires_ms
        FROM unnest(key_tenants, keys, digests, replies, expiries) AS k (tenant, key, digest, reply, expires_ms)
        ORDER BY k.tenant, k.key
        ON CONFLICT (tenant, key) DO UPDATE SET digest = excluded.digest, reply = excluded.reply, expires_ms = excluded.expires_ms
        WHERE known.expires_ms <= written;

        SELECT k.tenant, encode(k.key, 'hex') AS key INTO wrong
        FROM unnest(key_tenants, keys) AS k (tenant, key) JOIN idempotency known ON known.tenant = k.tenant AND known.key = k.key
        WHERE known.xmin <> pg_current_xact_id()::xid LIMIT 1;  -- a row that this transaction did not write
        IF FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'ES002', MESSAGE = 'key', DETAIL = json_build_array(wrong.tenant, wrong.key)::text;
        END IF;
    END IF;
END
$$;
