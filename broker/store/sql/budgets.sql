-- Budgets of X numbers: complaints and answered calls.

-- name: standings
-- All that was ever over stays in sight until it is within again, also where an app has no budget any more. What an X has
-- used is added up for those of the slice only.
WITH dated AS MATERIALIZED (SELECT broker_now() AS at),
slice AS MATERIALIZED (
  SELECT x.pool_id, x.x_id, x.state, x.closed_by, a.complaint_budget, a.complaint_days, a.answer_floor, a.over_budget, o.why
  FROM x_number AS x JOIN pool AS p ON p.id = x.pool_id JOIN app AS a ON a.id = p.app_id
  LEFT JOIN over_budget AS o ON o.pool_id = x.pool_id AND o.x_id = x.x_id
  WHERE (x.pool_id, x.x_id) > ($1, $2) AND x.state NOT IN ('moved', 'retired') AND ($4::text IS NULL OR x.number = $4)
    AND (o.why IS NOT NULL OR x.closed_by = 'budget'
         OR (a.complaint_budget IS NOT NULL AND EXISTS (SELECT FROM complaint AS k WHERE k.number = x.number))
         OR (a.answer_floor IS NOT NULL AND EXISTS (SELECT FROM x_use AS u WHERE u.pool_id = x.pool_id AND u.x_id = x.x_id)))
  ORDER BY x.pool_id, x.x_id LIMIT $3
)
SELECT s.pool_id, s.x_id, s.state, s.closed_by, s.complaint_budget, s.complaint_days, s.answer_floor, s.over_budget, s.why,
       u.complaints, u.calls, u.answered
FROM slice AS s CROSS JOIN dated AS d CROSS JOIN LATERAL use_of(s.pool_id, s.x_id, d.at) AS u
ORDER BY s.pool_id, s.x_id;

-- name: keep
SELECT keep_budget($1, $2, $3, $4, $5, $6, $7::text::jsonb) AS told;

-- name: counts
SELECT p.app_id, w.why, count(*) AS many
FROM over_budget AS o JOIN pool AS p ON p.id = o.pool_id CROSS JOIN LATERAL unnest(o.why) AS w (why)
GROUP BY p.app_id, w.why;

-- name: hot
WITH dated AS MATERIALIZED (SELECT broker_now() AS at)
SELECT u.pool_id, u.x_id
FROM app AS a JOIN pool AS p ON p.app_id = a.id JOIN x_use AS u ON u.pool_id = p.id CROSS JOIN dated AS d
WHERE a.heat IS NOT NULL AND faded(u.heat, u.as_of, d.at, '1 hour') >= a.heat;

-- name: complain
INSERT INTO complaint (app_id, number, at, reason)
SELECT p.app_id, x.number, broker_now(), $3 FROM x_number AS x JOIN pool AS p ON p.id = x.pool_id
WHERE p.app_id = $1 AND x.number = $2 AND x.state <> 'moved'
RETURNING id;

-- name: forget
DELETE FROM complaint WHERE at < (SELECT broker_now() - interval '400 days');
