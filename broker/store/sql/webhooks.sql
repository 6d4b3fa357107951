-- Webhooks: whose turn it is, how far each has got, what waits.

-- name: claim
WITH due AS MATERIALIZED (
  SELECT w.id FROM webhook AS w LEFT JOIN event_feed AS f ON f.app_id = w.app_id
  WHERE w.state = 'enabled' AND w.lease_until <= clock_timestamp() AND w.paused_until <= clock_timestamp()
    AND (w.at_position < f.upto OR EXISTS (
      SELECT FROM webhook_parked AS p WHERE p.webhook_id = w.id AND p.state = 'waiting' AND p.due_at <= (SELECT clock_timestamp())))
  ORDER BY w.lease_until, w.id LIMIT $3 FOR UPDATE OF w SKIP LOCKED
)
UPDATE webhook AS w SET owner = $1, token = w.token + 1, lease_until = clock_timestamp() + $2 * interval '1 second'
FROM due WHERE w.id = due.id
RETURNING w.id, w.app_id, (SELECT a.name FROM app AS a WHERE a.id = w.app_id) AS app, w.name, w.token, w.url, w.types,
          w.secret_sealed, CASE WHEN w.old_until > clock_timestamp() THEN w.old_sealed END AS old_sealed, w.at_position,
          w.failures;

-- name: waiting
SELECT p.about, count(*) AS many FROM webhook_parked AS p
WHERE p.webhook_id = $1 AND p.state = 'waiting' GROUP BY p.about;

-- name: due
SELECT q.pos, q.attempts, extract(epoch FROM clock_timestamp() - q.tried_at)::double precision AS tried_s_ago
FROM (
  SELECT p.pos, p.about FROM webhook_parked AS p
  WHERE p.webhook_id = $1 AND p.state = 'waiting' AND p.due_at <= (SELECT clock_timestamp()) AND NOT p.pos = ANY ($3)
    AND (p.about IS NULL OR (NOT p.about = ANY ($4) AND NOT EXISTS (
      SELECT FROM webhook_parked AS e
      WHERE e.webhook_id = p.webhook_id AND e.about = p.about AND e.state = 'waiting' AND e.pos < p.pos OFFSET 0)))
  ORDER BY p.due_at LIMIT $2
) AS h
CROSS JOIN LATERAL (
  SELECT o.pos, o.attempts, o.tried_at FROM webhook_parked AS o
  WHERE o.webhook_id = $1 AND o.state = 'waiting' AND o.pos >= h.pos AND (o.about = h.about OR o.pos = h.pos)
  ORDER BY o.pos LIMIT 20
) AS q;

-- name: events_at
SELECT w.pos, e.at, e.type, e.pool_id, e.binding_id, e.x, e.extension, e.expires_at, e.reason, e.data::text AS data,
       b.order_id, b.user_data, b.metadata::text AS metadata
FROM unnest($2::bigint[]) AS w (pos)
CROSS JOIN LATERAL (
  SELECT g.* FROM event_page AS g WHERE g.app_id = $1 AND g.upto >= w.pos ORDER BY g.upto LIMIT 1
) AS p
CROSS JOIN LATERAL (
  SELECT v.* FROM event AS v WHERE v.id = p.ids[w.pos - p.first + 1] AND v.at >= p.since AND v.at <= p.until OFFSET 0
) AS e
LEFT JOIN binding AS b ON b.pool_id = e.pool_id AND b.id = e.binding_id
WHERE p.first <= w.pos
ORDER BY w.pos;

-- name: note
WITH held AS (
  UPDATE webhook AS w
  SET lease_until = clock_timestamp() + $3 * interval '1 second', at_position = greatest(w.at_position, $4), failures = $5,
      paused_until = clock_timestamp() + $6 * interval '1 second', delivered = w.delivered + $7, missed = w.missed + $8,
      delivered_at = CASE WHEN $7 > 0 THEN clock_timestamp() ELSE w.delivered_at END,
      failed_at = CASE WHEN $9::text IS NOT NULL THEN clock_timestamp() ELSE w.failed_at END,
      error = coalesce($9, w.error), state = CASE WHEN $10 THEN 'disabled' ELSE w.state END,
      state_reason = CASE WHEN $10 THEN 'gone' ELSE w.state_reason END
  WHERE w.id = $1 AND w.token = $2
  RETURNING w.id, w.state, w.url, w.types, w.secret_sealed,
            CASE WHEN w.old_until > clock_timestamp() THEN w.old_sealed END AS old_sealed
),
done AS (
  DELETE FROM webhook_parked AS p USING held WHERE p.webhook_id = held.id AND p.pos = ANY ($11::bigint[])
),
parked AS (
  INSERT INTO webhook_parked AS p (webhook_id, pos, about, attempts, tried_at, due_at, state, error)
  SELECT held.id, u.pos, u.about, u.attempts, CASE WHEN u.error IS NOT NULL THEN clock_timestamp() END,
         clock_timestamp() + u.due_s * interval '1 second', CASE WHEN u.dead THEN 'dead' ELSE 'waiting' END, u.error
  FROM held CROSS JOIN unnest($12::bigint[], $13::uuid[], $14::integer[], $15::double precision[], $16::boolean[], $17::text[])
    AS u (pos, about, attempts, due_s, dead, error)
  ON CONFLICT (webhook_id, pos) DO UPDATE
  SET attempts = excluded.attempts, tried_at = coalesce(p.tried_at, excluded.tried_at), due_at = excluded.due_at,
      state = excluded.state, error = excluded.error
)
SELECT held.state, held.url, held.types, held.secret_sealed, held.old_sealed FROM held;

-- name: add
INSERT INTO webhook (app_id, name, url, types, secret_sealed, at_position)
SELECT $1, $2, $3, $4, $5, coalesce((SELECT f.upto FROM event_feed AS f WHERE f.app_id = $1), 0)
WHERE (SELECT count(*) FROM webhook AS w WHERE w.app_id = $1) < $6
ON CONFLICT (app_id, name) DO NOTHING RETURNING id;

-- name: every
SELECT w.id, w.name, w.url, w.types, w.state, w.state_reason, w.created_at, w.delivered, w.missed, w.delivered_at, w.failed_at,
       w.error, w.failures, CASE WHEN w.paused_until > clock_timestamp() THEN w.paused_until END AS paused_until,
       CASE WHEN w.old_until > clock_timestamp() THEN w.old_until END AS old_secret_until,
       greatest(coalesce((SELECT f.upto FROM event_feed AS f WHERE f.app_id = w.app_id), 0) - w.at_position, 0) AS behind,
       (SELECT count(*) FROM webhook_parked AS p WHERE p.webhook_id = w.id AND p.state = 'waiting') AS waiting,
       (SELECT count(*) FROM webhook_parked AS p WHERE p.webhook_id = w.id AND p.state = 'dead') AS dead
FROM webhook AS w WHERE w.app_id = $1 AND ($2::text IS NULL OR w.name = $2) ORDER BY w.name;

-- name: turn
UPDATE webhook AS w
SET state = $3, state_reason = $4, failures = CASE WHEN $3 = 'enabled' THEN 0 ELSE w.failures END,
    paused_until = CASE WHEN $3 = 'enabled' THEN '-infinity' ELSE w.paused_until END
WHERE w.app_id = $1 AND w.name = $2 RETURNING w.id;

-- name: rotate
UPDATE webhook AS w
SET old_sealed = w.secret_sealed, old_until = clock_timestamp() + $4 * interval '1 second', secret_sealed = $3
WHERE w.app_id = $1 AND w.name = $2 RETURNING w.id;

-- name: remove
DELETE FROM webhook AS w WHERE w.app_id = $1 AND w.name = $2 RETURNING w.id;

-- name: parked
SELECT p.pos, p.about, p.state, p.attempts, p.tried_at, p.due_at, p.error,
       (SELECT v.type FROM event_page AS g JOIN event AS v ON v.id = g.ids[p.pos - g.first + 1] AND v.at >= g.since AND v.at <= g.until
        WHERE g.app_id = $1 AND g.upto >= p.pos AND g.first <= p.pos ORDER BY g.upto LIMIT 1) AS type,
       (SELECT v.pool_id FROM event_page AS g JOIN event AS v ON v.id = g.ids[p.pos - g.first + 1] AND v.at >= g.since AND v.at <= g.until
        WHERE g.app_id = $1 AND g.upto >= p.pos AND g.first <= p.pos ORDER BY g.upto LIMIT 1) AS pool_id
FROM webhook AS w JOIN webhook_parked AS p ON p.webhook_id = w.id
WHERE w.app_id = $1 AND w.name = $2 AND ($3::text IS NULL OR p.state = $3) AND p.pos > $4
ORDER BY p.pos LIMIT $5;

-- name: replay
WITH asked AS MATERIALIZED (
  SELECT g.first + u.n - 1 AS pos, e.binding_id
  FROM event_page AS g
  CROSS JOIN LATERAL unnest(g.ids) WITH ORDINALITY AS u (id, n)
  CROSS JOIN LATERAL (
    SELECT v.binding_id, v.type, v.at FROM event AS v WHERE v.id = u.id AND v.at >= g.since AND v.at <= g.until OFFSET 0
  ) AS e
  WHERE g.app_id = $1 AND g.upto > $3 AND g.first <= $3 + $4 AND g.first + u.n - 1 > $3 AND g.first + u.n - 1 <= $3 + $4
    AND ($5::timestamptz IS NULL OR e.at >= $5) AND ($6::timestamptz IS NULL OR e.at < $6)
    AND ($7::text[] IS NULL OR e.type = ANY ($7))
)
INSERT INTO webhook_parked AS p (webhook_id, pos, about, attempts, due_at)
-- What is yet to come is not sent again.
SELECT w.id, a.pos, a.binding_id, 0, clock_timestamp() FROM webhook AS w CROSS JOIN asked AS a
WHERE w.app_id = $1 AND w.name = $2 AND a.pos <= w.at_position
ON CONFLICT (webhook_id, pos) DO UPDATE SET state = 'waiting', due_at = excluded.due_at, attempts = 0, tried_at = NULL
WHERE p.state = 'dead'
RETURNING p.pos;

-- name: revive
UPDATE webhook_parked AS p SET state = 'waiting', attempts = 0, tried_at = NULL, due_at = clock_timestamp()
FROM webhook AS w
WHERE w.app_id = $1 AND w.name = $2 AND p.webhook_id = w.id AND p.state = 'dead' AND p.pos IN (
  SELECT d.pos FROM webhook_parked AS d WHERE d.webhook_id = w.id AND d.state = 'dead' ORDER BY d.pos LIMIT $3)
RETURNING p.pos;

-- name: bury
DELETE FROM webhook_parked AS p USING webhook AS w, event_feed AS f
WHERE w.id = p.webhook_id AND f.app_id = w.app_id AND p.state = 'dead' AND p.pos <= f.swept;

-- name: tell_test
WITH kept AS MATERIALIZED (SELECT a.id FROM app AS a WHERE a.id = $1 AND a.event_days > 0)
SELECT kept.id, emit_event(kept.id, $2, NULL, NULL, $3::text::jsonb) FROM kept;
