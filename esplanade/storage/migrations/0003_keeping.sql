-- What is kept beside the journal: the audit trail.

-- Who did what, and what came of it. Written once: no role may change or remove a line. `id` is made by the process that writes, so that a batch sent twice stands once.
CREATE TABLE audit (
    id uuid PRIMARY KEY,
    tenant text NOT NULL,
    at_ms bigint NOT NULL,
    who text NOT NULL,
    what text NOT NULL,
    target text NOT NULL,
    origin text NOT NULL,
    outcome text NOT NULL,
    detail jsonb NOT NULL
);
CREATE INDEX audit_time ON audit (tenant, at_ms);

GRANT INSERT ON audit TO esplanade_writer;
GRANT SELECT ON audit TO esplanade_reader;
ALTER TABLE audit ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON audit FOR SELECT TO esplanade_reader USING (tenant = current_setting('esplanade.tenant', true));
CREATE POLICY every_tenant ON audit FOR INSERT TO esplanade_writer WITH CHECK (true);
