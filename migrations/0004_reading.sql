-- Reading bindings, and requests with an Idempotency-Key.

CREATE FUNCTION show_bindings(p_pool integer[], p_binding uuid[])
RETURNS TABLE (pool_id integer, id uuid, app_id integer, state text, reason text, ttl_s integer, created_at timestamptz,
               expires_at timestamptz, ended_at timestamptz, order_id text, user_data text, metadata text, line_id uuid,
               x_id integer, number text, direction text, a_key bigint, b_key bigint, a_sealed bytea, b_sealed bytea,
               subscription_id text, version integer, flipped boolean, shared boolean, joinable boolean, options text,
               wanted text, change_failed text, moving boolean, as_of timestamptz)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT b.pool_id, b.id, b.app_id, b.state, b.reason, b.ttl_s, b.created_at, b.expires_at, b.ended_at, b.order_id,
         b.user_data, b.metadata::text, b.line_id, l.x_id, x.number, l.direction, l.a_key, l.b_key, l.a_sealed, l.b_sealed,
         l.subscription_id, b.version, b.flipped, b.state IN ('pending', 'active') AND EXISTS (
           SELECT FROM binding AS o WHERE o.line_id = b.line_id AND o.id <> b.id AND o.state IN ('pending', 'active') OFFSET 0),
         l.joinable, l.options, CASE WHEN l.changing THEN (
           SELECT c.wanted::text FROM platform_call AS c WHERE c.pool_id = l.pool_id AND c.line_id = l.id AND c.no = l.calls) END,
         l.change_failed, b.moving IS NOT NULL AND b.state = 'active' AND EXISTS (
           SELECT FROM binding AS t WHERE t.pool_id = b.pool_id AND t.id = b.moving AND t.state = 'pending' OFFSET 0), broker_now()
  -- OFFSET 0: whatever the planner believes, the bindings are looked up first, by their key.
  FROM unnest(p_pool, p_binding) AS i (pool_id, id)
  CROSS JOIN LATERAL (SELECT m.* FROM binding AS m WHERE m.pool_id = i.pool_id AND m.id = i.id OFFSET 0) AS b
  JOIN line AS l ON l.pool_id = b.pool_id AND l.id = b.line_id
  JOIN x_number AS x ON x.pool_id = l.pool_id AND x.x_id = l.x_id
  WHERE b.moves IS NULL;
END
$$;
COMMENT ON FUNCTION show_bindings IS 'Bindings with their lines; what does not exist, or is no order''s, is not returned.';

CREATE FUNCTION begin_keys(p_app integer[], p_caller integer[], p_key bytea[], p_request bytea[], p_busy_s double precision[])
RETURNS TABLE (ord integer, token integer, made_pool integer, made_id uuid, same boolean, status smallint, location text,
               body bytea)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  v_old CONSTANT timestamptz := v_now - interval '24 hours';
BEGIN
  RETURN QUERY
  WITH asked AS MATERIALIZED (
    SELECT u.* FROM unnest(p_app, p_caller, p_key, p_request, p_busy_s) WITH ORDINALITY
      AS u (app_id, caller_id, key_hash, request_hash, busy_s, ord)
  ),
  mine AS (
    INSERT INTO idempotency AS d (app_id, caller_id, key_hash, request_hash, busy_until, created_at)
    SELECT a.app_id, a.caller_id, a.key_hash, a.request_hash, v_now + make_interval(secs => a.busy_s), v_now
    FROM asked AS a ORDER BY a.app_id, a.caller_id, a.key_hash
    ON CONFLICT (app_id, caller_id, key_hash) DO UPDATE
      -- After a day the record is as good as none. Before, only a twin whose first try went silent takes over, and it
      -- inherits what that try made.
      SET token = d.token + 1, busy_until = excluded.busy_until, request_hash = excluded.request_hash,
          created_at = CASE WHEN d.created_at <= v_old THEN v_now ELSE d.created_at END,
          pool_id = CASE WHEN d.created_at <= v_old THEN NULL ELSE d.pool_id END,
          binding_id = CASE WHEN d.created_at <= v_old THEN NULL ELSE d.binding_id END,
          status = NULL, location = NULL, body = NULL
      WHERE d.created_at <= v_old
         OR (d.status IS NULL AND d.busy_until <= v_now AND d.request_hash = excluded.request_hash)
    RETURNING d.app_id, d.caller_id, d.key_hash, d.token, d.pool_id, d.binding_id
  )
  SELECT a.ord::integer, m.token, m.pool_id, m.binding_id, d.request_hash = a.request_hash, d.status, d.location, d.body
  FROM asked AS a
  LEFT JOIN mine AS m ON m.app_id = a.app_id AND m.caller_id = a.caller_id AND m.key_hash = a.key_hash
  LEFT JOIN idempotency AS d ON d.app_id = a.app_id AND d.caller_id = a.caller_id AND d.key_hash = a.key_hash;
END
$$;
COMMENT ON FUNCTION begin_keys IS
  'Registers requests. token: ours to carry out (made_*: the binding that an earlier try made); else what is stored, or nothing yet.';

CREATE FUNCTION finish_keys(p_app integer[], p_caller integer[], p_key bytea[], p_token integer[], p_status smallint[],
                            p_location text[], p_body bytea[])
RETURNS TABLE (ord integer)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  UPDATE idempotency AS d SET status = i.status, location = i.location, body = i.body
  -- In the order of their keys, as those who register them: nobody waits in a circle.
  FROM (
    SELECT u.* FROM unnest(p_app, p_caller, p_key, p_token, p_status, p_location, p_body) WITH ORDINALITY
      AS u (app_id, caller_id, key_hash, token, status, location, body, ord)
    ORDER BY u.app_id, u.caller_id, u.key_hash
  ) AS i
  WHERE d.app_id = i.app_id AND d.caller_id = i.caller_id AND d.key_hash = i.key_hash AND d.token = i.token
    AND d.status IS NULL
  RETURNING i.ord::integer;
END
$$;
COMMENT ON FUNCTION finish_keys IS 'Keeps answers. Returned = kept: only then may an answer be sent.';
