-- What has ended does not stay for ever: lines with their bindings, calls and peers, slots that are long free, and the
-- notes of people and audits. docs/decisions/0025-retention.md says why in this way.
--
-- No index is added: ids begin with the time at which they were made, so a walk along the key of a table meets the oldest
-- rows first and ends where nothing can be old enough; slots are read page by page.

COMMENT ON COLUMN app.retention_days IS
  'How long the past is kept: who was behind which X, calls, records and messages, and lines and bindings from their end on (these for two days at least).';

CREATE TABLE retention (
  kind        text PRIMARY KEY CHECK (kind IN ('lines', 'bindings', 'slots', 'audits')),
  every       interval NOT NULL,
  due_at      timestamptz NOT NULL DEFAULT '-infinity',
  at_pool     integer NOT NULL DEFAULT 0,
  at_id       uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
  at_page     bigint NOT NULL DEFAULT 0,
  began_at    timestamptz,
  ended_at    timestamptz,
  gone        bigint NOT NULL DEFAULT 0,
  gone_before bigint NOT NULL DEFAULT 0,
  gone_in_all bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
COMMENT ON TABLE retention IS 'How far the walks have come that delete what has ended. Whoever holds a row does the next slice; nobody waits for it.';
COMMENT ON COLUMN retention.kind IS 'lines (with all that is on them), bindings (of lines that live on), slots, audits (what people did, runs and settled differences of audits).';
COMMENT ON COLUMN retention.every IS 'Time from the end of a walk to the begin of the next one.';
COMMENT ON COLUMN retention.due_at IS 'When the next walk begins; one that is under way is due.';
COMMENT ON COLUMN retention.at_pool IS 'Where the walk has come to: the pool.';
COMMENT ON COLUMN retention.at_id IS 'The last row of that pool that was looked at.';
COMMENT ON COLUMN retention.at_page IS 'The next page of the table, where the walk goes by pages.';
COMMENT ON COLUMN retention.began_at IS 'Begin of the walk that is under way; null = none is.';
COMMENT ON COLUMN retention.ended_at IS 'End of the last walk that was finished.';
COMMENT ON COLUMN retention.gone IS 'Rows deleted by the walk that is under way.';
COMMENT ON COLUMN retention.gone_before IS 'Rows deleted by the walk before.';
COMMENT ON COLUMN retention.gone_in_all IS 'Rows deleted since the table was made.';
INSERT INTO retention (kind, every)
VALUES ('lines', '1 hour'), ('bindings', '1 hour'), ('slots', '1 day'), ('audits', '1 day');

CREATE FUNCTION kept_since(p_days integer) RETURNS timestamptz
LANGUAGE sql VOLATILE
-- Two days at least: longer than an Idempotency-Key, a succession and the platform's late pushes look back.
AS $$ SELECT broker_now() - greatest(p_days, 2) * interval '1 day' $$;
COMMENT ON FUNCTION kept_since(integer) IS 'What ended before that is not kept by an app with these retention_days.';

CREATE FUNCTION first_id(p_at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE
AS $$ SELECT (lpad(to_hex(greatest(floor(extract(epoch FROM p_at) * 1000), 0)::bigint), 12, '0') || repeat('0', 20))::uuid $$;
COMMENT ON FUNCTION first_id(timestamptz) IS 'The least id that can have been made then.';

CREATE FUNCTION forget_bindings_of(p_pool integer, p_ids uuid[]) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_peers integer;
  v_bindings integer;
BEGIN
  DELETE FROM peer AS p WHERE p.binding_id = ANY (p_ids);
  GET DIAGNOSTICS v_peers = ROW_COUNT;
  DELETE FROM binding_end AS e WHERE e.pool_id = p_pool AND e.binding_id = ANY (p_ids);
  DELETE FROM call_back AS k WHERE k.pool_id = p_pool AND k.binding_id = ANY (p_ids);
  DELETE FROM binding AS b WHERE b.pool_id = p_pool AND b.id = ANY (p_ids);
  GET DIAGNOSTICS v_bindings = ROW_COUNT;
  RETURN v_peers + v_bindings;
END
$$;
COMMENT ON FUNCTION forget_bindings_of(integer, uuid[]) IS 'Deletes bindings with all that is of theirs alone; returns how many rows of bindings and peers.';

CREATE FUNCTION forget_lines(p_pool integer, p_after uuid, p_since timestamptz, p_limit integer)
RETURNS TABLE (last uuid, seen integer, gone integer)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_ids CONSTANT uuid[] := ARRAY(
    SELECT l.id FROM line AS l WHERE l.pool_id = p_pool AND l.id > p_after AND l.id < first_id(p_since)
    ORDER BY l.pool_id, l.id LIMIT p_limit);
  v_now CONSTANT timestamptz := broker_now();
  v_over uuid[];
  v_rows integer;
BEGIN
  last := v_ids[cardinality(v_ids)];
  seen := cardinality(v_ids);
  -- Nothing joins a line that has ended, so what is not there of it now never will be.
  v_over := ARRAY(
    SELECT l.id FROM unnest(v_ids) AS i (id) JOIN line AS l ON l.pool_id = p_pool AND l.id = i.id
    WHERE l.state IN ('released', 'failed') AND l.seat IS NULL AND coalesce(l.confirmed_at < p_since, true)
      -- Its own end, unless it was released before that.
      AND coalesce(l.expires_at < p_since OR l.expires_at > v_now, true)
      AND NOT EXISTS (
        SELECT FROM binding AS b WHERE b.line_id = l.id
          AND (b.state NOT IN ('released', 'failed') OR coalesce(b.ended_at, b.created_at) >= p_since) OFFSET 0)
      AND NOT EXISTS (
        SELECT FROM platform_call AS c WHERE c.pool_id = l.pool_id AND c.line_id = l.id
          AND (c.settled_at IS NULL OR c.settled_at >= p_since) OFFSET 0)
      AND NOT EXISTS (
        SELECT FROM peer AS p WHERE p.line_id = l.id AND p.state IN ('pending', 'active', 'releasing') OFFSET 0)
      -- What rests yet is its.
      AND NOT EXISTS (
        SELECT FROM slot AS s WHERE s.pool_id = l.pool_id AND s.party_key IN (l.a_key, l.b_key, l.third_key)
          AND s.x_id = l.x_id AND s.line_id = l.id AND s.until > v_now OFFSET 0)
      AND NOT EXISTS (
        SELECT FROM place AS h WHERE h.pool_id = l.pool_id AND h.x_id = l.x_id AND h.extension = coalesce(l.extension, 0)
          AND h.line_id = l.id AND h.until > v_now OFFSET 0)
      AND NOT EXISTS (
        SELECT FROM drift AS d WHERE d.pool_id = l.pool_id AND d.x_id = l.x_id AND d.line_id = l.id AND d.resolved_at IS NULL OFFSET 0)
    FOR UPDATE OF l SKIP LOCKED);
  gone := 0;
  IF v_over <> '{}' THEN
    gone := forget_bindings_of(p_pool, ARRAY(SELECT b.id FROM binding AS b WHERE b.line_id = ANY (v_over)));
    DELETE FROM platform_call AS c WHERE c.pool_id = p_pool AND c.line_id = ANY (v_over);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    DELETE FROM failing_call AS f WHERE f.line_id = ANY (v_over);
    DELETE FROM line AS l WHERE l.pool_id = p_pool AND l.id = ANY (v_over);
    gone := gone + v_rows + cardinality(v_over);
  END IF;
  RETURN NEXT;
END
$$;
COMMENT ON FUNCTION forget_lines(integer, uuid, timestamptz, integer) IS
  'One slice of a walk along the lines of a pool: deletes those that ended before p_since, with all that is on them. Not: what has an open or dead call, rests, or differs from the platform. Returns the last line looked at, how many were, and how many rows went.';

CREATE FUNCTION forget_bindings(p_pool integer, p_after uuid, p_since timestamptz, p_limit integer)
RETURNS TABLE (last uuid, seen integer, gone integer)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_ids CONSTANT uuid[] := ARRAY(
    SELECT b.id FROM binding AS b WHERE b.pool_id = p_pool AND b.id > p_after AND b.id < first_id(p_since)
    ORDER BY b.pool_id, b.id LIMIT p_limit);
BEGIN
  last := v_ids[cardinality(v_ids)];
  seen := cardinality(v_ids);
  gone := forget_bindings_of(p_pool, ARRAY(
    SELECT b.id FROM unnest(v_ids) AS i (id) JOIN binding AS b ON b.pool_id = p_pool AND b.id = i.id
    WHERE b.state IN ('released', 'failed') AND coalesce(b.ended_at, b.created_at) < p_since
      -- Else it goes with its line, or not yet.
      AND EXISTS (SELECT FROM line AS l WHERE l.pool_id = b.pool_id AND l.id = b.line_id AND l.seat IS NOT NULL OFFSET 0)
      AND NOT EXISTS (
        SELECT FROM platform_call AS c WHERE c.pool_id = b.pool_id AND c.line_id = b.line_id AND c.settled_at IS NULL OFFSET 0)
      AND NOT EXISTS (
        SELECT FROM peer AS p WHERE p.binding_id = b.id AND p.state IN ('pending', 'active', 'releasing') OFFSET 0)
    FOR UPDATE OF b SKIP LOCKED));
  RETURN NEXT;
END
$$;
COMMENT ON FUNCTION forget_bindings(integer, uuid, timestamptz, integer) IS
  'As forget_lines(), for bindings that ended before p_since while their line lives on.';

CREATE FUNCTION forget_slots(p_page bigint, p_pages integer) RETURNS integer
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  v_pool integer[];
  v_party bigint[];
  v_x integer[];
  v_since timestamptz[];
  v_gone integer;
BEGIN
  -- Who binds has these locks, and trusts what it saw under them. A party that is being bound keeps its slots.
  SELECT array_agg(t.pool_id), array_agg(t.party_key), array_agg(t.x_id), array_agg(t.since)
  INTO v_pool, v_party, v_x, v_since FROM (
    SELECT o.*, pg_try_advisory_xact_lock(party_lock(o.pool_id, o.party_key)) AS got FROM (
      SELECT s.pool_id, s.party_key, s.x_id, k.since FROM slot AS s
      JOIN pool AS p ON p.id = s.pool_id JOIN app AS a ON a.id = p.app_id
      CROSS JOIN LATERAL (SELECT kept_since(a.retention_days) AS since OFFSET 0) AS k
      WHERE s.ctid >= format('(%s,0)', p_page)::tid AND s.ctid < format('(%s,0)', p_page + p_pages)::tid
        AND s.until < k.since
      ORDER BY s.pool_id, s.party_key OFFSET 0) AS o OFFSET 0) AS t
  WHERE t.got;
  IF v_pool IS NULL THEN
    RETURN 0;
  END IF;
  -- A new statement: it sees what was committed before the locks were ours.
  DELETE FROM slot AS s USING unnest(v_pool, v_party, v_x, v_since) AS i (pool_id, party_key, x_id, since)
  WHERE s.pool_id = i.pool_id AND s.party_key = i.party_key AND s.x_id = i.x_id AND s.until < i.since;
  GET DIAGNOSTICS v_gone = ROW_COUNT;
  RETURN v_gone;
END
$$;
COMMENT ON FUNCTION forget_slots(bigint, integer) IS
  'One slice of a walk over the pages of slots: deletes those whose rest ended longer ago than their app keeps. Returns how many.';

CREATE FUNCTION forget_audits(p_page bigint, p_pages integer, p_limit integer) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off
AS $$
DECLARE
  -- Thirteen months: a year can be accounted for.
  v_since CONSTANT timestamptz := broker_now() - interval '400 days';
  v_gone integer;
  v_rows integer;
BEGIN
  DELETE FROM audit AS u WHERE u.id = ANY (ARRAY(SELECT o.id FROM audit AS o ORDER BY o.id LIMIT p_limit)) AND u.at < v_since;
  GET DIAGNOSTICS v_gone = ROW_COUNT;
  -- The newest of an app stays: it says what is known.
  DELETE FROM drift_run AS r
  WHERE r.id = ANY (ARRAY(SELECT o.id FROM drift_run AS o ORDER BY o.id LIMIT p_limit))
    AND r.state = 'done' AND r.ended_at < v_since
    AND EXISTS (SELECT FROM drift_run AS n WHERE n.app_id = r.app_id AND n.id > r.id);
  GET DIAGNOSTICS v_rows = ROW_COUNT;
  v_gone := v_gone + v_rows;
  DELETE FROM drift AS d
  WHERE d.ctid >= format('(%s,0)', p_page)::tid AND d.ctid < format('(%s,0)', p_page + p_pages)::tid AND d.resolved_at < v_since;
  GET DIAGNOSTICS v_rows = ROW_COUNT;
  RETURN v_gone + v_rows;
END
$$;
COMMENT ON FUNCTION forget_audits(bigint, integer, integer) IS
  'Deletes what people did, and runs and settled differences of audits, that are older than 400 days; differences by pages. Returns how many rows.';

CREATE FUNCTION forget_slice(p_kind text, p_limit integer) RETURNS TABLE (gone integer, more boolean)
LANGUAGE plpgsql SET lock_timeout = '200ms'
AS $$
#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := broker_now();
  -- At most 100 slots fit on a page; each takes a lock.
  v_pages CONSTANT integer := greatest(p_limit / 100, 1);
  v_table CONSTANT regclass := CASE p_kind WHEN 'slots' THEN 'slot' ELSE 'drift' END::regclass;
  v_walk retention%ROWTYPE;
  v_since timestamptz;
  v_slice record;
  v_gone integer := 0;
  v_more boolean := true;
BEGIN
  SELECT r.* INTO v_walk FROM retention AS r WHERE r.kind = p_kind AND r.due_at <= v_now FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  IF p_kind IN ('lines', 'bindings') THEN
    IF v_walk.at_pool = 0 THEN
      SELECT min(p.id) INTO v_walk.at_pool FROM pool AS p;
    END IF;
    IF v_walk.at_pool IS NOT NULL THEN
      SELECT kept_since(a.retention_days) INTO v_since FROM pool AS p JOIN app AS a ON a.id = p.app_id WHERE p.id = v_walk.at_pool;
      IF p_kind = 'lines' THEN
        SELECT f.* INTO v_slice FROM forget_lines(v_walk.at_pool, v_walk.at_id, v_since, p_limit) AS f;
      ELSE
        SELECT f.* INTO v_slice FROM forget_bindings(v_walk.at_pool, v_walk.at_id, v_since, p_limit) AS f;
      END IF;
      v_gone := v_slice.gone;
      v_walk.at_id := v_slice.last;
      IF v_slice.seen < p_limit THEN
        SELECT min(p.id), '00000000-0000-0000-0000-000000000000' INTO v_walk.at_pool, v_walk.at_id
        FROM pool AS p WHERE p.id > v_walk.at_pool;
      END IF;
    END IF;
    v_more := v_walk.at_pool IS NOT NULL;
  ELSE
    v_gone := CASE p_kind WHEN 'slots' THEN forget_slots(v_walk.at_page, v_pages)
                          ELSE forget_audits(v_walk.at_page, v_pages, p_limit) END;
    v_walk.at_page := v_walk.at_page + v_pages;
    v_more := v_walk.at_page * current_setting('block_size')::bigint < pg_relation_size(v_table)
      -- Of what is deleted at the head there may be more.
      OR (p_kind = 'audits' AND v_gone >= p_limit);
  END IF;
  UPDATE retention AS r
  SET at_pool = CASE WHEN v_more THEN v_walk.at_pool ELSE 0 END,
      at_id = CASE WHEN v_more THEN v_walk.at_id ELSE '00000000-0000-0000-0000-000000000000' END,
      at_page = CASE WHEN v_more THEN v_walk.at_page ELSE 0 END,
      began_at = CASE WHEN v_more THEN coalesce(r.began_at, v_now) END,
      ended_at = CASE WHEN v_more THEN r.ended_at ELSE v_now END,
      due_at = CASE WHEN v_more THEN r.due_at ELSE v_now + r.every END,
      gone = CASE WHEN v_more THEN r.gone + v_gone ELSE 0 END,
      gone_before = CASE WHEN v_more THEN r.gone_before ELSE r.gone + v_gone END,
      gone_in_all = r.gone_in_all + v_gone
  WHERE r.kind = p_kind;
  RETURN QUERY SELECT v_gone, v_more;
EXCEPTION WHEN lock_not_available THEN
  -- Another time: nobody is to wait for the rows that this slice has got.
  RETURN;
END
$$;
COMMENT ON FUNCTION forget_slice(text, integer) IS
  'The next slice of a walk, if it is due and nobody else is at it: about p_limit rows are looked at. Returns how many rows were deleted and whether the walk goes on; no row: it is not our turn.';
