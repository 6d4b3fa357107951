-- Bindings that go on as others in a sibling app.

-- name: begin
SELECT begin_succession($1, $2, $3, $4, $5, $6, make_interval(secs => $7)) AS outcome;

-- name: settle
SELECT settle_successions($1, $2) AS settled;

-- name: made
-- What an earlier try of the same request made.
SELECT n.pool_id, s.new_id
FROM succession AS s CROSS JOIN LATERAL successor(s.pools, s.new_id) AS n
WHERE s.old_pool = $1 AND s.old_id = $2 AND s.key_hash = $3 AND n.state <> 'failed';

-- name: forget
DELETE FROM succession AS s
WHERE s.old_pool = $1 AND s.old_id = $2 AND s.new_id = $3 AND s.settled_at IS NULL
  AND NOT EXISTS (SELECT FROM successor(s.pools, s.new_id));

-- name: sweep
WITH old AS MATERIALIZED (
  SELECT old_pool, old_id, new_id FROM succession
  WHERE settled_at < (SELECT clock_timestamp() - interval '25 hours') ORDER BY settled_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
DELETE FROM succession AS s USING old
WHERE s.old_pool = old.old_pool AND s.old_id = old.old_id AND s.new_id = old.new_id;
