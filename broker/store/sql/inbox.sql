-- Notifications as they came, and what they bring about.

-- name: keep
-- In the order of the key, so that two who take the same ones in never wait for each other in a circle.
WITH kept AS (
  INSERT INTO inbox AS n (at, id, app_id, kind, state, received_at, due_at, raw_sealed)
  SELECT u.at, u.id, u.app_id, u.kind, CASE u.kind WHEN 'unreadable' THEN 'unreadable' ELSE 'new' END, broker_now(),
         clock_timestamp() + make_interval(secs => $6), u.raw
  FROM unnest($1::timestamptz[], $2::uuid[], $3::integer[], $4::text[], $5::bytea[]) AS u (at, id, app_id, kind, raw)
  ORDER BY u.at, u.id
  ON CONFLICT (at, id) DO NOTHING
  RETURNING n.id
)
SELECT id FROM kept;

-- name: claim_due
SELECT at, id, app_id, raw_sealed FROM claim_due_notices($1, $2);

-- name: settle
SELECT settle_notice($1, $2) AS settled;

-- name: set_aside
UPDATE inbox SET state = $3, error = $4 WHERE at = $1 AND id = $2 AND state = 'new';

-- name: lines_told
SELECT ord, pool_id, line_id, found_by FROM lines_told($1, $2, $3, $4);

-- name: project_event
SELECT project_events($1) AS done;

-- name: project_cdr
SELECT project_cdrs($1) AS done;

-- name: project_sms
SELECT project_sms($1) AS done;

-- name: look
SELECT count(*) AS number, coalesce(extract(epoch FROM broker_now() - min(received_at)), 0)::double precision AS oldest_s,
       broker_now() AS now
FROM (SELECT received_at FROM inbox WHERE state = 'new' ORDER BY due_at LIMIT 10000) AS n;

-- name: tend
SELECT tend_notices($1, $2) AS step;

-- name: forget_ends
SELECT forget_ends($1) AS gone;

-- name: list
SELECT n.at, n.id::text AS id, a.name AS app, n.kind, n.state, n.received_at, n.settled_at, n.error, octet_length(n.raw_sealed) AS bytes
FROM inbox AS n JOIN app AS a ON a.id = n.app_id
WHERE a.name = $1 AND n.state = ANY ($2::text[]) ORDER BY n.received_at DESC LIMIT $3;

-- name: left
SELECT count(*) AS number FROM inbox AS i JOIN app AS a ON a.id = i.app_id
WHERE a.name = $1 AND i.state IN ('unreadable', 'stuck');

-- name: replay
UPDATE inbox AS n SET state = 'new', due_at = clock_timestamp(), error = NULL
WHERE (n.at, n.id) IN (
  SELECT i.at, i.id FROM inbox AS i JOIN app AS a ON a.id = i.app_id
  WHERE a.name = $1 AND i.state IN ('unreadable', 'stuck') AND ($2::uuid IS NULL OR i.id = $2)
  ORDER BY i.received_at LIMIT $3 FOR UPDATE OF i SKIP LOCKED)
RETURNING n.id;
