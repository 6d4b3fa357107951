-- Finding bindings: by order, by X, by party, or all of an app, newest first (ids sort by time).
--
-- Only the look-up by order has an index of its own, made in 0007. The others use what allocation needs anyway: the keys of
-- binding and slot, and the seats of an X (docs/decisions/0006-listing.md). What no index serves is walked to a bounded depth.
-- OFFSET 0 keeps a look-up by line_id one by line_id: else p_before invites the planner to read the binding table by it.

CREATE FUNCTION live_of_orders(p_app integer, p_order text[], p_limit integer)
RETURNS TABLE (ord integer, pool_id integer, id uuid)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT i.ord::integer, b.pool_id, b.id
  FROM unnest(p_order) WITH ORDINALITY AS i (order_id, ord)
  JOIN binding AS b ON b.app_id = p_app AND b.order_id = i.order_id
  WHERE b.state IN ('pending', 'active', 'releasing')
  ORDER BY i.ord, b.id LIMIT p_limit;
END
$$;
COMMENT ON FUNCTION live_of_orders(integer, text[], integer) IS
  'The live bindings of orders, in the order of p_order (ord counts from 1).';

CREATE FUNCTION list_by_order(p_app integer, p_order text, p_state text, p_before uuid, p_limit integer)
RETURNS TABLE (pool_id integer, id uuid, fits boolean, cut boolean)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT b.pool_id, b.id, true, false FROM binding AS b
  WHERE b.app_id = p_app AND b.order_id = p_order AND b.id < p_before AND (p_state IS NULL OR b.state = p_state)
  ORDER BY b.id DESC LIMIT p_limit;
END
$$;
COMMENT ON FUNCTION list_by_order(integer, text, text, uuid, integer) IS 'Bindings of one order older than p_before, newest first.';

CREATE FUNCTION list_by_seat(p_pool integer, p_x integer, p_state text, p_before uuid, p_limit integer)
RETURNS TABLE (pool_id integer, id uuid, fits boolean, cut boolean)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT b.pool_id, b.id, true, false
  FROM line AS l
  CROSS JOIN LATERAL (SELECT m.pool_id, m.id, m.state FROM binding AS m WHERE m.line_id = l.id OFFSET 0) AS b
  WHERE l.x_key = p_pool::bigint * 100000 + p_x AND l.seat IS NOT NULL AND b.id < p_before AND b.state = p_state
  ORDER BY b.id DESC LIMIT p_limit;
END
$$;
COMMENT ON FUNCTION list_by_seat(integer, integer, text, uuid, integer) IS
  'Bindings on lines that hold a seat on an X: reads at most cap lines.';

CREATE FUNCTION list_by_party(p_pool integer[], p_party bigint, p_state text, p_before uuid, p_limit integer)
RETURNS TABLE (pool_id integer, id uuid, fits boolean, cut boolean)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT b.pool_id, b.id, true, false
  FROM unnest(p_pool) AS i (pool_id)
  JOIN slot AS s ON s.pool_id = i.pool_id AND s.party_key = p_party
  CROSS JOIN LATERAL (SELECT m.pool_id, m.id, m.state FROM binding AS m WHERE m.line_id = s.line_id OFFSET 0) AS b
  WHERE b.id < p_before AND (p_state IS NULL OR b.state = p_state)
  ORDER BY b.id DESC LIMIT p_limit;
END
$$;
COMMENT ON FUNCTION list_by_party(integer[], bigint, text, uuid, integer) IS
  'Bindings whose line was the last of the party on its X. The key may collide: the caller compares the numbers.';

CREATE FUNCTION walk_pools(p_pool integer[], p_x integer, p_state text, p_before uuid, p_limit integer, p_depth integer)
RETURNS TABLE (pool_id integer, id uuid, fits boolean, cut boolean)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH walked AS MATERIALIZED (
    SELECT w.* FROM unnest(p_pool) AS i (pool_id) CROSS JOIN LATERAL (
      SELECT b.pool_id, b.id, b.line_id, b.state, row_number() OVER (ORDER BY b.id DESC) AS nth
      FROM binding AS b WHERE b.pool_id = i.pool_id AND b.id < p_before
      ORDER BY b.id DESC LIMIT p_depth
    ) AS w
  ),
  -- Below the place where the first pool's walk ended, rows of that pool would be missing.
  edge AS (SELECT w.id FROM walked AS w WHERE w.nth = p_depth ORDER BY w.id DESC LIMIT 1),
  judged AS (
    SELECT w.pool_id, w.id, (p_state IS NULL OR w.state = p_state) AND (p_x IS NULL OR p_x = (
             SELECT l.x_id FROM line AS l WHERE l.pool_id = w.pool_id AND l.id = w.line_id)) AS fits
    FROM walked AS w
    WHERE NOT EXISTS (SELECT FROM edge AS e WHERE w.id < e.id)
  )
  SELECT j.pool_id, j.id, j.fits, EXISTS (SELECT FROM edge AS e WHERE e.id = j.id) AS cut FROM judged AS j
  WHERE j.fits OR EXISTS (SELECT FROM edge AS e WHERE e.id = j.id)
  ORDER BY j.id DESC LIMIT p_limit;
END
$$;
COMMENT ON FUNCTION walk_pools(integer[], integer, text, uuid, integer, integer) IS
  'Bindings of pools older than p_before, newest first, looking at most p_depth deep into each pool. cut marks the row where the walk ended, whether it fits or not.';

CREATE FUNCTION pool_figures(p_pool integer[])
RETURNS TABLE (pool_id integer, live bigint, x_in_use bigint, resting bigint, most_barred bigint,
              as_of timestamptz)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := broker_now();
BEGIN
  RETURN QUERY
  SELECT i.pool_id, seats.live, seats.x_in_use, coalesce(parties.resting, 0)::bigint, coalesce(parties.most_barred, 0), v_now
  FROM unnest(p_pool) AS i (pool_id)
  CROSS JOIN LATERAL (
    SELECT count(*) AS live, count(DISTINCT l.x_key) AS x_in_use FROM line AS l
    WHERE l.x_key BETWEEN i.pool_id::bigint * 100000 AND i.pool_id::bigint * 100000 + 99999 AND l.seat IS NOT NULL
  ) AS seats
  CROSS JOIN LATERAL (
    SELECT sum(p.resting) AS resting, max(p.barred) AS most_barred FROM (
      SELECT count(*) AS barred, count(*) FILTER (WHERE s.until <> 'infinity') AS resting
      FROM slot AS s WHERE s.pool_id = i.pool_id AND s.until > v_now GROUP BY s.party_key
    ) AS p
  ) AS parties;
END
$$;
COMMENT ON FUNCTION pool_figures(integer[]) IS
  'Per pool: live lines, X numbers that carry any, resting (party, X) pairs, and the most X barred for one party. Reads all seats and slots of the pools: ask seldom.';
