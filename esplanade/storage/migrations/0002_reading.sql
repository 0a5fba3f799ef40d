-- The journal for people with SQL: one row an event, bodies as jsonb. Everything here is read with the caller's own rights, so row-level security holds:
--   SET ROLE esplanade_reader; SET esplanade.tenant = 'demo'; SELECT * FROM esplanade.journal_event;
-- docs/journal.md has the examples. Decoding costs some 150 microseconds an event: fine for questions, not for a replay.

-- One msgpack value of `data` at byte `at` (from 0), and the byte after it. nil, bool, numbers, strings, arrays and maps are what they are in JSON; bin is base64 (as a string);
-- a timestamp (ext -1) is an ISO string in UTC; other ext types are {"ext": type, "data": base64}; NaN and infinities, and strings with a NUL, which jsonb cannot hold, are strings
-- ("NaN", "Infinity", "-Infinity") and {"base64": ...}. Keys of maps become strings. Errors: ES003 for bytes that are no msgpack, or nested deeper than 64.
-- `data` must not be toasted: each look at a byte would read it whole. `segment_events` sees to that.
CREATE FUNCTION msgpack_value(data bytea, at integer, depth integer DEFAULT 0, OUT value jsonb, OUT next integer)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    head integer;
    size integer;       -- bytes of a string, bin or ext
    count integer := 0; -- elements of an array, pairs of a map
    kind char;          -- s string, b bin, a array, m map, x ext
    wide numeric;
    bits bigint;
    exponent integer;
    item record;
    key record;
    items jsonb[] := '{}';
    pairs text[] := '{}';
    raw bytea;
    tag integer;
    seconds bigint;
    nanoseconds bigint := 0;
BEGIN
    IF at < 0 OR at >= octet_length(data) OR depth > 64 THEN
        RAISE EXCEPTION USING ERRCODE = 'ES003', MESSAGE = format('msgpack at byte %s of %s, depth %s: ends too early, or is nested too deeply', at, octet_length(data), depth);
    END IF;
    head := get_byte(data, at);
    next := at + 1;
    IF head < 128 THEN value := to_jsonb(head); RETURN;
    ELSIF head >= 224 THEN value := to_jsonb(head - 256); RETURN;
    ELSIF head >= 160 AND head < 192 THEN kind := 's'; size := head - 160;
    ELSIF head >= 144 AND head < 160 THEN kind := 'a'; count := head - 144;
    ELSIF head < 144 THEN kind := 'm'; count := head - 128;
    ELSIF head = 192 THEN value := 'null'::jsonb; RETURN;
    ELSIF head = 194 THEN value := 'false'::jsonb; RETURN;
    ELSIF head = 195 THEN value := 'true'::jsonb; RETURN;
    ELSIF head BETWEEN 196 AND 198 THEN kind := 'b'; size := esplanade.msgpack_uint(data, next, 1 << (head - 196)); next := next + (1 << (head - 196));
    ELSIF head BETWEEN 217 AND 219 THEN kind := 's'; size := esplanade.msgpack_uint(data, next, 1 << (head - 217)); next := next + (1 << (head - 217));
    ELSIF head BETWEEN 220 AND 221 THEN kind := 'a'; count := esplanade.msgpack_uint(data, next, 2 << (head - 220)); next := next + (2 << (head - 220));
    ELSIF head BETWEEN 222 AND 223 THEN kind := 'm'; count := esplanade.msgpack_uint(data, next, 2 << (head - 222)); next := next + (2 << (head - 222));
    ELSIF head BETWEEN 204 AND 207 THEN
        size := 1 << (head - 204);
        value := to_jsonb(esplanade.msgpack_uint(data, next, size)); next := next + size; RETURN;
    ELSIF head BETWEEN 208 AND 211 THEN
        size := 1 << (head - 208);
        wide := esplanade.msgpack_uint(data, next, size);
        value := to_jsonb(CASE WHEN wide >= 2::numeric ^ (8 * size - 1) THEN wide - 2::numeric ^ (8 * size) ELSE wide END::bigint); next := next + size; RETURN;
    ELSIF head = 202 THEN
        bits := esplanade.msgpack_uint(data, next, 4)::bigint; next := next + 4;
        exponent := (bits >> 23 & 255)::integer;
        value := esplanade.msgpack_float(bits >> 31 = 1, exponent = 255, exponent = 0, (bits & 8388607)::float8 / 8388608, exponent - 127); RETURN;
    ELSIF head = 203 THEN
        wide := esplanade.msgpack_uint(data, next, 8); next := next + 8;
        bits := (wide % 9007199254740992::numeric)::bigint;  -- without the sign and the exponent's top bits
        exponent := (div(wide, 4503599627370496::numeric) % 2048)::integer;
        value := esplanade.msgpack_float(
            wide >= 9223372036854775808::numeric, exponent = 2047, exponent = 0, (bits & 4503599627370495)::float8 / 4503599627370496::float8, exponent - 1023
        ); RETURN;
    ELSIF head BETWEEN 212 AND 216 THEN kind := 'x'; size := 1 << (head - 212);
    ELSIF head BETWEEN 199 AND 201 THEN kind := 'x'; size := esplanade.msgpack_uint(data, next, 1 << (head - 199)); next := next + (1 << (head - 199));
    ELSE
        RAISE EXCEPTION USING ERRCODE = 'ES003', MESSAGE = format('msgpack at byte %s: %s begins no value', at, to_hex(head));
    END IF;

    IF kind = 'a' THEN
        FOR i IN 1 .. count LOOP
            item := esplanade.msgpack_value(data, next, depth + 1);
            items := array_append(items, item.value);
            next := item.next;
        END LOOP;
        value := to_jsonb(items);
        RETURN;
    ELSIF kind = 'm' THEN
        FOR i IN 1 .. count LOOP
            key := esplanade.msgpack_value(data, next, depth + 1);
            item := esplanade.msgpack_value(data, key.next, depth + 1);
            pairs := array_append(pairs, coalesce(key.value #>> '{}', 'null'));
            items := array_append(items, item.value);
            next := item.next;
        END LOOP;
        SELECT coalesce(jsonb_object_agg(k, v), '{}') INTO value FROM unnest(pairs, items) AS pair (k, v);
        RETURN;
    END IF;

    IF kind = 'x' THEN
        tag := esplanade.msgpack_uint(data, next, 1)::integer;
        next := next + 1;
    END IF;
    IF next + size > octet_length(data) THEN
        RAISE EXCEPTION USING ERRCODE = 'ES003', MESSAGE = format('msgpack at byte %s: %s bytes wanted, %s there', at, size, octet_length(data) - next);
    END IF;
    raw := substring(data FROM next + 1 FOR size);
    next := next + size;
    IF kind = 's' THEN
        value := CASE WHEN position('\x00'::bytea IN raw) > 0 THEN jsonb_build_object('base64', esplanade.msgpack_base64(raw)) ELSE to_jsonb(convert_from(raw, 'UTF8')) END;
    ELSIF kind = 'b' THEN
        value := to_jsonb(esplanade.msgpack_base64(raw));
    ELSIF tag = 255 AND size IN (4, 8, 12) THEN
        IF size = 4 THEN seconds := esplanade.msgpack_uint(raw, 0, 4);
        ELSIF size = 8 THEN
            wide := esplanade.msgpack_uint(raw, 0, 8);
            nanoseconds := div(wide, 17179869184::numeric); seconds := wide % 17179869184::numeric;
        ELSE
            nanoseconds := esplanade.msgpack_uint(raw, 0, 4);
            wide := esplanade.msgpack_uint(raw, 4, 8);
            seconds := CASE WHEN wide >= 9223372036854775808::numeric THEN wide - 18446744073709551616::numeric ELSE wide END;
        END IF;
        value := to_jsonb(to_char(
            timestamp '1970-01-01' + seconds * interval '1 second' + (nanoseconds / 1000) * interval '1 microsecond', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
        ));
    ELSE
        value := jsonb_build_object('ext', CASE WHEN tag > 127 THEN tag - 256 ELSE tag END, 'data', esplanade.msgpack_base64(raw));
    END IF;
END
$$;

-- An unsigned integer of `size` bytes (1, 2, 4 or 8), big-endian.
CREATE FUNCTION msgpack_uint(data bytea, at integer, size integer) RETURNS numeric
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    found bigint := 0;
BEGIN
    IF at + size > octet_length(data) THEN
        RAISE EXCEPTION USING ERRCODE = 'ES003', MESSAGE = format('msgpack at byte %s: %s bytes wanted, %s there', at, size, octet_length(data) - at);
    END IF;
    IF size < 8 THEN
        FOR i IN 0 .. size - 1 LOOP
            found := found << 8 | get_byte(data, at + i);
        END LOOP;
        RETURN found;
    END IF;
    RETURN esplanade.msgpack_uint(data, at, 4) * 4294967296::numeric + esplanade.msgpack_uint(data, at + 4, 4);
END
$$;

CREATE FUNCTION msgpack_base64(data bytea) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$ SELECT translate(encode(data, 'base64'), E'\n', '') $$;

-- The number with this fraction (0 to 1) and exponent; exact, since scaling by a power of two is.
CREATE FUNCTION msgpack_float(negative boolean, special boolean, small boolean, fraction float8, exponent integer) RETURNS jsonb
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN special AND fraction > 0 THEN '"NaN"'::jsonb
        WHEN special AND negative THEN '"-Infinity"'::jsonb
        WHEN special THEN '"Infinity"'::jsonb
        WHEN small AND fraction = 0 THEN '0.0'::jsonb
        WHEN small THEN to_jsonb(CASE WHEN negative THEN -1 ELSE 1 END * (fraction * 2::float8 ^ (exponent + 53)) * 2::float8 ^ -52)
        ELSE to_jsonb(CASE WHEN negative THEN -1 ELSE 1 END * (1 + fraction) * 2::float8 ^ exponent)
    END
$$;

-- Names of an event type's fields, in their order on the wire; none for a type that this schema does not know, whose body then stays an array.
-- Fields that were added since are named by their number. tests/storage/test_reading.py compares this with actors/events.py.
CREATE FUNCTION event_fields(type text) RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT string_to_array(CASE type
        WHEN 'answered.v1' THEN 'client sequence reply'
        WHEN 'offer_created.v1' THEN 'tick offer'
        WHEN 'offer_ended.v1' THEN 'offer_id tick'
        WHEN 'bays_changed.v1' THEN 'bays'
        WHEN 'scan_qr.v1' THEN 'venue location'
        WHEN 'topped_up.v1' THEN 'tick currency key subject amount ordered'
        WHEN 'paid.v1' THEN 'tick venue currency key subject unit amount ordered'
        WHEN 'transferred.v1' THEN 'clock now venue currency op key debit credit amount reference expires ordered'
        WHEN 'holds_expired.v1' THEN 'clock now key'
        WHEN 'transfers_sent.v1' THEN 'currency key subject to amount ordered'
        WHEN 'transfers_received.v1' THEN 'source through currency sequence key subject to amount outcome'
        WHEN 'transfers_finished.v1' THEN 'peer currency sequence outcome key subject amount'
        WHEN 'accounts_set.v1' THEN 'venue currency account frozen move_cap day_cap'
        WHEN 'day_closed.v1' THEN 'day next_day currencies venues code balance'
        WHEN 'venue_bound.v1' THEN 'digest numbering'
        WHEN 'source_opened.v1' THEN 'source first_tick'
        WHEN 'source_closed.v1' THEN 'source tick silent'
        WHEN 'offers_adopted.v1' THEN 'tick offers'
        WHEN 'transitions.v1' THEN 'tick subject fence entered'
        WHEN 'dwelt.v1' THEN 'tick subject fence'
        WHEN 'pushed.v1' THEN 'tick offers offer subject'
        WHEN 'seen.v1' THEN 'tick subject level x y ago'
        WHEN 'late.v1' THEN 'tick rows ticks'
        WHEN 'allotment_opened.v1' THEN 'venue unit currency amount limit each closes_ms'
        WHEN 'takes_begun.v1' THEN 'now_ms key subject count'
        WHEN 'takes_decided.v1' THEN 'key what'
        WHEN 'reminder_set.v1' THEN 'name due_ms period_ms payload'
        WHEN 'reminder_dropped.v1' THEN 'name'
        WHEN 'reminder_fired.v1' THEN 'name due_ms next_ms'
        WHEN 'access_changed.v1' THEN 'closed opened'
        WHEN 'zone_drawn.v1' THEN 'tick zone'
        WHEN 'zone_erased.v1' THEN 'tick zone_id'
        WHEN 'traits_set.v1' THEN 'subject segments language'
        WHEN 'gates_counted.v1' THEN 'counts inside'
        WHEN 'cars_recounted.v1' THEN 'inside'
        WHEN 'anchors_hosted.v1' THEN 'owner anchors'
        WHEN 'anchors_removed.v1' THEN 'ids expired'
        WHEN 'anchors_observed.v1' THEN 'subject seen agreed'
        WHEN 'anchors_carried.v1' THEN 'carrier level position_m rotation'
        WHEN 'anchors_refined.v1' THEN 'ids position rotation'
        WHEN 'scene_edited.v1' THEN 'author now_ms ops'
        WHEN 'traits_adopted.v1' THEN 'tick subject segments languages spoken'
        WHEN 'zones_adopted.v1' THEN 'tick drawn erased'
        WHEN 'zones_crossed.v1' THEN 'tick zones kind zone subject confidence'
        WHEN 'zones_pending.v1' THEN 'tick zones zone subject since'
        WHEN 'venue_edited.v1' THEN 'tick act edit before digest document other'
    END, ' ')
$$;

-- The events of a segment's body: format byte 01, then msgpack of an array of (entity, version, type, body). What is not wanted is skipped without being decoded.
-- Errors: ES003 for another format, or bytes that cannot be read. Checksums are not compared here: `esplanade journal verify` does that.
CREATE FUNCTION segment_events(segment bytea, wanted_entity text DEFAULT NULL, wanted_type text DEFAULT NULL)
RETURNS TABLE (entity text, version bigint, type text, body jsonb)
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
BEGIN
    IF get_byte(data, 0) <> 1 THEN
        RAISE EXCEPTION USING ERRCODE = 'ES003', MESSAGE = format('segment of format %s: this schema reads 1', get_byte(data, 0)), HINT = 'Upgrade Esplanade.';
    END IF;
    IF head BETWEEN 144 AND 159 THEN count := head - 144;
    ELSIF head BETWEEN 220 AND 221 THEN count := esplanade.msgpack_uint(data, 2, 2 << (head - 220)); at := 2 + (2 << (head - 220));
    ELSE RAISE EXCEPTION USING ERRCODE = 'ES003', MESSAGE = format('segment: %s begins no array of events', to_hex(head));
    END IF;
    FOR i IN 1 .. count LOOP
        IF get_byte(data, at) <> 148 THEN
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
        IF (wanted_entity IS NULL OR entity = wanted_entity) AND (wanted_type IS NULL OR type = wanted_type) THEN
            part := esplanade.msgpack_value(substring(data FROM at + 1 FOR size), 0);
            body := part.value;
            names := esplanade.event_fields(type);
            IF names IS NOT NULL AND jsonb_typeof(body) = 'array' THEN
                SELECT coalesce(jsonb_object_agg(coalesce(names[f.place], (f.place - 1)::text), f.field), '{}') INTO body
                FROM jsonb_array_elements(body) WITH ORDINALITY AS f (field, place);
            END IF;
            RETURN NEXT;
        END IF;
        at := at + size;
    END LOOP;
END
$$;

-- Which events there are, from the index alone: cheap, and whatever the format of the bodies.
CREATE VIEW journal_entry WITH (security_invoker = true) AS
    SELECT s.tenant, s.partition, s.position, s.epoch, to_timestamp(s.written_ms / 1000.0) AS written, i.entity, v.version
    FROM esplanade.segment s
    CROSS JOIN LATERAL unnest(s.entities, s.first_versions, s.last_versions) AS i (entity, first, last)
    CROSS JOIN LATERAL generate_series(i.first, i.last) AS v (version);

CREATE VIEW journal_event WITH (security_invoker = true) AS
    SELECT s.tenant, s.partition, s.position, s.epoch, to_timestamp(s.written_ms / 1000.0) AS written, e.entity, e.version, e.type, e.body
    FROM esplanade.segment s CROSS JOIN LATERAL esplanade.segment_events(s.body) AS e;

-- The same, narrowed before anything is decoded: by entity (through the index of each segment), by type, by time written.
CREATE FUNCTION journal_events(
    of_entity text DEFAULT NULL, of_type text DEFAULT NULL, since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity'
) RETURNS TABLE (tenant text, partition integer, "position" bigint, epoch bigint, written timestamptz, entity text, version bigint, type text, body jsonb)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT s.tenant, s.partition, s.position, s.epoch, to_timestamp(s.written_ms / 1000.0), e.entity, e.version, e.type, e.body
    FROM esplanade.segment s CROSS JOIN LATERAL esplanade.segment_events(s.body, of_entity, of_type) AS e
    WHERE (of_entity IS NULL OR s.entities @> ARRAY[of_entity])
        AND to_timestamp(s.written_ms / 1000.0) >= since AND to_timestamp(s.written_ms / 1000.0) < until
    ORDER BY s.tenant, s.partition, s.position, e.version
$$;

-- Columns inside a body: little-endian numbers as they stand in an event, base64 in the jsonb.
CREATE FUNCTION column_numbers(encoded text, size integer, signed boolean) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    data bytea := decode(encoded, 'base64');
    found bigint[] := '{}';
    number bigint;
BEGIN
    FOR at IN 0 .. octet_length(data) / size - 1 LOOP
        number := 0;
        FOR i IN REVERSE size - 1 .. 0 LOOP
            number := number << 8 | get_byte(data, at * size + i);
        END LOOP;
        found[at + 1] := number;
    END LOOP;
    RETURN found;
END
$$;

CREATE FUNCTION column_u1(encoded text) RETURNS bigint[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT esplanade.column_numbers(encoded, 1, false) $$;
CREATE FUNCTION column_u2(encoded text) RETURNS bigint[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT esplanade.column_numbers(encoded, 2, false) $$;
CREATE FUNCTION column_u4(encoded text) RETURNS bigint[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT esplanade.column_numbers(encoded, 4, false) $$;
CREATE FUNCTION column_i8(encoded text) RETURNS bigint[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT esplanade.column_numbers(encoded, 8, true) $$;
-- 16 bytes each, as hexadecimal digits.
CREATE FUNCTION column_key(encoded text) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT coalesce(array_agg(encode(substring(d.data FROM i FOR 16), 'hex') ORDER BY i), '{}')
    FROM (SELECT decode(encoded, 'base64') AS data) AS d CROSS JOIN generate_series(1, octet_length(d.data), 16) AS i $$;

GRANT SELECT ON journal_entry, journal_event TO esplanade_reader;
