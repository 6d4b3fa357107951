-- Every way in which the books of who is behind which X can be wrong; no rows = they are right.
WITH held AS (
  SELECT l.pool_id, l.x_id, v.party, l.id
  FROM line AS l CROSS JOIN LATERAL (VALUES (l.a_key), (l.b_key), (l.third_key)) AS v (party)
  WHERE l.state IN ('pending', 'active', 'releasing') AND v.party IS NOT NULL AND l.extension IS NULL
), sole AS (
  SELECT l.pool_id, l.x_id, l.extension, l.id, l.seat FROM line AS l
  WHERE l.state IN ('pending', 'active', 'releasing') AND l.extension IS NOT NULL AND l.x_id IS NOT NULL
), lives AS (
  SELECT l.pool_id, l.id, l.x_id, l.state,
         count(b.id) FILTER (WHERE b.state IN ('pending', 'active')) AS wanted,
         count(b.id) FILTER (WHERE b.state = 'releasing') AS leaving,
         count(b.id) FILTER (WHERE b.state IN ('pending', 'active') AND b.state <> l.state) AS astray,
         -- The sweep that ends what was released with grace comes a moment later.
         coalesce(l.kept_until > broker_now() - interval '1 minute', false) AS kept
  FROM line AS l LEFT JOIN binding AS b ON b.line_id = l.id GROUP BY l.pool_id, l.id
)
SELECT 'double use' AS wrong, pool_id, x_id, party FROM held GROUP BY pool_id, x_id, party HAVING count(*) > 1
UNION ALL
SELECT 'held without a live slot', h.pool_id, h.x_id, h.party FROM held AS h WHERE NOT EXISTS (
  SELECT FROM slot AS s WHERE s.pool_id = h.pool_id AND s.party_key = h.party AND s.x_id = h.x_id AND s.line_id = h.id
  AND s.until = 'infinity')
UNION ALL
SELECT 'live slot without a line', s.pool_id, s.x_id, s.party_key FROM slot AS s
WHERE s.until = 'infinity' AND NOT EXISTS (
  SELECT FROM held AS h WHERE h.pool_id = s.pool_id AND h.party = s.party_key AND h.x_id = s.x_id AND h.id = s.line_id)
UNION ALL
SELECT 'a line that does not hold its place', s.pool_id, s.x_id, s.extension FROM sole AS s
WHERE EXISTS (SELECT FROM place AS h WHERE h.pool_id = s.pool_id AND h.x_id = s.x_id) AND NOT EXISTS (
  SELECT FROM place AS h WHERE h.pool_id = s.pool_id AND h.x_id = s.x_id AND h.extension = s.extension
  AND h.line_id = s.id AND h.until = 'infinity')
UNION ALL
SELECT 'a held place without a line', h.pool_id, h.x_id, h.extension FROM place AS h
WHERE h.until = 'infinity' AND NOT EXISTS (SELECT FROM sole AS s WHERE s.id = h.line_id)
UNION ALL
SELECT 'a line with another seat than its extension', s.pool_id, s.x_id, s.extension FROM sole AS s
WHERE s.seat IS DISTINCT FROM s.extension
  AND EXISTS (SELECT FROM place AS h WHERE h.pool_id = s.pool_id AND h.x_id = s.x_id)
UNION ALL
SELECT 'a seat taken twice', l.pool_id, l.x_id, l.seat FROM line AS l WHERE l.seat IS NOT NULL
GROUP BY l.pool_id, l.x_id, l.seat HAVING count(*) > 1
UNION ALL
SELECT 'a live line without a seat', l.pool_id, l.x_id, 0 FROM line AS l
WHERE (l.seat IS NULL) <> (l.state IN ('released', 'failed'))
UNION ALL
SELECT 'a live line that nobody wants', v.pool_id, v.x_id, 0 FROM lives AS v
WHERE v.state IN ('pending', 'active') AND v.wanted = 0 AND NOT (v.state = 'active' AND v.kept)
UNION ALL
SELECT 'a live binding on a line that is ' || v.state, v.pool_id, v.x_id, v.wanted FROM lives AS v
WHERE v.state IN ('releasing', 'released', 'failed') AND v.wanted > 0
UNION ALL
SELECT 'a binding in another state than its line, ' || v.state, v.pool_id, v.x_id, v.astray FROM lives AS v
WHERE v.astray > 0
UNION ALL
SELECT 'a releasing binding on a line that is ' || v.state, v.pool_id, v.x_id, v.leaving FROM lives AS v
WHERE v.state <> 'releasing' AND v.leaving > 0
UNION ALL
SELECT 'changing without a modify, or a modify without it', l.pool_id, l.x_id, 0 FROM line AS l
WHERE l.changing <> EXISTS (
  SELECT FROM platform_call AS c WHERE c.line_id = l.id AND c.op = 'modify' AND c.state = 'open')
UNION ALL
SELECT 'a live line without a call that could end its ' || l.state, l.pool_id, l.x_id, 0 FROM line AS l
WHERE l.state IN ('pending', 'releasing') AND NOT EXISTS (
  SELECT FROM platform_call AS c WHERE c.line_id = l.id AND c.state = 'open')
UNION ALL
SELECT 'two open calls on a line', c.pool_id, 0, 0 FROM platform_call AS c WHERE c.state = 'open'
GROUP BY c.pool_id, c.line_id HAVING count(*) > 1
