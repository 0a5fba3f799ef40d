-- Names of the fields of events of anchors and scenes, beside those that `event_fields` knew before (docs/journal.md).
ALTER FUNCTION event_fields(text) RENAME TO event_fields_without_ar;

CREATE FUNCTION event_fields(type text) RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT coalesce(string_to_array(CASE type
        WHEN 'anchors_hosted.v1' THEN 'owner anchors'
        WHEN 'anchors_removed.v1' THEN 'ids expired'
        WHEN 'anchors_observed.v1' THEN 'subject seen agreed'
        WHEN 'anchors_carried.v1' THEN 'carrier level position_m rotation'
        WHEN 'anchors_refined.v1' THEN 'ids position rotation'
        WHEN 'scene_edited.v1' THEN 'author now_ms ops'
    END, ' '), esplanade.event_fields_without_ar(type))
$$;
