-- Apps in shadow: what is bound there, what is predicted here, and the way in and out.

-- name: follow
-- What is on a place now; what was there and is not shown any more has gone.
WITH shown AS (
  INSERT INTO shadow_seen AS s (app_id, subscription_id, pool_id, x_id, extension, a_key, b_key)
  SELECT $1, u.subscription_id, $2, $3, $4, u.a_key, u.b_key
  FROM unnest($5::text[], $6::bigint[], $7::bigint[]) AS u (subscription_id, a_key, b_key)
  ON CONFLICT (app_id, subscription_id) DO UPDATE
    SET pool_id = excluded.pool_id, x_id = excluded.x_id, extension = excluded.extension, a_key = excluded.a_key,
        b_key = excluded.b_key, gone_at = NULL
)
UPDATE shadow_seen AS s SET gone_at = clock_timestamp()
WHERE s.pool_id = $2 AND s.x_id = $3 AND s.extension IS NOT DISTINCT FROM $4 AND s.gone_at IS NULL
  AND s.app_id = $1 AND s.subscription_id <> ALL ($5::text[]);

-- name: forget
-- What went so long ago that it would not even rest any more.
DELETE FROM shadow_seen AS s USING app AS a
WHERE a.id = s.app_id AND s.app_id = $1 AND s.gone_at < clock_timestamp() - a.quarantine_s * interval '1 second';

-- name: count
INSERT INTO shadow_count AS c (app_id, what, many)
SELECT a.id, u.what, u.many FROM unnest($1::integer[], $2::text[], $3::bigint[]) AS u (app_id, what, many)
JOIN app AS a ON a.id = u.app_id AND a.shadow
ON CONFLICT (app_id, what) DO UPDATE SET many = c.many + excluded.many;

-- name: switch
SELECT outcome, lines, wait_s FROM switch_shadow($1, $2, $3 * interval '1 second');

-- name: state
SELECT a.id, a.shadow, a.shadow_changed_at, a.state, a.state_reason FROM app AS a WHERE a.name = $1;

-- name: counts
SELECT c.what, c.many FROM shadow_count AS c WHERE c.app_id = $1 ORDER BY c.what;

-- name: followed
SELECT max(r.ended_at) AS followed_at FROM drift_run AS r
WHERE r.app_id = $1 AND r.state = 'done' AND r.steps_done >= r.steps
  AND r.started_at >= (SELECT a.shadow_changed_at FROM app AS a WHERE a.id = $1);

-- name: report
WITH mine AS MATERIALIZED (
  SELECT l.pool_id, l.x_id, l.extension, l.a_key, l.b_key, least(l.a_key, l.b_key) AS one, greatest(l.a_key, l.b_key) AS two
  FROM x_number AS x JOIN pool AS q ON q.id = x.pool_id
  JOIN line AS l ON l.x_key = x.pool_id::bigint * 100000 + x.x_id AND l.seat IS NOT NULL
  WHERE q.app_id = $1 AND l.state = 'active' AND l.subscription_id LIKE 'shadow-%'
),
theirs AS MATERIALIZED (
  SELECT s.pool_id, s.x_id, s.extension, s.a_key, s.b_key, least(s.a_key, s.b_key) AS one, greatest(s.a_key, s.b_key) AS two
  FROM shadow_seen AS s WHERE s.app_id = $1 AND s.gone_at IS NULL
),
orders AS (
  SELECT coalesce(m.one, t.one) AS one, m.one IS NOT NULL AS here, t.one IS NOT NULL AS there
  FROM (SELECT DISTINCT one, two FROM mine) AS m FULL JOIN (SELECT DISTINCT one, two FROM theirs) AS t
    ON t.one = m.one AND t.two = m.two
)
SELECT
  (SELECT count(*) FROM mine) AS predicted,
  (SELECT count(DISTINCT (m.pool_id, m.x_id)) FROM mine AS m) AS x_predicted,
  (SELECT count(*) FROM theirs) AS there,
  (SELECT count(DISTINCT (t.pool_id, t.x_id)) FROM theirs AS t) AS x_there,
  (SELECT count(*) FROM orders AS o WHERE o.here AND o.there) AS both,
  (SELECT count(*) FROM orders AS o WHERE o.here AND NOT o.there) AS only_predicted,
  (SELECT count(*) FROM orders AS o WHERE o.there AND NOT o.here) AS only_there,
  (SELECT count(DISTINCT (m.one, m.two)) FROM mine AS m
   JOIN theirs AS t ON t.one = m.one AND t.two = m.two AND t.pool_id = m.pool_id AND t.x_id = m.x_id
     AND t.extension IS NOT DISTINCT FROM m.extension) AS same_x,
  (SELECT count(*) FROM mine AS m WHERE EXISTS (
     SELECT FROM theirs AS t
     WHERE t.pool_id = m.pool_id AND t.x_id = m.x_id AND t.extension IS NOT DISTINCT FROM m.extension
       AND (t.one, t.two) <> (m.one, m.two)
       AND (m.b_key IS NULL OR m.one IN (t.one, t.two) OR m.two IN (t.one, t.two)))) AS clashes;
