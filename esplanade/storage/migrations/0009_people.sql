-- When somebody was last heard of, to the quarter of a day: what their tenant's retention is counted from. A person who is erased leaves the table.

CREATE TABLE person_heard (
    tenant text NOT NULL REFERENCES tenant,
    subject bigint NOT NULL,
    heard_ms bigint NOT NULL,
    PRIMARY KEY (tenant, subject)
);
CREATE INDEX person_heard_time ON person_heard (tenant, heard_ms);

-- Who was known before this was kept is counted from now on, so that nobody goes on the day of the upgrade.
INSERT INTO person_heard (tenant, subject, heard_ms)
    SELECT known.tenant, known.subject, now_ms() FROM (
        SELECT k.tenant, k.subject::bigint AS subject FROM subject_key AS k JOIN tenant AS t ON t.tenant = k.tenant
        WHERE k.erased_ms IS NULL AND k.subject ~ '^[0-9]{1,10}$'
        UNION
        SELECT a.tenant, a.subject FROM account AS a
    ) AS known;

GRANT SELECT, INSERT, UPDATE ON person_heard TO esplanade_writer;
GRANT SELECT, DELETE ON person_heard TO esplanade_keeper;
GRANT SELECT ON person_heard TO esplanade_reader;

ALTER TABLE person_heard ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON person_heard FOR SELECT TO esplanade_reader USING (tenant = current_setting('esplanade.tenant', true));
CREATE POLICY every_tenant ON person_heard TO esplanade_writer, esplanade_keeper USING (true) WITH CHECK (true);
