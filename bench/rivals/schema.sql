-- The tables of the hand-written service: a number counts its live bindings, a slot keeps a phone off a number.
CREATE TABLE x_number (
  id     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  pool   text NOT NULL,
  number text NOT NULL UNIQUE,
  live   integer NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
CREATE INDEX ON x_number (pool, id);

CREATE TABLE slot (
  party       text NOT NULL,
  x_id        integer NOT NULL,
  counterpart text NOT NULL,
  until       timestamptz NOT NULL,
  PRIMARY KEY (party, x_id)
) WITH (fillfactor = 80);

CREATE TABLE binding (
  id              uuid PRIMARY KEY,
  x_id            integer NOT NULL,
  a               text NOT NULL,
  b               text NOT NULL,
  order_id        text,
  state           text NOT NULL,
  subscription_id text,
  created_at      timestamptz NOT NULL DEFAULT now(),
  expires_at      timestamptz NOT NULL
) WITH (fillfactor = 80);

-- The same in one call: no round trip while the number is locked.
CREATE FUNCTION rival_bind(
  p_id uuid, p_pool text, p_a text, p_b text, p_order text, p_ttl_s integer, p_state text, p_cap integer
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  v_x    record;
  v_rows integer;
BEGIN
  SELECT x.id, x.number INTO v_x FROM x_number AS x
  WHERE x.pool = p_pool AND x.live < p_cap AND NOT EXISTS (
    SELECT FROM slot AS s WHERE s.x_id = x.id AND s.party IN (p_a, p_b) AND s.until > now())
  ORDER BY x.id LIMIT 1 FOR UPDATE OF x SKIP LOCKED;
  IF v_x.id IS NULL THEN
    RETURN NULL;
  END IF;
  INSERT INTO slot (party, x_id, counterpart, until)
  VALUES (p_a, v_x.id, p_b, 'infinity'), (p_b, v_x.id, p_a, 'infinity')
  ON CONFLICT (party, x_id) DO UPDATE SET counterpart = excluded.counterpart, until = 'infinity'
  WHERE slot.until <= now();
  GET DIAGNOSTICS v_rows = ROW_COUNT;
  IF v_rows <> 2 THEN
    RAISE EXCEPTION 'somebody else was faster' USING ERRCODE = 'serialization_failure';
  END IF;
  UPDATE x_number SET live = live + 1 WHERE id = v_x.id;
  INSERT INTO binding (id, x_id, a, b, order_id, state, expires_at)
  VALUES (p_id, v_x.id, p_a, p_b, p_order, p_state, now() + make_interval(secs => p_ttl_s));
  RETURN v_x.number;
END $$;
