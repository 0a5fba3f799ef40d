-- Segments of format 2: the last event of a connection's command carries what the command was answered. Until then that was an event of its own (`answered.v1`), and
-- still is where the entity is about a person, sealed.

-- A small segment stays on its row as a whole: moving 2 KB out of it costs a flush more than all else about the row.
ALTER TABLE segment SET (toast_tuple_target = 8160);

DROP FUNCTION journal_flush;
DROP FUNCTION journal_events;
DROP VIEW journal_event;
DROP FUNCTION segment_events;

-- The events of a segment's body: format byte 01, then msgpack of an array of (entity, version, type, body); or 02, where (client, sequence, reply) follow in each: of the last
-- event of a connection's command, `answer` is {client, sequence, reply}. What is not wanted is skipped without being decoded.
-- Errors: ES003 for another format, or bytes that cannot be read. Checksums are not compared here: `esplanade journal verify` does that.
CREATE FUNCTION segment_events(segment bytea, wanted_entity text DEFAULT NULL, wanted_type text DEFAULT NULL)
RETURNS TABLE (entity text, version bigint, type text, body jsonb, answer jsonb)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE ROWS 100
AS $$
#variable_conflict use_variable
DECLARE
    data bytea := segment || ''::bytea;  -- out of the table's storage, once
    head integer := get_byte(data, 1);
    count integer;
    at integer := 2;
    part record;
    size integer;
    names text[];
    format integer := get_byte(data, 0);
    wanted boolean;
    parts jsonb[];
BEGIN
    IF format NOT IN (1, 2) THEN
        RAISE EXCEPTION USING ERRCODE = 'ES003', MESSAGE = format('segment of format %s: this schema reads 1 and 2', format), HINT = 'Upgrade Esplanade.';
    END IF;
    IF head BETWEEN 144 AND 159 THEN count := head - 144;
    ELSIF head BETWEEN 220 AND 221 THEN count := esplanade.msgpack_uint(data, 2, 2 << (head - 220)); at := 2 + (2 << (head - 220));
    ELSE RAISE EXCEPTION USING ERRCODE = 'ES003', MESSAGE = format('segment: %s begins no array of events', to_hex(head));
    END IF;
    FOR i IN 1 .. count LOOP
        IF get_byte(data, at) <> (CASE format WHEN 1 THEN 148 ELSE 151 END) THEN
            RAISE EXCEPTION USING ERRCODE = 'ES003', MESSAGE = format('segment: %s at byte %s begins no event', to_hex(get_byte(data, at)), at);
        END IF;
        part := esplanade.msgpack_value(data, at + 1);
        entity := part.value #>> '{}';
        part := esplanade.msgpack_value(data, part.next);
        version := part.value::bigint;
        part := esplanade.msgpack_value(data, part.next);
        type := part.value #>> '{}';
        head := get_byte(data, part.next);
        IF head NOT BETWEEN 196 AND 198 THEN
            RAISE EXCEPTION USING ERRCODE = 'ES003', MESSAGE = format('segment: %s at byte %s begins no body', to_hex(head), part.next);
        END IF;
        size := esplanade.msgpack_uint(data, part.next + 1, 1 << (head - 196));
        at := part.next + 1 + (1 << (head - 196));
        wanted := (wanted_entity IS NULL OR entity = wanted_entity) AND (wanted_type IS NULL OR type = wanted_type);
        IF wanted THEN
            part := esplanade.msgpack_value(substring(data FROM at + 1 FOR size), 0);
            body := part.value;
            names := esplanade.event_fields(type);
            IF names IS NOT NULL AND jsonb_typeof(body) = 'array' THEN
                SELECT coalesce(jsonb_object_agg(coalesce(names[f.place], (f.place - 1)::text), f.field), '{}') INTO body
                FROM jsonb_array_elements(body) WITH ORDINALITY AS f (field, place);
            END IF;
        END IF;
        at := at + size;
        answer := NULL;
        IF format = 2 THEN
            parts := '{}';
            FOR j IN 1 .. 3 LOOP
                part := esplanade.msgpack_value(data, at);
                parts := array_append(parts, part.value);
                at := part.next;
            END LOOP;
            IF parts[3] <> '""' THEN
                answer := jsonb_build_object('client', parts[1], 'sequence', parts[2], 'reply', parts[3]);
            END IF;
        END IF;
        IF wanted THEN
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;

CREATE VIEW journal_event WITH (security_invoker = true) AS
    SELECT s.tenant, s.partition, s.position, s.epoch, to_timestamp(s.written_ms / 1000.0) AS written, e.entity, e.version, e.type, e.body, e.answer
    FROM esplanade.segment s CROSS JOIN LATERAL esplanade.segment_events(s.body) AS e;

-- The same, narrowed before anything is decoded: by entity (through the index of each segment), by type, by time written.
CREATE FUNCTION journal_events(
    of_entity text DEFAULT NULL, of_type text DEFAULT NULL, since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity'
) RETURNS TABLE (tenant text, partition integer, "position" bigint, epoch bigint, written timestamptz, entity text, version bigint, type text, body jsonb, answer jsonb)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT s.tenant, s.partition, s.position, s.epoch, to_timestamp(s.written_ms / 1000.0), e.entity, e.version, e.type, e.body, e.answer
    FROM esplanade.segment s CROSS JOIN LATERAL esplanade.segment_events(s.body, of_entity, of_type) AS e
    WHERE (of_entity IS NULL OR s.entities @> ARRAY[of_entity])
        AND to_timestamp(s.written_ms / 1000.0) >= since AND to_timestamp(s.written_ms / 1000.0) < until
    ORDER BY s.tenant, s.partition, s.position, e.version
$$;

GRANT SELECT ON journal_event TO esplanade_reader;

-- As before, but the entities of append i come as one text, parted by line ends: cutting each append's share out of one long array of texts walked through all before it,
-- and took a fifth of a flush.
--
-- One flush, one round trip, one transaction. Parameters are columns; the arrays of one group have one length. `names[i]` are the counts[i] entities of append i; their versions
-- are the next counts[i] elements of `first_versions` and `last_versions`; an append with count 0 checks and appends nothing.
-- Answers (epoch, offset) of the outbox entries, in their order.
-- Errors: ES001 an epoch or position is not the log's; ES002 a key is recorded already. Nothing happened then.
--
-- Locks, always in this order, so that flushes never deadlock: leases by partition, topics by (tenant, topic), keys by (tenant, key). A lease is held
-- FOR KEY SHARE: a renewal passes, a takeover (FOR UPDATE) waits for the commit and then raises the epoch, or came first and the flush sees its epoch.
CREATE FUNCTION journal_flush(
    tenants text[], partitions integer[], epochs bigint[], positions bigint[], counts integer[], bodies bytea[], crcs bigint[],
    names text[], first_versions bigint[], last_versions bigint[],
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

    -- From the position before on: one entry of the primary key is read where all is right, not a page of them.
    SELECT a.tenant, a.partition, a.position INTO wrong
    FROM unnest(tenants, partitions, positions) AS a (tenant, partition, position)
    CROSS JOIN LATERAL (
        SELECT coalesce(max(s.position), 0) AS position FROM segment s
        WHERE s.tenant = a.tenant AND s.partition = a.partition AND s.position >= a.position - 1
    ) AS head
    WHERE a.position <> head.position + 1 LIMIT 1;
    IF FOUND THEN
        SELECT wrong.tenant, wrong.partition, wrong.position, coalesce(max(s.position), 0) AS head INTO wrong
        FROM segment s WHERE s.tenant = wrong.tenant AND s.partition = wrong.partition;
        RAISE EXCEPTION USING ERRCODE = 'ES001', MESSAGE = 'position',
            DETAIL = json_build_array(wrong.tenant, wrong.partition, wrong.position, wrong.head)::text;
    END IF;

    INSERT INTO segment (tenant, partition, position, epoch, written_ms, entities, first_versions, last_versions, body, crc)
    SELECT a.tenant, a.partition, a.position, a.epoch, written,
        string_to_array(a.names, E'\n'),
        -- (SELECT ...): taken once, and flat; a PL/pgSQL variable holds an array unfolded, to be folded as a whole for each slice of it.
        (SELECT first_versions)[a.until - a.count + 1 : a.until], (SELECT last_versions)[a.until - a.count + 1 : a.until],
        a.body, a.crc
    FROM (
        SELECT u.*, sum(u.count) OVER (ORDER BY u.ordinal)::integer AS until
        FROM unnest(tenants, partitions, epochs, positions, counts, names, bodies, crcs) WITH ORDINALITY
            AS u (tenant, partition, epoch, position, count, names, body, crc, ordinal)
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
