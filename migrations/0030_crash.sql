-- A bind of mode AXYB of which nobody knows what became is also looked for where a line of ours is on its way out.

CREATE OR REPLACE FUNCTION unbound_numbers(p_pool integer, p_relaxed boolean, p_limit integer) RETURNS TABLE (number text)
LANGUAGE sql STABLE
AS $$
  SELECT x.number
  FROM pool AS own JOIN pool AS o ON o.app_id = own.app_id AND (p_relaxed OR o.area_code = own.area_code)
  JOIN x_number AS x ON x.pool_id = o.id
  WHERE own.id = p_pool AND x.state NOT IN ('moved', 'retired')
    -- What is being released may be gone from the platform for long, if the process that did it died: the X is given out.
    AND NOT EXISTS (
      SELECT FROM line AS l WHERE l.x_key = x.pool_id::bigint * 100000 + x.x_id AND l.seat IS NOT NULL AND l.state <> 'releasing'
      OFFSET 0)
    AND NOT EXISTS (SELECT FROM peer AS p WHERE p.y = x.number AND p.state = 'active' OFFSET 0)
  ORDER BY o.id <> p_pool, x.pool_id, x.x_id LIMIT p_limit
$$;
COMMENT ON FUNCTION unbound_numbers(integer, boolean, integer) IS
  'Numbers of the app''s pools in the area of this one (relaxed: of all) on which our books have nobody, or somebody who is leaving: where a bind of which nobody knows what became may have ended up.';

CREATE FUNCTION date_back(p_pool integer, p_line uuid, p_no integer, p_age double precision) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_call record;
  v_since timestamptz;
  v_end timestamptz;
BEGIN
  SELECT c.op, c.wanted, c.created_at, c.settled_at INTO v_call FROM platform_call AS c
  WHERE c.pool_id = p_pool AND c.line_id = p_line AND c.no = p_no;
  v_since := greatest(v_call.created_at, broker_now() - make_interval(secs => p_age));
  -- Whoever sweeps looks again: what is due may be due earlier.
  UPDATE line AS l
  SET expires_at = v_since + l.ttl_s * interval '1 second', sweep_at = least(l.sweep_at, broker_now())
  WHERE l.pool_id = p_pool AND l.id = p_line AND l.state = 'active' AND l.ttl_s > 0
    AND l.expires_at > v_since + l.ttl_s * interval '1 second' AND (v_call.op = 'bind' OR v_call.wanted ? 'ttl_s')
  RETURNING l.expires_at INTO v_end;
  UPDATE binding AS b SET expires_at = v_end
  WHERE v_call.op = 'bind' AND b.line_id = p_line AND b.state = 'active' AND b.expires_at > v_end;
  UPDATE peer AS p SET expires_at = v_since + p.ttl_s * interval '1 second'
  WHERE v_call.op = 'bind_peer' AND p.line_id = p_line AND p.state = 'active' AND p.confirmed_at = v_call.settled_at
    AND p.ttl_s > 0 AND p.expires_at > v_since + p.ttl_s * interval '1 second';
END
$$;
COMMENT ON FUNCTION date_back IS
  'The line, or its peer, was found at the platform, which has counted its lifetime for longer than we know of it: at most p_age seconds, and not from before its call was made (p_age null: perhaps since then). So its end, and that of its bindings, is put as early as it can be.';

CREATE OR REPLACE FUNCTION repair_line(p_pool integer, p_line uuid, p_subscription text, p_calls integer, p_kinds text[]) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  held record;
  v_ttl integer;
  v_wanted jsonb := '{}';
BEGIN
  SELECT l.*, a.mode INTO held FROM line AS l JOIN app AS a ON a.id = l.app_id
  WHERE l.pool_id = p_pool AND l.id = p_line FOR UPDATE OF l;
  IF held.state IS DISTINCT FROM 'active' OR held.changing OR held.subscription_id IS DISTINCT FROM p_subscription
    OR held.calls <> coalesce(p_calls, held.calls) THEN
    RETURN false;
  END IF;
  v_ttl := drift_line_end(held.mode, p_pool, p_line);
  IF v_ttl IS NULL THEN
    RETURN false;
  END IF;
  IF 'absent_there' = ANY (p_kinds) THEN
    -- What is about to end here may have ended there a moment before.
    IF held.expires_at < broker_now() + interval '5 seconds' THEN
      RETURN false;
    END IF;
    v_wanted := jsonb_build_object('anew', true);
  END IF;
  IF p_kinds && ARRAY['absent_there', 'expiry_differs'] OR (held.mode = 'axe' AND 'parties_differ' = ANY (p_kinds)) THEN
    v_wanted := v_wanted || jsonb_build_object('ttl_s', v_ttl);
  END IF;
  IF 'parties_differ' = ANY (p_kinds) THEN
    v_wanted := v_wanted || jsonb_build_object('a', jsonb_build_object(
      'key', held.a_key, 'sealed', translate(encode(held.a_sealed, 'base64'), E'\n', '')));
    IF held.b_key IS NOT NULL THEN
      v_wanted := v_wanted || jsonb_build_object('b', jsonb_build_object(
        'key', held.b_key, 'sealed', translate(encode(held.b_sealed, 'base64'), E'\n', '')));
    END IF;
  END IF;
  IF 'direction_differs' = ANY (p_kinds) THEN
    v_wanted := v_wanted || jsonb_build_object('direction', held.direction);
  END IF;
  UPDATE line AS l SET changing = true, calls = l.calls + 1 WHERE l.pool_id = p_pool AND l.id = p_line;
  INSERT INTO platform_call (pool_id, line_id, no, app_id, op, token, claimable_at, created_at, wanted)
  VALUES (p_pool, p_line, held.calls + 1, held.app_id, 'modify', 0, clock_timestamp(), broker_now(), v_wanted);
  RETURN true;
END
$$;
