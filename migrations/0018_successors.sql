-- Bindings that go on as others in a sibling app, and an audit of what is shown beside bindings.
--
-- The table of what was looked at is exchanged for a wider one: it has as many rows as people have asked for.
-- squawk-ignore-file ban-drop-constraint, ban-drop-not-null, constraint-missing-not-valid

CREATE TABLE succession (
  old_pool   integer NOT NULL,
  old_id     uuid NOT NULL,
  old_app    integer NOT NULL,
  new_id     uuid NOT NULL,
  pools      integer[] NOT NULL,
  key_hash   bytea,
  until      timestamptz NOT NULL,
  settled_at timestamptz,
  PRIMARY KEY (old_pool, old_id, new_id)
);
COMMENT ON TABLE succession IS
  'A binding that another one is to replace. Written before that one is claimed, so whatever dies in between, the old one ends once the new one is active, and only then.';
COMMENT ON COLUMN succession.old_pool IS 'Pool of the binding that is to end.';
COMMENT ON COLUMN succession.old_id IS 'The binding that is to end.';
COMMENT ON COLUMN succession.old_app IS 'Its app.';
COMMENT ON COLUMN succession.new_id IS 'The binding that replaces it; there may be none yet, or never.';
COMMENT ON COLUMN succession.pools IS 'The pools that it may be in.';
COMMENT ON COLUMN succession.key_hash IS 'Hash of the request''s caller and Idempotency-Key, so that a repeat finds what the first try made.';
COMMENT ON COLUMN succession.until IS 'As long as the request may still claim; later than that, a new binding that is not there will never be.';
COMMENT ON COLUMN succession.settled_at IS 'When the old binding was let go of, or the new one had failed; kept for a day, for repeats.';
CREATE UNIQUE INDEX succession_open ON succession (old_id) WHERE settled_at IS NULL;
CREATE INDEX succession_settled ON succession (settled_at) WHERE settled_at IS NOT NULL;

CREATE FUNCTION successor(p_pools integer[], p_id uuid) RETURNS TABLE (pool_id integer, state text, confirmed boolean)
LANGUAGE sql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
  -- What was released before the platform had confirmed it never replaced anything.
  SELECT b.pool_id, b.state, b.state = 'active' OR (b.state IN ('releasing', 'released') AND (
           b.expires_at IS NOT NULL OR (b.ttl_s = 0 AND EXISTS (
             SELECT FROM line AS l WHERE l.pool_id = b.pool_id AND l.id = b.line_id AND l.confirmed_at IS NOT NULL))))
  FROM unnest(p_pools) AS p (id) JOIN binding AS b ON b.pool_id = p.id AND b.id = p_id
$$;
COMMENT ON FUNCTION successor(integer[], uuid) IS 'The new binding of a succession, if there is one, and whether it has ever been active.';

CREATE FUNCTION begin_succession(
  p_pool integer, p_binding uuid, p_app integer, p_new uuid, p_pools integer[], p_key_hash bytea, p_within interval
) RETURNS text
LANGUAGE plpgsql
AS $$
BEGIN
  INSERT INTO succession AS s (old_pool, old_id, old_app, new_id, pools, key_hash, until)
  VALUES (p_pool, p_binding, p_app, p_new, p_pools, p_key_hash, clock_timestamp() + p_within)
  ON CONFLICT (old_id) WHERE settled_at IS NULL DO UPDATE
    SET new_id = excluded.new_id, pools = excluded.pools, key_hash = excluded.key_hash, until = excluded.until
    WHERE s.until < clock_timestamp() AND NOT EXISTS (SELECT FROM successor(s.pools, s.new_id));
  IF NOT FOUND THEN
    RETURN 'busy';
  END IF;
  -- A new statement: it sees what whoever was here before has ended.
  IF EXISTS (SELECT FROM binding AS b WHERE b.pool_id = p_pool AND b.id = p_binding AND b.state IN ('pending', 'active')) THEN
    RETURN 'begun';
  END IF;
  DELETE FROM succession AS s WHERE s.old_pool = p_pool AND s.old_id = p_binding AND s.new_id = p_new;
  RETURN 'over';
END
$$;
COMMENT ON FUNCTION begin_succession(integer, uuid, integer, uuid, integer[], bytea, interval) IS
  'Writes down that p_new is to replace p_binding, for a request that claims it within p_within: begun. Else nothing was done: busy (another one is to replace it) or over (it has ended).';

CREATE FUNCTION settle_successions(p_limit integer, p_old uuid) RETURNS bigint
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_pool integer[];
  v_old uuid[];
  v_app integer[];
  v_moved boolean[];
  v_settled bigint;
BEGIN
  WITH due AS MATERIALIZED (
    SELECT s.old_pool, s.old_id, s.old_app, coalesce(n.confirmed, false) AS moved
    FROM succession AS s LEFT JOIN LATERAL successor(s.pools, s.new_id) AS n ON true
    WHERE s.settled_at IS NULL AND (p_old IS NULL OR s.old_id = p_old)
      AND CASE WHEN n.state IS NULL THEN s.until < clock_timestamp() ELSE n.state <> 'pending' END
    ORDER BY s.old_id LIMIT p_limit FOR UPDATE OF s SKIP LOCKED
  )
  SELECT array_agg(d.old_pool), array_agg(d.old_id), array_agg(d.old_app), array_agg(d.moved)
  INTO v_pool, v_old, v_app, v_moved FROM due AS d;
  IF v_old IS NULL THEN
    RETURN 0;
  END IF;
  -- Nobody waits for the unbind: whoever looks for calls without an owner next takes it.
  PERFORM release_bindings(array_agg(u.pool_id), array_agg(u.id), array_agg(u.app_id), 'moved', '0')
  FROM unnest(v_pool, v_old, v_app, v_moved) AS u (pool_id, id, app_id, moved) WHERE u.moved HAVING count(*) > 0;
  -- One that is changing its line at this moment was not released: it is looked at again.
  UPDATE succession AS s SET settled_at = clock_timestamp()
  FROM unnest(v_pool, v_old, v_moved) AS u (pool_id, id, moved)
  WHERE s.old_id = u.id AND s.settled_at IS NULL AND NOT (u.moved AND EXISTS (
    SELECT FROM binding AS b WHERE b.pool_id = u.pool_id AND b.id = u.id AND b.state IN ('pending', 'active')));
  GET DIAGNOSTICS v_settled = ROW_COUNT;
  RETURN v_settled;
END
$$;
COMMENT ON FUNCTION settle_successions(integer, uuid) IS
  'Releases old bindings (or only p_old) whose new one is active, and forgets about those whose new one failed or was never made.';

-- Reading the address of a recording concerns no binding that we could name.
ALTER TABLE audit
  ALTER COLUMN pool_id DROP NOT NULL,
  ADD COLUMN app_id integer,
  ADD COLUMN subject text CHECK (length(subject) BETWEEN 1 AND 300),
  DROP CONSTRAINT audit_subject,
  ADD CONSTRAINT audit_subject CHECK (
    (pool_id IS NOT NULL AND (binding_id IS NOT NULL OR line_id IS NOT NULL)) OR (app_id IS NOT NULL AND subject IS NOT NULL)),
  DROP CONSTRAINT audit_what_check,
  ADD CONSTRAINT audit_what_check CHECK (what IN ('reveal', 'release', 'recording'));
COMMENT ON TABLE audit IS 'What people and order systems looked at or did by hand: one row each, never with a phone number.';
COMMENT ON COLUMN audit.what IS 'reveal: saw the real numbers; release: released it by hand; recording: was given the address of a recording.';
COMMENT ON COLUMN audit.pool_id IS 'Pool of the binding; null where it is about a recording.';
COMMENT ON COLUMN audit.app_id IS 'The app, where no pool tells.';
COMMENT ON COLUMN audit.subject IS 'The recording: SHA-256 of its domain, a slash and its name, which may hold phone numbers.';
