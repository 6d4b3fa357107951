-- What calls and messages add up to by day, and what they cost: the platform tells no costs.

CREATE TABLE price (
  app_id      integer NOT NULL REFERENCES app ON DELETE CASCADE,
  area_code   text NOT NULL DEFAULT '',
  x           text NOT NULL DEFAULT '',
  valid_from  date NOT NULL DEFAULT '2000-01-01',
  currency    text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  call_minute numeric(12, 6) NOT NULL CHECK (call_minute >= 0),
  sms         numeric(12, 6) CHECK (sms >= 0),
  PRIMARY KEY (app_id, area_code, x, valid_from),
  CHECK (area_code = '' OR x = '')
);
COMMENT ON TABLE price IS 'What calls and messages of an app cost, by what its contract with the platform says.';
COMMENT ON COLUMN price.app_id IS 'Whose price.';
COMMENT ON COLUMN price.area_code IS 'Only for pools of this city; empty = any.';
COMMENT ON COLUMN price.x IS 'Only for this X number, before the price of its city; empty = any.';
COMMENT ON COLUMN price.valid_from IS 'The first day of it.';
COMMENT ON COLUMN price.currency IS 'ISO 4217.';
COMMENT ON COLUMN price.call_minute IS 'For each minute that is begun while two speak.';
COMMENT ON COLUMN price.sms IS 'For each segment of a message that was forwarded; null = as the next wider price of the same currency says.';

CREATE FUNCTION price_of(p_app integer, p_area text, p_x text, p_day date)
RETURNS TABLE (currency text, call_minute numeric, sms numeric)
LANGUAGE sql STABLE
AS $$
  WITH fits AS MATERIALIZED (
    SELECT p.currency, p.call_minute, p.sms, row_number() OVER (ORDER BY p.x DESC, p.area_code DESC, p.valid_from DESC) AS place
    FROM price AS p
    WHERE p.app_id = p_app AND p.area_code IN ('', p_area) AND p.x IN ('', p_x) AND p.valid_from <= p_day
  )
  SELECT f.currency, f.call_minute,
         (SELECT w.sms FROM fits AS w WHERE w.currency = f.currency AND w.sms IS NOT NULL ORDER BY w.place LIMIT 1)
  FROM fits AS f WHERE f.place = 1
$$;
COMMENT ON FUNCTION price_of IS 'The price that counts for an X of a city on a day: its own, else its city''s, else the app''s.';

CREATE FUNCTION summary(p_app integer, p_first date, p_last date, p_zone text, p_by text[], p_limit integer)
RETURNS TABLE (day date, pool text, area_code text, x text, calls bigint, answered bigint, talk_s bigint, minutes bigint,
               messages bigint, segments bigint, currency text, cost numeric, unpriced bigint)
LANGUAGE sql STABLE
AS $$
  WITH told AS (
    SELECT (c.at AT TIME ZONE p_zone)::date AS day, c.pool_id, c.x, 1 AS calls, (c.talk_s > 0)::integer AS answered, c.talk_s,
           ceil(c.talk_s / 60.0)::integer AS minutes, 0 AS messages, 0 AS segments
    FROM cdr AS c
    WHERE c.app_id = p_app AND c.at >= p_first::timestamp AT TIME ZONE p_zone AND c.at < (p_last + 1)::timestamp AT TIME ZONE p_zone
    UNION ALL
    SELECT (s.at AT TIME ZONE p_zone)::date, s.pool_id, s.x, 0, 0, 0, 0, 1, CASE WHEN s.result = 0 THEN coalesce(s.segments, 1) ELSE 0 END
    FROM sms AS s
    WHERE s.app_id = p_app AND s.at >= p_first::timestamp AT TIME ZONE p_zone AND s.at < (p_last + 1)::timestamp AT TIME ZONE p_zone
  ),
  -- A price is looked up once for an X and a day, not for each call.
  by_x AS MATERIALIZED (
    SELECT t.day, t.pool_id, t.x, sum(t.calls) AS calls, sum(t.answered) AS answered, sum(t.talk_s) AS talk_s,
           sum(t.minutes) AS minutes, sum(t.messages) AS messages, sum(t.segments) AS segments
    FROM told AS t GROUP BY t.day, t.pool_id, t.x
  )
  SELECT b.day, CASE WHEN 'pool' = ANY (p_by) THEN o.name END, CASE WHEN 'area' = ANY (p_by) THEN o.area_code END,
         CASE WHEN 'x' = ANY (p_by) THEN b.x END, sum(b.calls)::bigint, sum(b.answered)::bigint, sum(b.talk_s)::bigint,
         sum(b.minutes)::bigint, sum(b.messages)::bigint, sum(b.segments)::bigint, p.currency,
         sum(b.minutes * p.call_minute + b.segments * coalesce(p.sms, 0)),
         (coalesce(sum(b.calls) FILTER (WHERE p.currency IS NULL), 0) + coalesce(sum(b.messages) FILTER (WHERE p.sms IS NULL), 0))::bigint
  FROM by_x AS b LEFT JOIN pool AS o ON o.id = b.pool_id
  LEFT JOIN LATERAL price_of(p_app, o.area_code, b.x, b.day) AS p ON true
  GROUP BY 1, 2, 3, 4, p.currency ORDER BY 1, 2, 3, 4, p.currency LIMIT p_limit
$$;
COMMENT ON FUNCTION summary IS
  'What an app''s calls (by their records) and messages add up to by day of a time zone, and by pool, area (city) and x as p_by says; a row for each currency, one without for what has no price.';
