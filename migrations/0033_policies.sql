-- Ends by events: what calls do to the end of a binding, and a line that outlives its last order for a while.
-- docs/decisions/0023-ends-by-events.md says why in this way.
--
-- Constraints of new columns check rows of configuration only: as many as there are apps.
-- squawk-ignore-file constraint-missing-not-valid

ALTER TABLE app
  ADD COLUMN end_after_call_s integer CHECK (end_after_call_s BETWEEN 1 AND 2592000),
  ADD COLUMN renew_by_call_s integer CHECK (renew_by_call_s BETWEEN 60 AND 31536000),
  ADD COLUMN longest_life_s integer CHECK (longest_life_s BETWEEN 60 AND 31536000),
  ADD COLUMN release_grace_s integer NOT NULL DEFAULT 0 CHECK (release_grace_s BETWEEN 0 AND 86400),
  ADD CONSTRAINT app_one_end CHECK (end_after_call_s IS NULL OR renew_by_call_s IS NULL),
  ADD CONSTRAINT app_renewal_bound CHECK (renew_by_call_s IS NULL OR longest_life_s IS NOT NULL),
  ADD CONSTRAINT app_renewal_mode CHECK (renew_by_call_s IS NULL OR mode <> 'axyb');
COMMENT ON COLUMN app.end_after_call_s IS 'A binding ends so long after its last call ended; null = calls end nothing.';
COMMENT ON COLUMN app.renew_by_call_s IS 'Each call makes a binding last so long from then on; null = calls renew nothing.';
COMMENT ON COLUMN app.longest_life_s IS 'Calls renew a binding until so long after it was made.';
COMMENT ON COLUMN app.release_grace_s IS 'How long the line of a released binding lives on where the release does not say; 0 = it ends at once.';

CREATE TABLE binding_end (
  pool_id    integer NOT NULL,
  binding_id uuid NOT NULL,
  asked_for  timestamptz,
  set_to     timestamptz,
  running    uuid[] NOT NULL DEFAULT '{}',
  began_at   timestamptz,
  ended_at   timestamptz,
  PRIMARY KEY (pool_id, binding_id)
) WITH (fillfactor = 75);
COMMENT ON TABLE binding_end IS 'Bindings whose end goes by their calls: what is known of these. Gone once the binding has ended.';
COMMENT ON COLUMN binding_end.pool_id IS 'Pool of the binding.';
COMMENT ON COLUMN binding_end.binding_id IS 'The binding.';
COMMENT ON COLUMN binding_end.asked_for IS 'The end that the order asked for; null = without end.';
COMMENT ON COLUMN binding_end.set_to IS 'The end that calls gave it; if the binding has another one, the order has asked anew.';
COMMENT ON COLUMN binding_end.running IS 'Calls whose end has not been told.';
COMMENT ON COLUMN binding_end.began_at IS 'When the newest call began.';
COMMENT ON COLUMN binding_end.ended_at IS 'When the last call ended.';

CREATE FUNCTION end_by_calls(e binding_end, p_after integer, p_renew integer, p_last timestamptz, p_now timestamptz)
RETURNS timestamptz
LANGUAGE plpgsql STABLE
AS $$
DECLARE
  -- A call whose end is never told is taken to be over after two hours.
  v_over CONSTANT timestamptz := greatest(e.ended_at, CASE WHEN e.running <> '{}' THEN e.began_at + interval '2 hours' END);
BEGIN
  IF p_after IS NOT NULL THEN
    -- Never in the past: until now the binding was there, whatever is told late.
    RETURN least(e.asked_for, greatest(v_over + p_after * interval '1 second', p_now));
  END IF;
  IF e.asked_for IS NULL THEN
    RETURN NULL;
  END IF;
  RETURN greatest(e.asked_for, least(v_over + p_renew * interval '1 second', p_last));
END
$$;
COMMENT ON FUNCTION end_by_calls IS 'When a binding ends by its calls: p_after seconds after the last, or p_renew seconds later with each, until p_last; null = never.';

CREATE FUNCTION heed_calls() RETURNS trigger
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_now timestamptz;
  e binding_end;
  v_end timestamptz;
  i record;
BEGIN
  IF NOT EXISTS (SELECT FROM app AS a WHERE a.end_after_call_s IS NOT NULL OR a.renew_by_call_s IS NOT NULL) THEN
    RETURN NULL;
  END IF;
  -- Line before binding, in order, as whoever settles and sweeps does.
  PERFORM FROM (
    SELECT DISTINCT b.pool_id, b.line_id FROM is_now AS c
    CROSS JOIN LATERAL unnest(c.bindings) AS u (id)
    JOIN binding AS b ON b.pool_id = c.pool_id AND b.id = u.id
    JOIN app AS a ON a.id = c.app_id AND (a.end_after_call_s IS NOT NULL OR a.renew_by_call_s IS NOT NULL)
    WHERE b.state IN ('pending', 'active')
  ) AS t JOIN line AS l ON l.pool_id = t.pool_id AND l.id = t.line_id
  ORDER BY l.pool_id, l.id FOR UPDATE OF l;
  v_now := broker_now();
  FOR i IN
    SELECT b.pool_id, b.id, b.line_id, c.id AS call_id, c.started_at, c.ended_at, a.end_after_call_s, a.renew_by_call_s,
           b.created_at + a.longest_life_s * interval '1 second' AS last
    FROM is_now AS c
    CROSS JOIN LATERAL unnest(c.bindings) AS u (id)
    JOIN binding AS b ON b.pool_id = c.pool_id AND b.id = u.id
    JOIN app AS a ON a.id = c.app_id AND (a.end_after_call_s IS NOT NULL OR a.renew_by_call_s IS NOT NULL)
    JOIN line AS l ON l.pool_id = b.pool_id AND l.id = b.line_id
    WHERE b.state IN ('pending', 'active') AND b.moves IS NULL
      -- What the platform has ended lives no longer by being talked about.
      AND (l.expires_at IS NULL OR l.expires_at > v_now)
    ORDER BY b.pool_id, b.id, c.started_at
  LOOP
    INSERT INTO binding_end AS o (pool_id, binding_id) VALUES (i.pool_id, i.id)
    ON CONFLICT (pool_id, binding_id) DO UPDATE SET pool_id = o.pool_id RETURNING o.* INTO e;
    SELECT CASE WHEN b.expires_at IS DISTINCT FROM e.set_to THEN b.expires_at ELSE e.asked_for END INTO e.asked_for
    FROM binding AS b WHERE b.pool_id = i.pool_id AND b.id = i.id;
    e.running := array_remove(e.running, i.call_id);
    IF i.ended_at IS NULL AND cardinality(e.running) < 100 THEN
      e.running := e.running || i.call_id;
    END IF;
    e.began_at := greatest(e.began_at, least(i.started_at, v_now));
    e.ended_at := greatest(e.ended_at, least(i.ended_at, v_now));
    v_end := end_by_calls(e, i.end_after_call_s, i.renew_by_call_s, i.last, v_now);
    UPDATE binding AS b
    -- The sweep ends nothing that has no ttl.
    SET expires_at = v_end, version = b.version + 1,
        ttl_s = CASE WHEN v_end IS NULL THEN 0 ELSE greatest(1, ceil(extract(epoch FROM v_end - b.created_at))::integer) END
    WHERE b.pool_id = i.pool_id AND b.id = i.id AND b.state = 'active' AND b.expires_at IS DISTINCT FROM v_end;
    UPDATE line AS l
    SET sweep_at = least(l.sweep_at, v_end, CASE WHEN l.expires_at < v_end THEN l.expires_at - renewal_margin(l.ttl_s) END)
    WHERE l.pool_id = i.pool_id AND l.id = i.line_id AND l.state = 'active';
    UPDATE binding_end AS o
    SET asked_for = e.asked_for, running = e.running, began_at = e.began_at, ended_at = e.ended_at,
        set_to = (SELECT b.expires_at FROM binding AS b WHERE b.pool_id = i.pool_id AND b.id = i.id)
    WHERE o.pool_id = i.pool_id AND o.binding_id = i.id;
  END LOOP;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION heed_calls() IS
  'Calls that were told move the ends of their bindings, where their app says so. Once for a whole batch, so that lines are locked in order.';
CREATE TRIGGER heeded_new AFTER INSERT ON call REFERENCING NEW TABLE AS is_now FOR EACH STATEMENT EXECUTE FUNCTION heed_calls();
CREATE TRIGGER heeded AFTER UPDATE ON call REFERENCING NEW TABLE AS is_now FOR EACH STATEMENT EXECUTE FUNCTION heed_calls();

CREATE FUNCTION forget_ends(p_limit integer) RETURNS integer
LANGUAGE plpgsql
AS $$
DECLARE
  v_gone integer;
BEGIN
  DELETE FROM binding_end AS o WHERE (o.pool_id, o.binding_id) IN (
    SELECT e.pool_id, e.binding_id FROM binding_end AS e
    LEFT JOIN binding AS b ON b.pool_id = e.pool_id AND b.id = e.binding_id
    WHERE b.id IS NULL OR b.state IN ('released', 'failed')
    ORDER BY e.pool_id, e.binding_id LIMIT p_limit FOR UPDATE OF e SKIP LOCKED);
  GET DIAGNOSTICS v_gone = ROW_COUNT;
  RETURN v_gone;
END
$$;
COMMENT ON FUNCTION forget_ends(integer) IS 'Forgets what is known of the calls of bindings that are over; returns of how many.';

CREATE FUNCTION release_later(p_pool integer, p_binding uuid, p_app integer, p_grace interval) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off
AS $$
DECLARE
  v_now timestamptz;
  v_line uuid;
BEGIN
  SELECT b.line_id INTO v_line FROM binding AS b WHERE b.pool_id = p_pool AND b.id = p_binding AND b.app_id = p_app;
  PERFORM FROM line AS l
  WHERE l.pool_id = p_pool AND l.id = v_line AND l.state = 'active' AND l.confirmed_at IS NOT NULL AND NOT l.changing FOR UPDATE;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  v_now := broker_now();
  UPDATE binding AS b SET state = 'released', reason = 'released', ended_at = v_now
  WHERE b.pool_id = p_pool AND b.id = p_binding AND b.line_id = v_line AND b.state = 'active' AND NOT moves_now(b.pool_id, b.moving)
    AND NOT EXISTS (
      SELECT FROM binding AS o WHERE o.line_id = v_line AND o.id <> p_binding AND o.state IN ('pending', 'active'));
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  -- The sweep ends a line that has no binding.
  UPDATE line AS l SET sweep_at = least(v_now + p_grace, l.expires_at) WHERE l.pool_id = p_pool AND l.id = v_line;
  RETURN true;
END
$$;
COMMENT ON FUNCTION release_later IS
  'Releases a line''s last binding at once and leaves the line to the sweep, p_grace from now: who binds the pair until then shares it. False = it is not the last one, or its line is not settled now: nothing was done.';
