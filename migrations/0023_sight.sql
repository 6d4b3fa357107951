-- A pool that has just refused somebody is asked without locks first: a refusal that is only read waits for no commit.

CREATE FUNCTION sight_places(p_most integer[], p_pool integer[], p_app integer[], p_a bigint[])
RETURNS TABLE (ord integer, outcome text, seen_at timestamptz)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := broker_now();
BEGIN
  RETURN QUERY
  WITH pools AS MATERIALIZED (
    SELECT p.id, p.state, EXISTS (
      SELECT FROM (
        SELECT x.x_id FROM x_number AS x WHERE x.pool_id = p.id AND x.state = 'open' ORDER BY x.x_id
      ) AS x CROSS JOIN LATERAL (
        SELECT FROM place AS f
        WHERE f.pool_id = p.id AND f.x_id = x.x_id AND f.in_use AND f.until <= v_now ORDER BY f.until LIMIT 1
      ) AS f) AS has_free
    FROM pool AS p WHERE p.id = ANY (p_pool)
  )
  SELECT i.ord::integer, CASE
      WHEN p.state IS DISTINCT FROM 'open' THEN 'closed'
      WHEN i.most IS NOT NULL AND x_of_party(i.app_id, i.a_key, NULL) >= i.most THEN 'limit'
      WHEN p.has_free OR EXISTS (
        SELECT FROM place AS r
        WHERE r.party_key = i.a_key AND r.until > v_now AND r.until < 'infinity' AND r.pool_id = i.pool_id OFFSET 0
      ) THEN 'open'
      ELSE 'exhausted' END, v_now
  FROM unnest(p_most, p_pool, p_app, p_a) WITH ORDINALITY AS i (most, pool_id, app_id, a_key, ord)
  LEFT JOIN pools AS p ON p.id = i.pool_id;
END
$$;
COMMENT ON FUNCTION sight_places IS
  'What reserve_places() would find for each item that asks for no extension, read without locks: closed, limit or exhausted, else open (worth a claim). Writes nothing.';
