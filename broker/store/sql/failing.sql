-- Platform calls that keep failing, and what operators do about them.

-- name: note
SELECT note_failures($1, $2, $3, $4, $5::text::jsonb, $6, $7, make_interval(secs => $8)) AS state;

-- name: note_crash
SELECT note_crash($1, $2, $3, $4, $5::text::jsonb, $6, make_interval(secs => $7)) AS state;

-- name: dead
SELECT app_id, count(*) AS many FROM failing_call WHERE dead_at IS NOT NULL GROUP BY app_id;

-- name: sweep
DELETE FROM failing_call AS f
WHERE (f.line_id, f.no) IN (
  SELECT o.line_id, o.no FROM failing_call AS o
  WHERE o.dead_at IS NULL AND o.noted_at < (SELECT broker_now() - interval '1 day') AND NOT EXISTS (
    SELECT FROM platform_call AS c
    WHERE c.pool_id = o.pool_id AND c.line_id = o.line_id AND c.no = o.no AND c.settled_at IS NULL)
  LIMIT $1)
RETURNING f.no;

-- name: overdue
SELECT pool_id, binding_id, app_id FROM overdue_binds($1);

-- name: calls
-- Those that are not settled; $2: dead, failing or all; $3, $4: this one only.
SELECT f.line_id, f.no, f.pool_id, c.op, CASE WHEN f.dead_at IS NOT NULL THEN 'dead' ELSE 'failing' END AS state, f.reason,
       p.name AS pool, coalesce(x.number, l.picked) AS x, l.extension, l.state AS line_state, l.confirmed_at, l.expires_at,
       l.ttl_s, l.subscription_id, c.attempt, c.created_at, c.wanted IS NOT NULL AND c.wanted ? 'ttl_s' AS renewal,
       f.failures, f.crashes, f.failing_since, f.noted_at, f.dead_at, f.tries::text AS tries, a.mode, a.quarantine_s
FROM failing_call AS f
JOIN platform_call AS c ON c.pool_id = f.pool_id AND c.line_id = f.line_id AND c.no = f.no AND c.settled_at IS NULL
JOIN line AS l ON l.pool_id = f.pool_id AND l.id = f.line_id
JOIN pool AS p ON p.id = f.pool_id
JOIN app AS a ON a.id = f.app_id
LEFT JOIN x_number AS x ON x.pool_id = l.pool_id AND x.x_id = l.x_id
WHERE f.app_id = $1 AND CASE $2 WHEN 'dead' THEN f.dead_at IS NOT NULL WHEN 'failing' THEN f.dead_at IS NULL ELSE true END
  AND ($3::uuid IS NULL OR (f.line_id = $3 AND f.no = $4))
ORDER BY f.dead_at NULLS LAST, f.failing_since, f.line_id
LIMIT $5;

-- name: bindings
SELECT pool_id, id, state FROM binding WHERE line_id = $1 AND moves IS NULL ORDER BY id LIMIT 100;

-- name: retry
SELECT retry_call($1, $2, $3, $4) AS done;

-- name: discard
SELECT discard_call($1, $2, $3, $4, $5) AS op;
