-- How much is left of pools.

-- name: due
-- A pool without numbers is not ready yet. Who comes second finds that it is no longer due.
INSERT INTO pool_level AS l (pool_id, state, since, due_at)
SELECT w.id, 'ok', broker_now(), broker_now() + make_interval(secs => $1)
FROM (
  SELECT p.id FROM pool AS p JOIN app AS a ON a.id = p.app_id LEFT JOIN pool_level AS o ON o.pool_id = p.id
  WHERE p.low_percent IS NOT NULL AND p.state = 'open' AND (o.due_at <= broker_now()) IS NOT FALSE
    AND (a.mode = 'axyb' OR EXISTS (SELECT FROM x_number AS x WHERE x.pool_id = p.id AND x.state <> 'moved'))
  ORDER BY o.due_at NULLS FIRST LIMIT 1
) AS w
ON CONFLICT (pool_id) DO UPDATE SET due_at = excluded.due_at WHERE l.due_at <= broker_now()
RETURNING l.pool_id, l.state, coalesce(l.refused_at > broker_now() - make_interval(secs => $2), false) AS refused;

-- name: room
SELECT places, party FROM room_of_pool($1);

-- name: note
SELECT note_level($1, $2, $3, $4, $5, make_interval(secs => $6)) AS told;

-- name: known
SELECT l.pool_id, l.state, l.left_percent FROM pool_level AS l JOIN pool AS p ON p.id = l.pool_id
WHERE l.pool_id = ANY ($1::integer[]) AND p.low_percent IS NOT NULL;
