-- Comparing the platform with our books: runs, both sides, what was found.

-- name: begin_due
INSERT INTO drift_run (app_id, why)
SELECT a.id, 'periodic' FROM app AS a LEFT JOIN drift_policy AS p ON p.app_id = a.id
-- An app that was made a moment ago has nothing to compare.
WHERE a.mode <> 'x' AND a.state = 'open' AND coalesce(p.every_s, $1) > 0
  AND a.created_at < clock_timestamp() - coalesce(p.every_s, $1) * interval '1 second' AND NOT EXISTS (
  SELECT FROM drift_run AS r
  WHERE r.app_id = a.id AND (r.state = 'open' OR r.started_at > clock_timestamp() - coalesce(p.every_s, $1) * interval '1 second'))
ON CONFLICT DO NOTHING;

-- name: mode_of
SELECT a.mode FROM app AS a WHERE a.id = $1;

-- name: waiting
SELECT r.app_id FROM drift_run AS r
WHERE r.state = 'open' AND r.why <> 'import' AND (r.owner = $1 OR r.lease_until <= clock_timestamp());

-- name: begin
INSERT INTO drift_run (app_id, why, steps) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING id;

-- name: stop_audit
UPDATE drift_run AS r SET state = 'done', ended_at = clock_timestamp() WHERE r.app_id = $1 AND r.state = 'open' AND r.why <> 'import';

-- name: take
UPDATE drift_run AS r SET owner = $2, lease_until = clock_timestamp() + $3 * interval '1 second'
FROM app AS a LEFT JOIN drift_policy AS p ON p.app_id = a.id
WHERE r.app_id = $1 AND a.id = r.app_id AND r.state = 'open' AND (r.why = 'import') = $4
  AND (r.owner = $2 OR r.lease_until <= clock_timestamp())
RETURNING r.id, r.why, r.at_pool, r.at_x, r.at_extension, r.steps, r.steps_done, coalesce(p.unknown, 'report') AS unknown,
          coalesce(p.absent, 'rebind') AS absent, coalesce(p.differing, 'repair') AS differing, p.caller_id,
          coalesce(p.every_s, 3600) AS every_s;

-- name: count_x
SELECT count(*) AS steps FROM x_number AS x JOIN pool AS q ON q.id = x.pool_id
WHERE q.app_id = $1 AND x.state NOT IN ('moved', 'retired');

-- name: count_places
SELECT count(*) AS steps FROM pool AS q JOIN place AS h ON h.pool_id = q.id
WHERE q.app_id = $1 AND ($3 = 1 OR h.until > broker_now() - interval '1 day' OR (h.x_id * 7919 + h.extension) % $3 = $2 % $3);

-- name: steps_x
SELECT x.pool_id, x.x_id, NULL::smallint AS extension, x.number FROM pool AS q JOIN x_number AS x ON x.pool_id = q.id
WHERE q.app_id = $1 AND x.state NOT IN ('moved', 'retired') AND (x.pool_id, x.x_id) > ($2::integer, $3::integer)
ORDER BY x.pool_id, x.x_id LIMIT $4;

-- name: steps_places
SELECT h.pool_id, h.x_id, h.extension, x.number
FROM pool AS q JOIN place AS h ON h.pool_id = q.id JOIN x_number AS x ON x.pool_id = h.pool_id AND x.x_id = h.x_id
WHERE q.app_id = $1 AND x.state NOT IN ('moved', 'retired')
  AND (h.pool_id, h.x_id, h.extension) > ($2::integer, $3::integer, $4::smallint)
  AND ($6 = 1 OR h.until > broker_now() - interval '1 day' OR (h.x_id * 7919 + h.extension) % $6 = $5 % $6)
ORDER BY h.pool_id, h.x_id, h.extension LIMIT $7;

-- name: progress
UPDATE drift_run AS r
SET lease_until = clock_timestamp() + $3 * interval '1 second', at_pool = $4, at_x = $5, at_extension = $6,
    steps_done = r.steps_done + $7, calls = r.calls + $8, compared = r.compared + $9, found = r.found + $10,
    adopted = r.adopted + $11, peers = r.peers + $12, unverifiable = r.unverifiable + $13
WHERE r.id = $1 AND r.owner = $2 AND r.state = 'open' RETURNING r.id;

-- name: size
UPDATE drift_run AS r SET steps = $3 WHERE r.id = $1 AND r.owner = $2;

-- name: finish
WITH over AS (
  UPDATE drift_run AS r SET state = 'done', ended_at = clock_timestamp(), lease_until = '-infinity'
  WHERE r.id = $1 AND r.owner = $2 AND r.state = 'open' RETURNING r.app_id, r.why
)
UPDATE drift_policy AS p SET gated = false FROM over WHERE p.app_id = over.app_id AND p.gated AND over.why = 'restore';

-- name: ours
SELECT l.id, l.subscription_id, l.a_key, l.b_key, l.direction, l.ttl_s, l.calls, l.adopted_at IS NOT NULL AS adopted,
       l.state = 'active' AND NOT l.changing AND (l.expires_at IS NULL OR l.expires_at > broker_now() + interval '30 seconds')
         AS settled
FROM line AS l
WHERE l.x_key = $1::bigint * 100000 + $2 AND l.seat IS NOT NULL AND ($3::smallint IS NULL OR l.seat = $3);

-- name: peers
SELECT p.id, p.line_id, p.state, p.b_key, p.y, p.expires_at IS NULL OR p.expires_at > broker_now() + interval '30 seconds' AS stays
FROM peer AS p WHERE p.line_id = ANY ($1::uuid[]) AND p.state IN ('pending', 'active', 'releasing');

-- name: end_lost_peer
WITH held AS (
  SELECT l.id FROM line AS l
  WHERE l.pool_id = $1 AND l.id = $2 AND l.state = 'active' AND NOT l.changing AND l.calls = $3 FOR UPDATE
)
UPDATE peer AS p SET state = 'released', reason = 'platform_lost', ended_at = broker_now()
FROM held WHERE p.pool_id = $1 AND p.id = $4 AND p.line_id = held.id AND p.state = 'active' RETURNING p.id;

-- name: known_elsewhere
SELECT l.id FROM unnest($2::uuid[], $3::text[]) AS i (id, subscription_id)
JOIN pool AS q ON q.app_id = $1
JOIN line AS l ON l.pool_id = q.id AND l.id = i.id
WHERE l.seat IS NOT NULL AND (l.subscription_id IS NULL OR l.subscription_id = i.subscription_id);

-- name: note
INSERT INTO drift (app_id, kind, subscription_id, pool_id, x_id, extension, line_id, ours, action, first_run, last_run)
SELECT $1, u.kind, u.subscription_id, $2, $3, $4, u.line_id, u.ours, u.action, $5, $5
FROM unnest($6::text[], $7::text[], $8::uuid[], $9::boolean[], $10::text[]) AS u (kind, subscription_id, line_id, ours, action)
ON CONFLICT (app_id, kind, subscription_id) DO UPDATE
  SET action = excluded.action, last_run = excluded.last_run, last_seen_at = clock_timestamp(), pool_id = excluded.pool_id,
      x_id = excluded.x_id, extension = excluded.extension, line_id = excluded.line_id, ours = excluded.ours,
      first_run = CASE WHEN drift.resolved_at IS NULL THEN drift.first_run ELSE excluded.first_run END,
      first_seen_at = CASE WHEN drift.resolved_at IS NULL THEN drift.first_seen_at ELSE clock_timestamp() END,
      resolved_at = NULL;

-- name: resolve
UPDATE drift AS d SET resolved_at = clock_timestamp()
FROM unnest($1::integer[], $2::integer[], $3::smallint[]) AS i (pool_id, x_id, extension)
WHERE d.pool_id = i.pool_id AND d.x_id = i.x_id AND d.extension IS NOT DISTINCT FROM i.extension
  AND d.resolved_at IS NULL AND d.last_run < $4;

-- name: settle_action
UPDATE drift AS d SET action = $4, resolved_at = CASE WHEN $5 THEN clock_timestamp() END
WHERE d.app_id = $1 AND d.kind = $2 AND d.subscription_id = $3;

-- name: repair
SELECT repair_line($1, $2, $3, $4, $5) AS begun;

-- name: end_lost
SELECT end_lost($1, $2, $3, $4) AS begun;

-- name: bar
SELECT bar_stranger($1, $2, $3, $4, $5, $6 * interval '1 second');

-- name: adopt
-- Not into the books of an app that has gone into shadow meanwhile.
SELECT i.ord, i.adopted FROM (SELECT a.id FROM app AS a WHERE a.id = $1 AND NOT a.shadow FOR SHARE) AS a
CROSS JOIN LATERAL adopt_lines(a.id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) AS i;

-- name: first_caller
SELECT coalesce((SELECT p.caller_id FROM drift_policy AS p WHERE p.app_id = $1),
                (SELECT min(c.id) FROM caller AS c WHERE c.app_id = $1)) AS id;

-- name: open
SELECT d.app_id, d.kind, count(*) AS many FROM drift AS d WHERE d.resolved_at IS NULL GROUP BY d.app_id, d.kind;

-- name: runs
SELECT r.id, r.why, r.state, r.steps, r.steps_done, r.calls, r.compared, r.found, r.adopted, r.peers, r.unverifiable, r.started_at, r.ended_at,
       r.lease_until > clock_timestamp() AS working
FROM drift_run AS r WHERE r.app_id = $1 ORDER BY r.id DESC LIMIT $2;

-- name: findings
SELECT d.kind, d.action, x.number AS x, d.extension, d.subscription_id, d.line_id::text AS line_id, d.ours, d.first_seen_at, d.last_seen_at,
       d.resolved_at
FROM drift AS d LEFT JOIN x_number AS x ON x.pool_id = d.pool_id AND x.x_id = d.x_id
WHERE d.app_id = $1 AND ($2 OR d.resolved_at IS NULL)
ORDER BY d.resolved_at IS NOT NULL, d.first_seen_at DESC, d.subscription_id LIMIT $3;

-- name: policy
SELECT coalesce(p.unknown, 'report') AS unknown, coalesce(p.absent, 'rebind') AS absent,
       coalesce(p.differing, 'repair') AS differing, coalesce(p.every_s, 3600) AS every_s, coalesce(p.gated, false) AS gated,
       (SELECT c.name FROM caller AS c WHERE c.id = p.caller_id) AS caller
FROM app AS a LEFT JOIN drift_policy AS p ON p.app_id = a.id WHERE a.id = $1;

-- name: set_policy
INSERT INTO drift_policy AS p (app_id, unknown, absent, differing, every_s, caller_id)
VALUES ($1, coalesce($2, 'report'), coalesce($3, 'rebind'), coalesce($4, 'repair'), coalesce($5, 3600),
        (SELECT c.id FROM caller AS c WHERE c.app_id = $1 AND c.name = $6))
ON CONFLICT (app_id) DO UPDATE
  SET unknown = coalesce($2, p.unknown), absent = coalesce($3, p.absent), differing = coalesce($4, p.differing),
      every_s = coalesce($5, p.every_s), caller_id = coalesce(excluded.caller_id, p.caller_id);

-- name: caller_of
SELECT c.id FROM caller AS c WHERE c.app_id = $1 AND c.name = $2;

-- name: gate
WITH gated AS (
  INSERT INTO drift_policy AS p (app_id, gated) SELECT a.id, true FROM app AS a WHERE a.mode <> 'x'
  ON CONFLICT (app_id) DO UPDATE SET gated = true RETURNING p.app_id
),
-- A run that is open began before the restore, or in it: what it has passed is looked at again.
restarted AS (
  UPDATE drift_run AS r SET state = 'done', ended_at = clock_timestamp() FROM gated
  WHERE r.app_id = gated.app_id AND r.state = 'open'
)
SELECT gated.app_id FROM gated;
