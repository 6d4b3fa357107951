-- What the platform says of numbers and apps.

-- name: note
-- A push that comes again changes nothing. The count rises with each new one: what was decided without it is not written.
WITH found AS MATERIALIZED (
  SELECT x.pool_id, x.x_id FROM x_number AS x JOIN pool AS p ON p.id = x.pool_id
  WHERE p.app_id = $1 AND x.number = $2 AND x.state <> 'moved'
),
old AS (
  DELETE FROM number_status AS s USING found AS f
  WHERE s.pool_id = f.pool_id AND s.x_id = f.x_id AND s.received_at < broker_now() - interval '30 days'
),
new AS (
  INSERT INTO number_status (pool_id, x_id, created, status, cause, received_at)
  SELECT f.pool_id, f.x_id, $5, $3, $4, broker_now() FROM found AS f
  ON CONFLICT DO NOTHING
  RETURNING number_status.pool_id, number_status.x_id
),
counted AS (
  UPDATE x_number AS x
  SET statuses = x.statuses + 1,
      platform_status = CASE WHEN x.platform_status_at > $5 THEN x.platform_status ELSE $6 END,
      platform_status_at = greatest(x.platform_status_at, $5)
  FROM new WHERE x.pool_id = new.pool_id AND x.x_id = new.x_id
)
SELECT f.pool_id, f.x_id FROM found AS f;

-- name: statuses
SELECT x.state, x.closed_by, x.opened_at, x.statuses,
       array_agg(s.created ORDER BY s.created) FILTER (WHERE s.created IS NOT NULL) AS created,
       array_agg(s.status ORDER BY s.created) FILTER (WHERE s.created IS NOT NULL) AS status,
       array_agg(s.cause ORDER BY s.created) FILTER (WHERE s.created IS NOT NULL) AS cause
FROM x_number AS x LEFT JOIN number_status AS s ON s.pool_id = x.pool_id AND s.x_id = x.x_id
WHERE x.pool_id = $1 AND x.x_id = $2
GROUP BY x.pool_id, x.x_id;

-- name: turn
SELECT turn_number($1, $2, $3, $4, $5, $6, $7::text::jsonb) AS turned;

-- name: evacuate
SELECT begin_evacuation($1, $2, 'status', $3) AS begun;

-- name: note_blacklisted
SELECT note_blacklisted($1, $2, $3, $4) AS sure;

-- name: suspend_app
UPDATE app SET state = 'suspended', state_reason = $2, state_since = statement_timestamp()
WHERE id = $1 AND state = 'open'
RETURNING name;
