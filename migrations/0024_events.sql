-- Events: what order systems are told.

CREATE FUNCTION emit_event(p_app integer, p_type text, p_pool integer, p_binding uuid, p_data jsonb) RETURNS void
LANGUAGE sql AS '';
COMMENT ON FUNCTION emit_event IS 'Tells nobody yet.';
