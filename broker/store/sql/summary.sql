-- What calls add up to, and what they cost.

-- name: summary
SELECT day, pool, area_code, x, calls, answered, talk_s, minutes, messages, segments, currency, cost::text AS cost,
       coalesce(unpriced, 0) AS unpriced
FROM summary($1, $2, $3, $4, $5, $6);

-- name: set_price
INSERT INTO price (app_id, area_code, x, valid_from, currency, call_minute, sms)
VALUES ($1, coalesce($2, ''), coalesce($3, ''), coalesce($4::date, '2000-01-01'::date), $5, $6::text::numeric, $7::text::numeric)
ON CONFLICT (app_id, area_code, x, valid_from)
DO UPDATE SET currency = EXCLUDED.currency, call_minute = EXCLUDED.call_minute, sms = EXCLUDED.sms;

-- name: prices
SELECT nullif(area_code, '') AS area_code, nullif(x, '') AS x, valid_from, currency, trim_scale(call_minute)::text AS call_minute,
       trim_scale(sms)::text AS sms
FROM price WHERE app_id = $1 ORDER BY price.x, price.area_code, valid_from;

-- name: remove_price
DELETE FROM price
WHERE app_id = $1 AND area_code = coalesce($2, '') AND x = coalesce($3, '') AND valid_from = coalesce($4::date, '2000-01-01'::date)
RETURNING true AS removed;

-- name: pool_in_area
SELECT true AS found FROM pool WHERE app_id = $1 AND area_code = $2 LIMIT 1;
