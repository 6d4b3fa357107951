-- "Call back the last caller": A, who dials X, reaches whoever has called X last, where the app wants that.

ALTER TABLE app
  ADD COLUMN call_back_s integer NOT NULL DEFAULT 0 CHECK (call_back_s BETWEEN 0 AND 259200),
  ADD CONSTRAINT app_call_back_mode CHECK (call_back_s = 0 OR mode IN ('ax', 'x')) NOT VALID;
COMMENT ON COLUMN app.call_back_s IS 'A reaches the last caller for so long after the call began; 0 = never.';

CREATE TABLE call_back (
  pool_id       integer NOT NULL,
  binding_id    uuid NOT NULL,
  call_id       uuid NOT NULL,
  caller_sealed bytea NOT NULL,
  began_at      timestamptz NOT NULL,
  due_at        timestamptz,
  PRIMARY KEY (pool_id, binding_id)
) WITH (fillfactor = 75);
COMMENT ON TABLE call_back IS 'Who called last on lines whose A is to reach that one, with what is left to be done about it.';
COMMENT ON COLUMN call_back.pool_id IS 'Pool of the binding.';
COMMENT ON COLUMN call_back.binding_id IS 'The binding.';
COMMENT ON COLUMN call_back.call_id IS 'The call; its caller is sealed for its row.';
COMMENT ON COLUMN call_back.caller_sealed IS 'The caller''s phone, as in call.';
COMMENT ON COLUMN call_back.began_at IS 'When the call began: a later one takes its place, an earlier one that is told late does not.';
COMMENT ON COLUMN call_back.due_at IS 'When somebody is to see to it; null = done.';
CREATE INDEX call_back_due ON call_back (due_at) WHERE due_at IS NOT NULL;

CREATE FUNCTION note_callers() RETURNS trigger
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM app AS a WHERE a.call_back_s > 0) THEN
    RETURN NULL;
  END IF;
  INSERT INTO call_back AS k (pool_id, binding_id, call_id, caller_sealed, began_at, due_at)
  SELECT DISTINCT ON (c.pool_id, u.id) c.pool_id, u.id, c.id, c.caller_sealed, c.started_at, clock_timestamp()
  FROM is_now AS c
  JOIN app AS a ON a.id = c.app_id AND a.call_back_s > 0
  JOIN line AS l ON l.pool_id = c.pool_id AND l.id = c.line_id AND l.a_key <> c.caller_key
  CROSS JOIN LATERAL unnest(c.bindings) AS u (id)
  WHERE c.caller_sealed IS NOT NULL AND c.started_at > broker_now() - a.call_back_s * interval '1 second'
  -- In one order, so that two batches never wait for each other in a circle.
  ORDER BY c.pool_id, u.id, c.started_at DESC
  ON CONFLICT (pool_id, binding_id) DO UPDATE
  SET call_id = EXCLUDED.call_id, caller_sealed = EXCLUDED.caller_sealed, began_at = EXCLUDED.began_at, due_at = EXCLUDED.due_at
  -- The platform tells whole seconds: of two in one the one that is told of last counts.
  WHERE EXCLUDED.began_at > k.began_at OR (TG_OP = 'INSERT' AND EXCLUDED.began_at = k.began_at);
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION note_callers() IS 'Has the last callers become those whom A reaches, in the transaction that tells of their calls.';
CREATE TRIGGER noted_new AFTER INSERT ON call REFERENCING NEW TABLE AS is_now FOR EACH STATEMENT EXECUTE FUNCTION note_callers();
CREATE TRIGGER noted AFTER UPDATE ON call REFERENCING NEW TABLE AS is_now FOR EACH STATEMENT EXECUTE FUNCTION note_callers();

CREATE FUNCTION take_call_backs(p_limit integer, p_lease interval)
RETURNS TABLE (pool_id integer, binding_id uuid, call_id uuid, caller_sealed bytea, left_s integer)
LANGUAGE plpgsql SET enable_seqscan = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH due AS MATERIALIZED (
    SELECT k.pool_id, k.binding_id FROM call_back AS k WHERE k.due_at <= clock_timestamp() ORDER BY k.due_at LIMIT p_limit
    FOR UPDATE SKIP LOCKED
  )
  UPDATE call_back AS k SET due_at = clock_timestamp() + p_lease FROM due
  WHERE k.pool_id = due.pool_id AND k.binding_id = due.binding_id
  RETURNING k.pool_id, k.binding_id, k.call_id, k.caller_sealed,
            (SELECT floor(extract(epoch FROM k.began_at + a.call_back_s * interval '1 second' - broker_now()))::integer
             FROM pool AS o JOIN app AS a ON a.id = o.app_id WHERE o.id = k.pool_id);
END
$$;
COMMENT ON FUNCTION take_call_backs IS 'Some that are due, each for one instance; again after the lease, unless it is done. left_s: how long A is to reach the caller.';

CREATE FUNCTION forget_call_backs(p_limit integer) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off
AS $$
DECLARE
  v_gone integer;
BEGIN
  WITH over AS MATERIALIZED (
    SELECT k.pool_id, k.binding_id FROM call_back AS k JOIN binding AS b ON b.pool_id = k.pool_id AND b.id = k.binding_id
    WHERE b.state IN ('released', 'failed') LIMIT p_limit FOR UPDATE OF k SKIP LOCKED
  )
  DELETE FROM call_back AS k USING over WHERE k.pool_id = over.pool_id AND k.binding_id = over.binding_id;
  GET DIAGNOSTICS v_gone = ROW_COUNT;
  RETURN v_gone;
END
$$;
COMMENT ON FUNCTION forget_call_backs IS 'Forgets a slice of those whose binding has ended.';
