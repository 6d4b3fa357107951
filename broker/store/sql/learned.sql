-- What calls after the end of a binding taught.

-- name: cohorts
-- Ninety days: habits change, and a million releases are enough.
SELECT c.pool_id, c.rest_s, c.releases, c.calls, c.share = 0 AS outside,
       extract(epoch FROM broker_now() - ((c.day + 1)::timestamp AT TIME ZONE 'UTC'))::double precision AS passed_s
FROM cooldown AS c
WHERE c.pool_id = ANY ($1::integer[]) AND c.day >= (broker_now() AT TIME ZONE 'UTC')::date - 90
ORDER BY c.pool_id, c.day, c.rest_s, c.share;

-- name: forget
SELECT forget_learned($1) AS gone;
