-- Moving the bindings of an X to others.

-- name: take
SELECT pool_id, x_id, app_id, why FROM take_evacuations($1, make_interval(secs => $2)) ORDER BY pool_id, x_id;

-- name: tend
SELECT state, moving FROM tend_evacuation($1, $2, make_interval(secs => $3));

-- name: lines
SELECT line_id, binding_id FROM lines_to_move($1, $2, $3);

-- name: waits
SELECT note_line_waits($1, $2, $3, $4, make_interval(secs => $5));

-- name: begin_line
SELECT outcome, x_id, extension, number, ttl_s
FROM begin_line_move($1, make_interval(secs => $2), $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                     make_interval(secs => $17));

-- name: begin
SELECT x.number, begin_evacuation(x.pool_id, x.x_id, 'operator', $3) AS begun
FROM x_number AS x JOIN pool AS p ON p.id = x.pool_id
WHERE p.app_id = $1 AND x.number = ANY ($2::text[]) AND x.state IN ('frozen', 'draining', 'suspended')
ORDER BY x.pool_id, x.x_id;

-- name: progress
WITH asked AS MATERIALIZED (
  SELECT e.*, x.number, p.name AS pool, x.state AS number_state, x.state_reason
  FROM evacuation AS e
  JOIN x_number AS x ON x.pool_id = e.pool_id AND x.x_id = e.x_id
  JOIN pool AS p ON p.id = e.pool_id
  WHERE e.app_id = $1 AND CASE WHEN $2::text IS NULL THEN e.state = 'open' ELSE x.number = $2 END
)
SELECT a.number, a.pool, a.state, a.why, a.reason, a.begun_at, a.ended_at, a.number_state,
       c.moved, c.bindings, c.moving, c.waiting, c.over, greatest(n.live - c.moving - c.waiting, 0) AS to_do,
       w.reasons AS waiting_for, c.next_try_at, c.last_moved_at,
       (SELECT count(*) FROM platform_call AS k JOIN evacuated_line AS l ON l.pool_id = k.pool_id AND l.line_id = k.line_id
        WHERE l.pool_id = a.pool_id AND l.x_id = a.x_id AND k.state <> 'settled' AND k.op = 'unbind') AS unbinding
FROM asked AS a
CROSS JOIN LATERAL (
  SELECT count(*) FILTER (WHERE l.state = 'moved') AS moved, coalesce(sum(l.bindings), 0)::bigint AS bindings,
         count(*) FILTER (WHERE l.state = 'moving') AS moving, count(*) FILTER (WHERE l.state = 'waiting') AS waiting,
         count(*) FILTER (WHERE l.state = 'over') AS over, min(l.retry_at) AS next_try_at,
         max(l.done_at) FILTER (WHERE l.state = 'moved') AS last_moved_at
  FROM evacuated_line AS l WHERE l.pool_id = a.pool_id AND l.x_id = a.x_id
) AS c
CROSS JOIN LATERAL (
  SELECT count(*) AS live FROM line AS l
  WHERE l.x_key = a.pool_id::bigint * 100000 + a.x_id AND l.seat IS NOT NULL AND l.state IN ('pending', 'active')
) AS n
CROSS JOIN LATERAL (
  SELECT coalesce(jsonb_object_agg(r.reason, r.many), '{}')::text AS reasons FROM (
    SELECT l.reason, count(*) AS many FROM evacuated_line AS l
    WHERE l.pool_id = a.pool_id AND l.x_id = a.x_id AND l.state = 'waiting' GROUP BY l.reason
  ) AS r
) AS w
ORDER BY a.begun_at, a.number;
