-- All that is known of one binding, for people. Each statement finds its rows by key.

-- name: binding
SELECT b.state, b.reason, b.ttl_s, b.version, b.created_at, b.expires_at, b.ended_at, b.order_id, b.line_id, b.chosen,
       p.name AS pool, p.area_code, a.name AS app, a.mode, c.name AS caller
FROM binding AS b
JOIN pool AS p ON p.id = b.pool_id JOIN app AS a ON a.id = b.app_id JOIN caller AS c ON c.id = b.caller_id
WHERE b.pool_id = $1 AND b.id = $2;

-- name: lines
-- The binding's line, and those it had before a refusal: they are found while they still bar their X for both parties.
WITH mine AS (
  SELECT l.pool_id, l.id, l.a_key, l.b_key FROM line AS l WHERE l.pool_id = $1 AND l.id = $2
),
asked AS (
  SELECT m.id FROM mine AS m
  UNION
  SELECT f.id FROM mine AS m
  JOIN slot AS s ON s.pool_id = m.pool_id AND s.party_key = m.a_key
  JOIN line AS f ON f.pool_id = s.pool_id AND f.id = s.line_id
  JOIN every_call AS c ON c.pool_id = f.pool_id AND c.line_id = f.id AND c.no = 1
  WHERE f.state = 'failed' AND f.a_key = m.a_key AND f.b_key = m.b_key AND (c.created_at >= $3 OR c.settled_at >= $3)
    AND c.settled_at <= (SELECT n.created_at FROM every_call AS n
                         WHERE n.pool_id = m.pool_id AND n.line_id = m.id AND n.no = 1) + interval '1 second'
)
SELECT l.id, x.number AS x, l.id = $2 AS current, l.confirmed_at, l.expires_at, l.subscription_id, l.options,
       l.change_failed, l.a_key, l.b_key,
       (SELECT count(*) FROM binding AS b WHERE b.line_id = l.id) AS bindings
FROM asked AS i
JOIN line AS l ON l.pool_id = $1 AND l.id = i.id
JOIN x_number AS x ON x.pool_id = l.pool_id AND x.x_id = l.x_id
ORDER BY l.id;

-- name: calls
SELECT c.line_id, c.no, c.op, c.state, c.token, c.attempt, c.created_at, c.settled_at, c.claimable_at, c.outcome,
       c.http, c.code,
       (SELECT f.dead_at FROM failing_call AS f WHERE f.line_id = c.line_id AND f.no = c.no) AS dead_at,
       (SELECT array_agg(w.name ORDER BY w.name) FROM jsonb_object_keys(c.wanted) AS w (name) WHERE w.name <> 'before')
         AS wanted
FROM every_call AS c WHERE c.pool_id = $1 AND c.line_id = ANY ($2::uuid[]) ORDER BY c.line_id, c.no;

-- name: rests
SELECT s.line_id, s.party_key, s.until FROM slot AS s
WHERE s.pool_id = $1 AND s.party_key = ANY ($2::bigint[]) AND s.line_id = ANY ($3::uuid[]) AND s.until <> 'infinity';

-- name: audited
SELECT t.at, t.who, t.what, t.reason FROM audit AS t WHERE t.pool_id = $1 AND t.binding_id = $2 ORDER BY t.id;

-- name: audit
INSERT INTO audit (at, who, what, pool_id, binding_id)
SELECT broker_now(), $1, $2, i.pool_id, i.id FROM unnest($3::integer[], $4::uuid[]) AS i (pool_id, id);

-- name: place_of_x
SELECT x.pool_id, x.x_id FROM x_number AS x JOIN pool AS p ON p.id = x.pool_id WHERE p.app_id = $1 AND x.number = $2;
