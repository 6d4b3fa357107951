-- A bind of mode AXYB of which nobody knows what became is also looked for where a line of ours is on its way out.

CREATE OR REPLACE FUNCTION unbound_numbers(p_pool integer, p_relaxed boolean, p_limit integer) RETURNS TABLE (number text)
LANGUAGE sql STABLE
AS $$
  SELECT x.number
  FROM pool AS own JOIN pool AS o ON o.app_id = own.app_id AND (p_relaxed OR o.area_code = own.area_code)
  JOIN x_number AS x ON x.pool_id = o.id
  WHERE own.id = p_pool AND x.state NOT IN ('moved', 'retired')
    -- What is being released may be gone from the platform for long, if the process that did it died: the X is given out.
    AND NOT EXISTS (
      SELECT FROM line AS l WHERE l.x_key = x.pool_id::bigint * 100000 + x.x_id AND l.seat IS NOT NULL AND l.state <> 'releasing'
      OFFSET 0)
    AND NOT EXISTS (SELECT FROM peer AS p WHERE p.y = x.number AND p.state = 'active' OFFSET 0)
  ORDER BY o.id <> p_pool, x.pool_id, x.x_id LIMIT p_limit
$$;
COMMENT ON FUNCTION unbound_numbers(integer, boolean, integer) IS
  'Numbers of the app''s pools in the area of this one (relaxed: of all) on which our books have nobody, or somebody who is leaving: where a bind of which nobody knows what became may have ended up.';
