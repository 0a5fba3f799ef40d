-- Radio maps of venues (positioning models, docs/positioning-live.md): by content, numbered up as they are published; the newest is in force.

CREATE TABLE radio_map (
    tenant text NOT NULL,
    venue text NOT NULL,
    version bigint NOT NULL CHECK (version >= 1),
    digest text NOT NULL,
    created_ms bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (tenant, venue, version),
    FOREIGN KEY (tenant, venue) REFERENCES venue
);
ALTER TABLE radio_map ALTER COLUMN body SET STORAGE EXTERNAL;  -- compressed already

GRANT SELECT, INSERT, DELETE ON radio_map TO esplanade_writer;
GRANT SELECT ON radio_map TO esplanade_reader;

ALTER TABLE radio_map ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON radio_map FOR SELECT TO esplanade_reader USING (tenant = current_setting('esplanade.tenant', true));
CREATE POLICY every_tenant ON radio_map TO esplanade_writer, esplanade_keeper USING (true) WITH CHECK (true);
