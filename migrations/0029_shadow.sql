-- Shadow: another system binds on the platform; our books predict, nothing is sent, and what is bound there is followed.
--
-- The trigger of the history is exchanged for one that passes predictions by, and the kinds of drift get three more.
-- squawk-ignore-file ban-drop-constraint

ALTER TABLE app
  ADD COLUMN shadow boolean NOT NULL DEFAULT false,
  ADD COLUMN shadow_changed_at timestamptz,
  ADD COLUMN state_noted_at timestamptz,
  ADD CONSTRAINT app_shadow_mode CHECK (NOT shadow OR mode IN ('axb', 'ax', 'axe')) NOT VALID;
COMMENT ON COLUMN app.shadow IS 'Another system binds: our lines are predictions, and nothing but questions goes to the platform.';
COMMENT ON COLUMN app.shadow_changed_at IS 'When it last went into shadow or left it; null = it has never been there.';
COMMENT ON COLUMN app.state_noted_at IS 'When state or state_reason last changed, whoever changed them; null = not since this is kept.';

CREATE FUNCTION note_app_state() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
  NEW.state_noted_at := clock_timestamp();
  RETURN NEW;
END
$$;
COMMENT ON FUNCTION note_app_state() IS 'Keeps the time since when an app is in its state, for its reason.';
CREATE TRIGGER state_noted BEFORE UPDATE ON app FOR EACH ROW
WHEN ((OLD.state, OLD.state_reason) IS DISTINCT FROM (NEW.state, NEW.state_reason))
EXECUTE FUNCTION note_app_state();

CREATE TABLE shadow_seen (
  app_id          integer NOT NULL REFERENCES app (id),
  subscription_id text NOT NULL,
  pool_id         integer NOT NULL,
  x_id            integer NOT NULL,
  extension       smallint,
  a_key           bigint NOT NULL,
  b_key           bigint,
  first_seen_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  gone_at         timestamptz,
  PRIMARY KEY (app_id, subscription_id)
);
COMMENT ON TABLE shadow_seen IS 'What another system has bound on the X numbers of an app in shadow, as the platform showed it last.';
COMMENT ON COLUMN shadow_seen.app_id IS 'The app.';
COMMENT ON COLUMN shadow_seen.subscription_id IS 'The platform''s id of the binding.';
COMMENT ON COLUMN shadow_seen.pool_id IS 'Pool of the X.';
COMMENT ON COLUMN shadow_seen.x_id IS 'The X.';
COMMENT ON COLUMN shadow_seen.extension IS 'The extension; 0 = the whole X; null = a pair beside others.';
COMMENT ON COLUMN shadow_seen.a_key IS 'Keyed hash of A.';
COMMENT ON COLUMN shadow_seen.b_key IS 'Keyed hash of B; null = there is none.';
COMMENT ON COLUMN shadow_seen.first_seen_at IS 'When it was seen first.';
COMMENT ON COLUMN shadow_seen.gone_at IS 'When it was seen to be gone; null = it was there at the last look. Kept for the app''s quarantine.';
CREATE INDEX shadow_seen_place ON shadow_seen (pool_id, x_id) WHERE gone_at IS NULL;

CREATE TABLE shadow_count (
  app_id integer NOT NULL REFERENCES app (id),
  what   text NOT NULL,
  many   bigint NOT NULL,
  PRIMARY KEY (app_id, what)
);
COMMENT ON TABLE shadow_count IS 'What an app in shadow refused and would have sent, since it went there.';
COMMENT ON COLUMN shadow_count.app_id IS 'The app.';
COMMENT ON COLUMN shadow_count.what IS 'refused. and a problem''s code, or call. and an interface.';
COMMENT ON COLUMN shadow_count.many IS 'How often.';

DROP TRIGGER kept ON line;
CREATE TRIGGER kept AFTER UPDATE ON line FOR EACH ROW
WHEN (OLD.confirmed_at IS NOT NULL AND OLD.seat IS NOT NULL AND (OLD.subscription_id LIKE 'shadow-%') IS NOT TRUE
      AND (NEW.seat IS NULL OR NEW.a_sealed <> OLD.a_sealed OR NEW.b_sealed IS DISTINCT FROM OLD.b_sealed
           OR NEW.direction <> OLD.direction OR NEW.x_id IS DISTINCT FROM OLD.x_id))
EXECUTE FUNCTION keep_held();

CREATE FUNCTION mark_predicted_event() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
  IF (SELECT a.shadow FROM app AS a WHERE a.id = NEW.app_id) THEN
    NEW.data := coalesce(NEW.data, '{}') || '{"shadow": true}';
  END IF;
  RETURN NEW;
END
$$;
COMMENT ON FUNCTION mark_predicted_event() IS 'What is told of a prediction says so.';
CREATE TRIGGER marked BEFORE INSERT ON event FOR EACH ROW WHEN (NEW.type LIKE 'binding.%') EXECUTE FUNCTION mark_predicted_event();

CREATE FUNCTION clear_predictions(p_app integer, p_lines uuid[]) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  v_rest CONSTANT interval := (SELECT a.quarantine_s * interval '1 second' FROM app AS a WHERE a.id = p_app);
BEGIN
  DELETE FROM slot AS s USING pool AS q, line AS l
  WHERE q.app_id = p_app AND s.pool_id = q.id AND l.pool_id = s.pool_id AND l.id = s.line_id
    AND (l.subscription_id LIKE 'shadow-%' OR l.id = ANY (p_lines));
  UPDATE place AS h SET until = '-infinity', line_id = NULL, party_key = NULL, rests_until = NULL
  FROM pool AS q, line AS l
  WHERE q.app_id = p_app AND h.pool_id = q.id AND l.pool_id = h.pool_id AND l.id = h.line_id
    AND (l.subscription_id LIKE 'shadow-%' OR l.id = ANY (p_lines));
  -- What was seen to go rests from then on: later than it went, so longer than it must.
  INSERT INTO slot (pool_id, x_id, party_key, counterpart_key, until, line_id)
  SELECT s.pool_id, s.x_id, v.own, v.other, max(s.gone_at) + v_rest, '00000000-0000-0000-0000-000000000000'
  FROM shadow_seen AS s CROSS JOIN LATERAL (VALUES (s.a_key, s.b_key), (s.b_key, s.a_key)) AS v (own, other)
  WHERE s.app_id = p_app AND s.gone_at + v_rest > v_now AND s.b_key IS NOT NULL
  GROUP BY s.pool_id, s.x_id, v.own, v.other
  ON CONFLICT DO NOTHING;
  UPDATE place AS h SET until = g.until, party_key = g.a_key
  FROM (
    SELECT DISTINCT ON (s.pool_id, s.x_id, s.extension) s.pool_id, s.x_id, s.extension, s.a_key, s.gone_at + v_rest AS until
    FROM shadow_seen AS s WHERE s.app_id = p_app AND s.gone_at + v_rest > v_now
    ORDER BY s.pool_id, s.x_id, s.extension, s.gone_at DESC
  ) AS g
  WHERE h.pool_id = g.pool_id AND h.x_id = g.x_id AND h.extension = g.extension AND h.until < g.until;
END
$$;
COMMENT ON FUNCTION clear_predictions IS
  'Frees what predictions held or rested on (p_lines: those without an id yet), and lets rest what the other system was seen to end.';

CREATE FUNCTION switch_shadow(p_app text, p_shadow boolean, p_settle interval)
RETURNS TABLE (outcome text, lines bigint, wait_s double precision)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  own app%ROWTYPE;
  v_lines uuid[];
  v_calls bigint;
BEGIN
  SELECT a.* INTO own FROM app AS a WHERE a.name = p_app FOR NO KEY UPDATE;
  IF own.id IS NULL OR own.shadow = p_shadow OR (p_shadow AND own.mode NOT IN ('axb', 'ax', 'axe')) THEN
    RETURN QUERY SELECT CASE WHEN own.id IS NULL THEN 'none' WHEN own.shadow = p_shadow THEN 'already' ELSE 'mode' END, 0::bigint, 0.0::double precision;
    RETURN;
  END IF;
  IF own.state <> 'suspended' OR own.state_reason IS DISTINCT FROM 'cut-over' OR own.state_noted_at IS NULL THEN
    UPDATE app AS a SET state = 'suspended', state_reason = 'cut-over', state_noted_at = clock_timestamp() WHERE a.id = own.id;
    RETURN QUERY SELECT 'waiting', 0::bigint, extract(epoch FROM p_settle)::double precision;
    RETURN;
  END IF;
  IF own.state_noted_at + p_settle > clock_timestamp() THEN
    RETURN QUERY SELECT 'waiting', 0::bigint, extract(epoch FROM own.state_noted_at + p_settle - clock_timestamp())::double precision;
    RETURN;
  END IF;
  PERFORM FROM x_number AS x JOIN pool AS q ON q.id = x.pool_id
  JOIN line AS l ON l.x_key = x.pool_id::bigint * 100000 + x.x_id AND l.seat IS NOT NULL
  WHERE q.app_id = own.id ORDER BY l.pool_id, l.id FOR UPDATE OF l;
  -- A new statement: it sees what was committed before the lines were ours.
  SELECT array_agg(l.id) INTO v_lines
  FROM x_number AS x JOIN pool AS q ON q.id = x.pool_id
  JOIN line AS l ON l.x_key = x.pool_id::bigint * 100000 + x.x_id AND l.seat IS NOT NULL
  WHERE q.app_id = own.id;
  SELECT count(*) INTO v_calls FROM platform_call AS c WHERE c.app_id = own.id AND c.state = 'open';
  IF p_shadow AND v_calls > 0 THEN
    RETURN QUERY SELECT 'calls', v_calls, 1.0::double precision;
    RETURN;
  END IF;
  UPDATE platform_call AS c SET state = 'settled', settled_at = v_now, outcome = 'cut_over'
  WHERE c.app_id = own.id AND c.state = 'open';
  UPDATE binding AS b SET state = 'released', reason = CASE WHEN p_shadow THEN 'handed_back' ELSE 'cut_over' END, ended_at = v_now
  WHERE b.line_id = ANY (v_lines) AND b.state IN ('pending', 'active', 'releasing');
  UPDATE line AS l SET state = 'released', seat = NULL, sweep_at = NULL, changing = false
  FROM unnest(v_lines) AS i (id), pool AS q WHERE q.app_id = own.id AND l.pool_id = q.id AND l.id = i.id;
  IF p_shadow THEN
    UPDATE slot AS s SET until = v_now + own.quarantine_s * interval '1 second'
    FROM pool AS q WHERE q.app_id = own.id AND s.pool_id = q.id AND s.until = 'infinity' AND s.line_id = ANY (v_lines);
    UPDATE place AS h SET until = v_now + own.quarantine_s * interval '1 second'
    FROM pool AS q WHERE q.app_id = own.id AND h.pool_id = q.id AND h.until = 'infinity' AND h.line_id = ANY (v_lines);
    DELETE FROM shadow_count AS c WHERE c.app_id = own.id;
  ELSE
    PERFORM clear_predictions(own.id, coalesce(v_lines, '{}'));
  END IF;
  DELETE FROM shadow_seen AS s WHERE s.app_id = own.id;
  UPDATE drift_run AS r SET state = 'done', ended_at = clock_timestamp() WHERE r.app_id = own.id AND r.state = 'open';
  UPDATE drift AS d SET resolved_at = clock_timestamp() WHERE d.app_id = own.id AND d.resolved_at IS NULL AND p_shadow;
  UPDATE app AS a
  SET shadow = p_shadow, shadow_changed_at = clock_timestamp(), state = CASE WHEN p_shadow THEN 'open' ELSE a.state END,
      state_reason = CASE WHEN NOT p_shadow THEN a.state_reason END
  WHERE a.id = own.id;
  RETURN QUERY SELECT 'done', coalesce(cardinality(v_lines), 0)::bigint, 0.0::double precision;
END
$$;
COMMENT ON FUNCTION switch_shadow IS
  'Takes an app into shadow, or out of it, in one step: its live lines end in our books without a call (lines: how many), and it is the other kind. It must have been suspended for cut-over for p_settle: waiting (wait_s; suspended now if it was not), calls (into shadow: so many calls are open), already, mode (not this one), none. Out of shadow it stays suspended.';

ALTER TABLE drift
  DROP CONSTRAINT drift_kind_check,
  ADD CONSTRAINT drift_kind_check CHECK (kind IN
    ('unknown_here', 'absent_there', 'parties_differ', 'expiry_differs', 'direction_differs', 'peer_unknown_here',
     'peer_absent_there', 'peer_differs')) NOT VALID;
COMMENT ON COLUMN drift.subscription_id IS 'The platform''s id of the binding; of a peer with # and its Y.';

ALTER TABLE drift_run ADD COLUMN peers integer NOT NULL DEFAULT 0, ADD COLUMN unverifiable integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN drift_run.peers IS 'Peers of AXYB that were compared.';
COMMENT ON COLUMN drift_run.unverifiable IS 'Peers of AXYB that no query shows: it names five of a binding, and theirs has as many others.';
