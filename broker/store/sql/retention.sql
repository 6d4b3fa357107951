-- What has ended and is deleted, and what is kept for how long.

-- name: slice
SELECT gone, more FROM forget_slice($1, $2);

-- name: walks
SELECT kind, every, due_at, began_at, ended_at, gone, gone_before, gone_in_all FROM retention ORDER BY kind;

-- name: behind
-- Since when each walk has been due; walks on time are not behind.
SELECT kind, extract(epoch FROM greatest(broker_now() - CASE WHEN due_at = '-infinity' THEN coalesce(began_at, broker_now()) ELSE due_at END,
                                         interval '0'))::double precision AS behind_s
FROM retention;

-- name: apps
SELECT name, retention_days, greatest(retention_days, 2) AS ended_days, event_days FROM app ORDER BY name;

-- name: sizes
-- Rows as the statistics have them: counting millions would take minutes.
SELECT t.name, sum(greatest(c.reltuples, 0))::bigint AS rows, sum(pg_total_relation_size(c.oid))::bigint AS bytes,
       min(to_date(substring(c.relname FROM '_([0-9]{8})$'), 'YYYYMMDD'))::timestamp AT TIME ZONE 'UTC' AS since
FROM unnest($1::text[]) WITH ORDINALITY AS t (name, ord)
CROSS JOIN LATERAL (
  SELECT t.name::regclass AS relid UNION ALL SELECT i.inhrelid::regclass FROM pg_inherits AS i WHERE i.inhparent = t.name::regclass) AS p
JOIN pg_class AS c ON c.oid = p.relid
GROUP BY t.name, t.ord ORDER BY t.ord;

-- name: oldest
-- One look at the key of each pool; ids begin with the time at which they were made.
SELECT min(l.id::text) AS line, min(b.id::text) AS binding
FROM pool AS p
LEFT JOIN LATERAL (SELECT o.id FROM line AS o WHERE o.pool_id = p.id ORDER BY o.pool_id, o.id LIMIT 1) AS l ON true
LEFT JOIN LATERAL (SELECT o.id FROM binding AS o WHERE o.pool_id = p.id ORDER BY o.pool_id, o.id LIMIT 1) AS b ON true;
