-- What is kept beside the journal: the audit trail, the keys of what is personal, and what has been archived.

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

-- Keys that seal what is personal about a subject, each wrapped by the deployment's master key. Erasing a subject destroys its key and leaves the row, so that nothing is
-- ever sealed for it again. The reader has no business here; the keeper alone can destroy a key, and can make none.
CREATE TABLE subject_key (
    tenant text NOT NULL,
    subject text NOT NULL,
    wrapped bytea,
    made_ms bigint NOT NULL,
    erased_ms bigint,
    PRIMARY KEY (tenant, subject),
    CHECK ((wrapped IS NULL) = (erased_ms IS NOT NULL))
);
GRANT SELECT, INSERT ON subject_key TO esplanade_writer;
GRANT SELECT, INSERT, UPDATE ON subject_key TO esplanade_keeper;

-- Which positions of a log have left `segment` for a file. The newest segment of a log never does, so the next position still follows from the table.
CREATE TABLE archive (
    tenant text NOT NULL,
    partition integer NOT NULL,
    first bigint NOT NULL CHECK (first >= 1),
    last bigint NOT NULL,
    segments bigint NOT NULL,
    file text NOT NULL,
    sha256 text NOT NULL,
    archived_ms bigint NOT NULL,
    PRIMARY KEY (tenant, partition, first),
    CHECK (segments = last - first + 1)
);
GRANT SELECT ON archive TO esplanade_reader, esplanade_writer;
ALTER TABLE archive ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON archive FOR SELECT TO esplanade_reader USING (tenant = current_setting('esplanade.tenant', true));
CREATE POLICY every_tenant ON archive FOR SELECT TO esplanade_writer USING (true);
