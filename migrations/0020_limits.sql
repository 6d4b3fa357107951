-- The outbound limit in small slices that can be given back, limits of single interfaces, and what every instance has to
-- know of the platform's refusals: pauses, wrong secrets, blocked addresses.
--
-- Dropped is what nobody misses: the limiter's state, which starts anew without burst. New columns check rows of
-- configuration only.
-- squawk-ignore-file ban-drop-table, ban-drop-function, constraint-missing-not-valid

ALTER TABLE app
  ADD COLUMN bind_rate double precision CHECK (bind_rate > 0),
  ADD COLUMN unbind_rate double precision CHECK (unbind_rate > 0),
  ADD COLUMN modify_rate double precision CHECK (modify_rate > 0),
  ADD COLUMN query_rate double precision CHECK (query_rate > 0);
COMMENT ON COLUMN app.bind_rate IS 'Binds a second, over all instances, within the app''s rate; null = no limit of their own.';
COMMENT ON COLUMN app.unbind_rate IS 'Unbinds a second; null = no limit of their own.';
COMMENT ON COLUMN app.modify_rate IS 'Changes a second; null = no limit of their own.';
COMMENT ON COLUMN app.query_rate IS 'Queries a second; null = no limit of their own.';

DROP FUNCTION take_slots(integer, integer, double precision, integer, interval);
DROP TABLE limiter;
-- Losing this table in a crash is harmless: an empty state starts without burst.
CREATE UNLOGGED TABLE limiter (
  app_id    integer NOT NULL,
  interface text NOT NULL DEFAULT '',
  tat       timestamptz NOT NULL,
  rate      double precision,
  PRIMARY KEY (app_id, interface)
) WITH (fillfactor = 20);
COMMENT ON TABLE limiter IS 'GCRA state per app, and per interface of an app that has a limit of its own.';
COMMENT ON COLUMN limiter.interface IS 'bind, unbind, modify or query; empty = all calls of the app.';
COMMENT ON COLUMN limiter.rate IS 'The rate that tat was reckoned with: under another one the same calls are another time.';
COMMENT ON COLUMN limiter.tat IS 'The theoretical arrival time of the next platform call.';

CREATE TABLE platform_stop (
  egress   text NOT NULL DEFAULT '',
  app_id   integer NOT NULL DEFAULT 0,
  reason   text NOT NULL CHECK (reason IN ('flow_control', 'bad_secret', 'source_blocked')),
  until    timestamptz NOT NULL,
  noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  failures integer NOT NULL DEFAULT 0,
  access   text NOT NULL DEFAULT '',
  pace     double precision NOT NULL DEFAULT 1 CHECK (pace > 0 AND pace <= 1),
  PRIMARY KEY (egress, app_id, reason)
);
COMMENT ON TABLE platform_stop IS 'What the platform has refused to one instance and all instances have to heed.';
COMMENT ON COLUMN platform_stop.egress IS 'Name of the address that calls come from, where the platform blocks that; empty = any.';
COMMENT ON COLUMN platform_stop.app_id IS 'The app; 0 = every app behind the address.';
COMMENT ON COLUMN platform_stop.until IS 'Until when nothing is sent; infinity = until the app''s access data change.';
COMMENT ON COLUMN platform_stop.noted_at IS 'When the platform last said so.';
COMMENT ON COLUMN platform_stop.failures IS 'Refused signatures in a row.';
COMMENT ON COLUMN platform_stop.access IS 'Fingerprint of the access data that were refused: others are not meant.';
COMMENT ON COLUMN platform_stop.pace IS 'Share of the app''s rate that is used when the pause ends; it climbs from there.';

CREATE FUNCTION climbed(p_pace double precision, p_until timestamptz) RETURNS double precision
LANGUAGE sql STABLE
AS $$ SELECT least(1.0, p_pace + 0.05 * greatest(0.0, extract(epoch FROM clock_timestamp() - p_until)::double precision)) $$;
COMMENT ON FUNCTION climbed IS 'The share of the rate now: a twentieth more with each second after the pause.';

CREATE FUNCTION take_slots(
  p_app integer, p_want integer, p_rate double precision, p_burst integer, p_horizon interval,
  p_slice interval DEFAULT NULL, p_ahead interval DEFAULT '0', p_interface text DEFAULT '',
  p_own_rate double precision DEFAULT NULL, p_kept double precision DEFAULT 0)
RETURNS TABLE (at_s double precision, every_s double precision, granted integer, late_s double precision, tat timestamptz)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
  v_rate double precision;
  v_burst integer := p_burst;
  late double precision;
  tolerance interval;
  v_now timestamptz;
  stopped timestamptz;
  pace double precision;
  base timestamptz;
  old_rate double precision;
  own_base timestamptz;
  own_wait interval;
  spare integer := floor(p_rate * extract(epoch FROM p_ahead));
  free integer;
  n integer;
BEGIN
  SELECT s.until, climbed(s.pace, s.until) INTO stopped, pace
  FROM platform_stop AS s WHERE s.egress = '' AND s.app_id = p_app AND s.reason = 'flow_control';
  v_rate := p_rate * coalesce(pace, 1.0);
  -- Half of what the burst tolerates is kept for sends that leave late, so that not even they exceed burst + rate x T.
  -- A burst too small for that is not worth a loss of throughput: there the bound holds 50 ms later, at the platform.
  late := least(0.05, (v_burst - 1) / v_rate / 2);
  IF late < 0.01 THEN
    tolerance := make_interval(secs => (v_burst - 1) / v_rate);
    late := 0.05;
  ELSE
    tolerance := make_interval(secs => (v_burst - 1) / v_rate - late);
  END IF;
  INSERT INTO limiter AS m (app_id, tat, rate) VALUES (p_app, clock_timestamp() + tolerance, v_rate) ON CONFLICT DO NOTHING;
  SELECT m.tat, m.rate INTO base, old_rate FROM limiter AS m WHERE m.app_id = p_app AND m.interface = '' FOR UPDATE;
  v_now := clock_timestamp();
  IF old_rate <> v_rate AND base > v_now THEN
    base := v_now + (base - v_now) * (old_rate / v_rate);
  END IF;
  -- No grant leaves it further ahead than this; a clock set back or another rate must not stop the app.
  base := least(
    greatest(base, v_now),
    v_now + greatest(p_horizon, interval '5 seconds') + tolerance + make_interval(secs => 1 / v_rate));
  tolerance := tolerance * (1 - p_kept);
  IF stopped > v_now THEN
    RETURN QUERY SELECT extract(epoch FROM stopped - v_now)::double precision, 0.0::double precision, 0, late, base;
    RETURN;
  END IF;
  -- Slot k starts at max(now, base + k / rate - tolerance). Far below the limit some are taken ahead of their callers;
  -- near it those of the next moment only, at most one that is further away, so that what dies takes little along.
  free := floor(extract(epoch FROM (v_now + tolerance - base)) * v_rate)::integer + 1;
  IF p_interface = '' AND free >= p_want + 3 * spare THEN
    n := p_want + spare;
  ELSE
    n := 1 + floor(extract(epoch FROM (v_now + p_horizon + tolerance - base)) * v_rate)::integer;
    IF p_slice IS NOT NULL THEN
      n := least(n, greatest(1, free + floor(extract(epoch FROM p_slice) * v_rate)::integer));
    END IF;
    n := least(p_want, greatest(0, n));
  END IF;
  IF p_own_rate IS NOT NULL AND n > 0 THEN
    -- An interface with a limit of its own: one slot at a time, and none that would keep other calls waiting.
    n := 1;
    INSERT INTO limiter AS m (app_id, interface, tat) VALUES (p_app, p_interface, v_now) ON CONFLICT DO NOTHING;
    SELECT least(greatest(m.tat, v_now), v_now + make_interval(secs => 5 + 2 / p_own_rate)) INTO own_base
    FROM limiter AS m WHERE m.app_id = p_app AND m.interface = p_interface FOR UPDATE;
    own_wait := own_base - v_now - make_interval(secs => late);
    IF own_wait > interval '0' THEN
      RETURN QUERY SELECT extract(epoch FROM own_wait)::double precision, 0.0::double precision, 0, late, base;
      RETURN;
    END IF;
    UPDATE limiter AS m SET tat = own_base + make_interval(secs => ceil(1e6 / p_own_rate) / 1e6)
    WHERE m.app_id = p_app AND m.interface = p_interface;
  END IF;
  IF n > 0 THEN
    -- Time has microseconds here: rounded up, and once a grant, so that rounding never adds up to a call too many.
    UPDATE limiter AS m SET tat = base + make_interval(secs => ceil(n * 1e6 / v_rate) / 1e6), rate = v_rate
    WHERE m.app_id = p_app AND m.interface = '';
  END IF;
  RETURN QUERY SELECT extract(epoch FROM (base - tolerance - v_now))::double precision, (1 / v_rate)::double precision, n,
    late, base + make_interval(secs => ceil(n * 1e6 / v_rate) / 1e6);
END
$$;
COMMENT ON FUNCTION take_slots IS
  'GCRA: grants up to p_want send slots, and p_aheads worth more while the limit is far away; near it those of the next p_slice only, or one that is further away. Slot k (from 0) starts at max(0, at_s + k * every_s) seconds from now and is void late_s after that; granted 0 means come back in at_s seconds. p_kept is the part of the burst that these calls leave to others. tat is what give_back compares.';

CREATE FUNCTION give_back(p_app integer, p_tat timestamptz, p_slots integer, p_every double precision) RETURNS boolean
LANGUAGE sql
AS $$
  WITH given AS (
    UPDATE limiter AS m SET tat = m.tat - make_interval(secs => floor(p_slots * p_every * 1e6) / 1e6)
    WHERE m.app_id = p_app AND m.interface = '' AND m.tat = p_tat
    RETURNING 1
  )
  SELECT EXISTS (SELECT FROM given)
$$;
COMMENT ON FUNCTION give_back IS 'Returns slots that nobody used, if nobody has taken any since: else they are lost. True = they were returned.';

CREATE FUNCTION stop_for_flow(p_app integer, p_pause interval) RETURNS double precision
LANGUAGE sql
AS $$
  INSERT INTO platform_stop AS s (app_id, reason, until, pace)
  VALUES (p_app, 'flow_control', clock_timestamp() + p_pause, 0.5)
  ON CONFLICT (egress, app_id, reason) DO UPDATE
  -- Answers to what was under way when the first one came are the same refusal.
  SET pace = CASE WHEN s.until > clock_timestamp() THEN s.pace ELSE greatest(0.01, climbed(s.pace, s.until) / 2) END,
      until = greatest(s.until, excluded.until), noted_at = excluded.noted_at
  RETURNING s.pace
$$;
COMMENT ON FUNCTION stop_for_flow IS 'The platform said that calls come too fast: a pause for every instance, then half the pace. Returns the pace.';

CREATE FUNCTION stop_source(p_egress text, p_pause interval) RETURNS void
LANGUAGE sql
AS $$
  INSERT INTO platform_stop AS s (egress, reason, until) VALUES (p_egress, 'source_blocked', clock_timestamp() + p_pause)
  ON CONFLICT (egress, app_id, reason) DO UPDATE SET until = greatest(s.until, excluded.until), noted_at = excluded.noted_at
$$;
COMMENT ON FUNCTION stop_source IS 'The platform has blocked the address that these calls come from: every app behind it stops.';

CREATE FUNCTION note_bad_digest(p_app integer, p_access text) RETURNS boolean
LANGUAGE sql
AS $$
  INSERT INTO platform_stop AS s (app_id, reason, until, failures, access)
  VALUES (p_app, 'bad_secret', clock_timestamp(), 1, p_access)
  ON CONFLICT (egress, app_id, reason) DO UPDATE
  SET failures = CASE WHEN s.access <> excluded.access OR s.noted_at < excluded.noted_at - interval '10 minutes' THEN 1
        ELSE s.failures + 1 END,
      until = CASE WHEN s.access = excluded.access AND s.noted_at >= excluded.noted_at - interval '10 minutes'
        THEN 'infinity'::timestamptz ELSE excluded.until END,
      access = excluded.access, noted_at = excluded.noted_at
  RETURNING s.failures >= 2
$$;
COMMENT ON FUNCTION note_bad_digest IS 'Counts a refused signature over all instances. True: the second one, so nothing more is sent with these access data.';
