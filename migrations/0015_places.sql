-- Places: whole X numbers (modes AX and X "one") and extensions of X numbers (mode AXE). Rows exist before they are claimed, so a
-- claim locks them with SKIP LOCKED and no batch waits for another. What there is to claim follows from numbers, pools and
-- apps: triggers keep it so in the transaction of the change, whoever makes it.
--
-- The index of 0012 by party is exchanged while the table is empty: who holds thousands of places and rests on one is asked
-- for the one.
-- squawk-ignore-file require-concurrent-index-creation, require-concurrent-index-deletion

DROP INDEX place_party;
CREATE INDEX place_party ON place (party_key, until) WHERE party_key IS NOT NULL;

CREATE FUNCTION typo_safe(p_code text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
  -- The quasigroup of broker/domain/extension.py, row after row.
  steps CONSTANT text :=
    '03175986427092154863420687135917509834266123045978367420958158697201348945362017' || '94386172052581436790';
  v_at integer := 0;
BEGIN
  FOR n IN 1 .. length(p_code) LOOP
    v_at := substr(steps, v_at * 10 + substr(p_code, n, 1)::integer + 1, 1)::integer;
  END LOOP;
  RETURN v_at = 1;
END
$$;
COMMENT ON FUNCTION typo_safe(text) IS
  'Whether a code is of the set in which one wrong digit, or two exchanged neighbours, makes no other code of the set.';

CREATE FUNCTION extension_codes(p_digits integer, p_limit integer, p_typo_safe boolean) RETURNS smallint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT array_agg(c.code ORDER BY NOT c.safe, c.code) FROM (
    SELECT g.code::smallint AS code, g.safe FROM (
      SELECT n AS code, typo_safe(lpad(n::text, p_digits, '0')) AS safe
      FROM generate_series(1, (10 ^ p_digits)::integer - 1) AS n) AS g
    WHERE g.safe OR NOT p_typo_safe ORDER BY NOT g.safe, g.code LIMIT p_limit) AS c
$$;
COMMENT ON FUNCTION extension_codes(integer, integer, boolean) IS
  'The extensions of an X that are given out, at most p_limit: the typo-safe ones first, or only these.';

CREATE FUNCTION places_of_pool(p_pool integer) RETURNS smallint[]
LANGUAGE sql STABLE
AS $$
  SELECT CASE
    WHEN a.mode = 'ax' OR (a.mode = 'x' AND p.routing = 'one') THEN '{0}'::smallint[]
    WHEN a.mode = 'axe' THEN extension_codes(a.extension_digits, a.extensions_per_x, p.typo_safe)
    ELSE '{}' END
  FROM pool AS p JOIN app AS a ON a.id = p.app_id WHERE p.id = p_pool
$$;
COMMENT ON FUNCTION places_of_pool(integer) IS 'What each X of a pool is given out as: 0 = as a whole; empty = to pairs.';

CREATE FUNCTION lay_out_places(p_pool integer, p_x integer[]) RETURNS void
LANGUAGE plpgsql SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  wanted CONSTANT smallint[] := places_of_pool(p_pool);
BEGIN
  UPDATE place AS p SET in_use = w.in_use
  FROM (SELECT q.x_id, q.extension, q.extension = ANY (wanted) AS in_use FROM place AS q
        WHERE q.pool_id = p_pool AND (p_x IS NULL OR q.x_id = ANY (p_x))) AS w
  WHERE p.pool_id = p_pool AND p.x_id = w.x_id AND p.extension = w.extension AND p.in_use <> w.in_use;
  -- The typo-safe codes first: of places that nobody has had yet, the first made is the first claimed.
  INSERT INTO place (pool_id, x_id, extension)
  SELECT p_pool, x.x_id, w.extension
  FROM x_number AS x CROSS JOIN unnest(wanted) WITH ORDINALITY AS w (extension, nth)
  WHERE x.pool_id = p_pool AND (p_x IS NULL OR x.x_id = ANY (p_x))
  ORDER BY x.x_id, w.nth
  ON CONFLICT DO NOTHING;
END
$$;
COMMENT ON FUNCTION lay_out_places(integer, integer[]) IS
  'Makes the places of some X of a pool (null = of all) what the settings of app and pool want. Nothing is deleted: what is held or rests is only given out no more.';

CREATE FUNCTION lay_out_numbers() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
  -- What a change of the settings would not see yet is laid out by the settings that it has made.
  PERFORM FROM pool AS p JOIN app AS a ON a.id = p.app_id
  WHERE p.id IN (SELECT n.pool_id FROM added AS n) ORDER BY p.id FOR SHARE;
  PERFORM lay_out_places(n.pool_id, n.x) FROM (SELECT a.pool_id, array_agg(a.x_id) AS x FROM added AS a GROUP BY a.pool_id) AS n;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION lay_out_numbers() IS 'Gives new X numbers their places.';
CREATE TRIGGER places AFTER INSERT ON x_number REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION lay_out_numbers();

CREATE FUNCTION lay_out_pool() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
  PERFORM FROM app AS a WHERE a.id = NEW.app_id FOR SHARE;
  PERFORM lay_out_places(NEW.id, NULL);
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION lay_out_pool() IS 'Lays a pool out anew after its settings have changed.';
CREATE TRIGGER places AFTER UPDATE ON pool FOR EACH ROW
  WHEN ((OLD.routing, OLD.typo_safe) IS DISTINCT FROM (NEW.routing, NEW.typo_safe)) EXECUTE FUNCTION lay_out_pool();

CREATE FUNCTION lay_out_app() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
  IF OLD.extension_digits <> NEW.extension_digits AND EXISTS (
    SELECT FROM place AS p JOIN pool AS q ON q.id = p.pool_id WHERE q.app_id = NEW.id AND p.until = 'infinity') THEN
    RAISE EXCEPTION 'extensions are held' USING ERRCODE = 'BB003';
  END IF;
  PERFORM lay_out_places(p.id, NULL) FROM pool AS p WHERE p.app_id = NEW.id;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION lay_out_app() IS
  'Lays the pools of an app out anew after its extensions have changed; how many digits they have does not while one is held (BB003).';
CREATE TRIGGER places AFTER UPDATE ON app FOR EACH ROW
  WHEN ((OLD.extension_digits, OLD.extensions_per_x) IS DISTINCT FROM (NEW.extension_digits, NEW.extensions_per_x))
  EXECUTE FUNCTION lay_out_app();

SELECT lay_out_places(p.id, NULL) FROM pool AS p;

CREATE FUNCTION lock_soles(p_most integer[], p_app integer[], p_a bigint[]) RETURNS bigint[]
LANGUAGE plpgsql
AS $$
DECLARE
  busy bigint[];
BEGIN
  -- OFFSET 0: see lock_parties().
  SELECT array_agg(t.key) FILTER (WHERE NOT t.got) INTO busy FROM (
    SELECT s.key, pg_try_advisory_xact_lock(s.key) AS got FROM (
      SELECT DISTINCT sole_lock(i.app_id, i.a_key) AS key FROM unnest(p_most, p_app, p_a) AS i (most, app_id, a_key)
      WHERE i.most IS NOT NULL ORDER BY 1 OFFSET 0
    ) AS s OFFSET 0
  ) AS t;
  RETURN coalesce(busy, '{}');
END
$$;
COMMENT ON FUNCTION lock_soles(integer[], integer[], bigint[]) IS
  'Locks the parties that have a most (not null) until the end of the transaction, in key order; returns the lock keys that somebody else holds.';

-- The claims read no bitmaps: only a plain walk of an index marks its dead entries, so that the next walk passes them by.

CREATE FUNCTION pick_places(p_pool integer, p_prefix integer, p_many integer, p_line uuid[], p_party bigint[], p_now timestamptz)
RETURNS TABLE (nth bigint, x_id integer, extension smallint, chosen text, first_fit integer)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_x integer[];
  v_extension smallint[];
  v_chosen text[];
  v_first integer;
BEGIN
  IF p_prefix IS NULL THEN
    -- An X after the other, and of each what has rested longest. The limits are on what is locked, not on what was found.
    WITH pick AS MATERIALIZED (
      SELECT f.x_id, f.extension, f.until FROM (
        SELECT x.x_id FROM x_number AS x WHERE x.pool_id = p_pool AND x.state = 'open' ORDER BY x.x_id
      ) AS x CROSS JOIN LATERAL (
        SELECT p.x_id, p.extension, p.until FROM place AS p
        WHERE p.pool_id = p_pool AND p.x_id = x.x_id AND p.in_use AND p.until <= p_now
        ORDER BY p.until LIMIT p_many FOR UPDATE SKIP LOCKED
      ) AS f LIMIT p_many
    )
    SELECT array_agg(k.x_id), array_agg(k.extension),
           array_agg('pack:' || CASE WHEN k.until = '-infinity' THEN 'unused' ELSE 'longest_rest' END)
    INTO v_x, v_extension, v_chosen FROM pick AS k;
  ELSE
    -- What the lowest X would have served: how long the prefix has to be.
    SELECT p.x_id INTO v_first FROM place AS p JOIN x_number AS x ON x.pool_id = p.pool_id AND x.x_id = p.x_id
    WHERE p.pool_id = p_pool AND p.in_use AND p.until <= p_now AND x.state = 'open'
    ORDER BY p.x_id OFFSET p_many - 1 LIMIT 1;
    WITH inside AS MATERIALIZED (
      SELECT p.x_id, p.extension, p.until FROM place AS p JOIN x_number AS x ON x.pool_id = p.pool_id AND x.x_id = p.x_id
      WHERE p.pool_id = p_pool AND p.x_id < p_prefix AND p.in_use AND p.until <= p_now AND x.state = 'open'
      ORDER BY p.until, p.x_id LIMIT p_many FOR UPDATE OF p SKIP LOCKED
    ),
    beyond AS MATERIALIZED (
      SELECT p.x_id, p.extension FROM place AS p JOIN x_number AS x ON x.pool_id = p.pool_id AND x.x_id = p.x_id
      WHERE p.pool_id = p_pool AND p.x_id >= p_prefix AND p.in_use AND p.until <= p_now AND x.state = 'open'
      ORDER BY p.x_id LIMIT p_many - (SELECT count(*) FROM inside) FOR UPDATE OF p SKIP LOCKED
    ),
    pick AS (
      SELECT i.x_id, i.extension, CASE WHEN i.until = '-infinity' THEN 'pack:unused' ELSE 'pack:longest_rest' END AS chosen
      FROM inside AS i
      UNION ALL
      SELECT b.x_id, b.extension, 'pack:beyond_prefix' FROM beyond AS b
    )
    SELECT array_agg(k.x_id), array_agg(k.extension), array_agg(k.chosen), coalesce(v_first, max(k.x_id))
    INTO v_x, v_extension, v_chosen, v_first FROM pick AS k;
  END IF;
  RETURN QUERY
  WITH held AS (
    UPDATE place AS p SET until = 'infinity', line_id = p_line[k.nth], party_key = p_party[k.nth], rests_until = NULL
    FROM unnest(v_x, v_extension) WITH ORDINALITY AS k (x_id, extension, nth)
    WHERE p.pool_id = p_pool AND p.x_id = k.x_id AND p.extension = k.extension
    RETURNING k.nth, p.x_id, p.extension
  )
  SELECT h.nth, h.x_id, h.extension, v_chosen[h.nth], v_first FROM held AS h;
END
$$;
COMMENT ON FUNCTION pick_places IS
  'Claims up to p_many free places of a pool for lines and parties, in their order. p_prefix null: of the first X that have any, those that have rested longest. Else: of the first p_prefix X those that have rested longest, then the first beyond; first_fit is the X that the lowest-first rule would have gone up to.';

CREATE FUNCTION return_place(p_pool integer, p_party bigint, p_line uuid, p_now timestamptz)
RETURNS TABLE (x_id integer, extension smallint)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH pick AS MATERIALIZED (
    SELECT p.x_id, p.extension FROM place AS p
    WHERE p.party_key = p_party AND p.until > p_now AND p.until < 'infinity' AND p.pool_id = p_pool AND p.in_use
      AND (SELECT x.state FROM x_number AS x WHERE x.pool_id = p.pool_id AND x.x_id = p.x_id) = 'open'
    ORDER BY p.until DESC LIMIT 1 FOR UPDATE SKIP LOCKED
  )
  UPDATE place AS p SET until = 'infinity', line_id = p_line, rests_until = p.until
  FROM pick AS k WHERE p.pool_id = p_pool AND p.x_id = k.x_id AND p.extension = k.extension
  RETURNING p.x_id, p.extension;
END
$$;
COMMENT ON FUNCTION return_place IS 'Claims for a party a place on which it rests itself.';

CREATE FUNCTION ask_place(p_pool integer, p_extension smallint, p_party bigint, p_line uuid, p_now timestamptz)
RETURNS TABLE (x_id integer, extension smallint)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH pick AS MATERIALIZED (
    SELECT f.x_id, f.until FROM (
      SELECT x.x_id FROM x_number AS x WHERE x.pool_id = p_pool AND x.state = 'open' ORDER BY x.x_id
    ) AS x CROSS JOIN LATERAL (
      SELECT p.x_id, p.until FROM place AS p
      WHERE p.pool_id = p_pool AND p.x_id = x.x_id AND p.extension = p_extension AND p.in_use
        AND (p.until <= p_now OR (p.until < 'infinity' AND p.party_key = p_party))
      FOR UPDATE SKIP LOCKED
    ) AS f LIMIT 1
  )
  UPDATE place AS p
  SET until = 'infinity', line_id = p_line, party_key = p_party,
      rests_until = CASE WHEN p.until > p_now THEN p.until END
  FROM pick AS k WHERE p.pool_id = p_pool AND p.x_id = k.x_id AND p.extension = p_extension
  RETURNING p.x_id, p.extension;
END
$$;
COMMENT ON FUNCTION ask_place IS 'Claims one extension on the first X where it is free, or where the party rests on it.';

CREATE FUNCTION reserve_places(
  p_lease interval, p_most integer[], p_pool integer[], p_prefix integer[], p_asked smallint[], p_app integer[],
  p_caller integer[], p_line uuid[], p_binding uuid[], p_a bigint[], p_a_sealed bytea[], p_callback bytea[],
  p_direction text[], p_options text[], p_line_ttl integer[], p_ttl integer[], p_order text[], p_user_data text[],
  p_metadata text[], p_key_hash bytea[], p_key_token integer[]
) RETURNS TABLE (ord integer, outcome text, created_at timestamptz, x_id integer, extension smallint, chosen text,
                 first_fit integer, number text)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_many CONSTANT integer := cardinality(p_pool);
  busy bigint[];
  v_now timestamptz;
  outcomes text[];
  v_x integer[] := array_fill(NULL::integer, ARRAY[v_many]);
  v_extension smallint[] := array_fill(NULL::smallint, ARRAY[v_many]);
  v_chosen text[] := array_fill(NULL::text, ARRAY[v_many]);
  v_first integer[] := array_fill(NULL::integer, ARRAY[v_many]);
  v_rests boolean[];
  v_made uuid[];
  want record;
  got record;
BEGIN
  busy := lock_soles(p_most, p_app, p_a);
  -- A new statement from here on: it sees what was committed before the locks were ours.
  v_now := broker_now();
  -- One that would be over the limit only with others of its batch comes again: they may lose.
  WITH judged AS MATERIALIZED (
    SELECT i.*, CASE
      WHEN i.most IS NOT NULL AND sole_lock(i.app_id, i.a_key) = ANY (busy) THEN 'busy'
      WHEN (SELECT p.state FROM pool AS p WHERE p.id = i.pool_id) IS DISTINCT FROM 'open' THEN 'closed'
      WHEN h.has >= i.most THEN 'limit'
      WHEN h.has + row_number() OVER (PARTITION BY i.app_id, i.a_key ORDER BY i.ord) > i.most THEN 'busy'
      END AS loss
    FROM unnest(p_most, p_pool, p_app, p_caller, p_binding, p_a, p_key_hash, p_key_token) WITH ORDINALITY
      AS i (most, pool_id, app_id, caller_id, binding_id, a_key, key_hash, key_token, ord)
    CROSS JOIN LATERAL (
      SELECT CASE WHEN i.most IS NOT NULL THEN x_of_party(i.app_id, i.a_key, NULL) END AS has) AS h
  ),
  keyed AS (
    UPDATE idempotency AS d SET pool_id = i.pool_id, binding_id = i.binding_id
    FROM (SELECT o.* FROM judged AS o WHERE o.loss IS NULL AND o.key_hash IS NOT NULL
          ORDER BY o.app_id, o.caller_id, o.key_hash) AS i
    WHERE d.app_id = i.app_id AND d.caller_id = i.caller_id AND d.key_hash = i.key_hash
      AND d.token = i.key_token AND d.status IS NULL AND (d.binding_id IS NULL OR d.binding_id = i.binding_id)
    RETURNING i.ord
  )
  SELECT array_agg(CASE
      WHEN j.loss IS NOT NULL THEN j.loss
      WHEN j.key_hash IS NOT NULL AND (j.ord IN (SELECT k.ord FROM keyed AS k)) IS NOT TRUE THEN 'superseded'
    END ORDER BY j.ord)
  INTO outcomes FROM judged AS j;

  -- Who rests on a place of its own is found out for all at once: hardly anybody does, and a call for each item costs.
  SELECT array_agg(EXISTS (
      SELECT FROM place AS p
      WHERE p.party_key = i.a_key AND p.until > v_now AND p.until < 'infinity' AND p.pool_id = i.pool_id OFFSET 0)
    ORDER BY i.ord)
  INTO v_rests FROM unnest(p_pool, p_a) WITH ORDINALITY AS i (pool_id, a_key, ord);
  FOR n IN 1 .. v_many LOOP
    CONTINUE WHEN outcomes[n] IS NOT NULL OR (p_asked[n] IS NULL AND NOT v_rests[n]);
    IF p_asked[n] IS NOT NULL THEN
      SELECT a.* INTO got FROM ask_place(p_pool[n], p_asked[n], p_a[n], p_line[n], v_now) AS a;
    ELSE
      SELECT r.* INTO got FROM return_place(p_pool[n], p_a[n], p_line[n], v_now) AS r;
    END IF;
    IF got.x_id IS NOT NULL THEN
      v_x[n] := got.x_id;
      v_extension[n] := got.extension;
      v_chosen[n] := CASE WHEN p_asked[n] IS NULL THEN 'own:resting' ELSE 'asked' END;
    ELSIF p_asked[n] IS NOT NULL THEN
      outcomes[n] := 'taken';
    END IF;
  END LOOP;

  -- The rest together: when a pool has nothing left, that is found out once and not once for each item.
  FOR want IN
    SELECT i.pool_id, i.prefix, array_agg(i.ord ORDER BY i.ord) AS ords, array_agg(i.line_id ORDER BY i.ord) AS lines,
           array_agg(i.a_key ORDER BY i.ord) AS parties
    FROM unnest(p_pool, p_prefix, p_line, p_a, outcomes, v_x) WITH ORDINALITY
      AS i (pool_id, prefix, line_id, a_key, outcome, x_id, ord)
    WHERE i.outcome IS NULL AND i.x_id IS NULL GROUP BY i.pool_id, i.prefix ORDER BY i.pool_id
  LOOP
    FOR got IN
      SELECT k.* FROM pick_places(want.pool_id, want.prefix, cardinality(want.ords), want.lines, want.parties, v_now) AS k
    LOOP
      v_x[want.ords[got.nth]] := got.x_id;
      v_extension[want.ords[got.nth]] := got.extension;
      v_chosen[want.ords[got.nth]] := got.chosen;
      v_first[want.ords[got.nth]] := got.first_fit;
    END LOOP;
  END LOOP;

  WITH item AS MATERIALIZED (
    SELECT i.* FROM unnest(p_pool, p_app, p_caller, p_line, p_binding, p_a, p_a_sealed, p_callback, p_direction, p_options,
                           p_line_ttl, p_ttl, p_order, p_user_data, p_metadata, v_x, v_extension, v_chosen)
      WITH ORDINALITY
      AS i (pool_id, app_id, caller_id, line_id, binding_id, a_key, a_sealed, callback, direction, options,
            line_ttl_s, ttl_s, order_id, user_data, metadata, x_id, extension, chosen, ord)
    WHERE i.x_id IS NOT NULL
  ),
  new_line AS (
    INSERT INTO line (pool_id, id, app_id, x_id, seat, extension, state, direction, calls, ttl_s, joinable, a_key, sweep_at,
                      a_sealed, callback_sealed, options)
    SELECT i.pool_id, i.line_id, i.app_id, i.x_id, i.extension, i.extension, 'pending', i.direction, 1, i.line_ttl_s, false,
           i.a_key, CASE
             WHEN i.ttl_s > 0 AND (i.line_ttl_s = 0 OR i.line_ttl_s >= i.ttl_s) THEN v_now + i.ttl_s * interval '1 second'
             WHEN i.line_ttl_s > 0 THEN v_now + i.line_ttl_s * interval '1 second' - renewal_margin(i.line_ttl_s) END,
           i.a_sealed, i.callback, i.options
    FROM item AS i ORDER BY i.pool_id, i.x_id, i.extension
    ON CONFLICT (x_key, seat) WHERE seat IS NOT NULL DO NOTHING
    RETURNING line.pool_id, line.id, line.app_id
  ),
  new_binding AS (
    INSERT INTO binding (pool_id, id, app_id, caller_id, line_id, state, ttl_s, created_at, chosen, order_id, user_data,
                         metadata)
    SELECT i.pool_id, i.binding_id, i.app_id, i.caller_id, i.line_id, 'pending', i.ttl_s, v_now, i.chosen, i.order_id,
           i.user_data, i.metadata::jsonb
    FROM item AS i WHERE (i.line_id IN (SELECT n.id FROM new_line AS n)) IS TRUE
  ),
  new_call AS (
    INSERT INTO platform_call (pool_id, line_id, no, app_id, op, claimable_at, created_at)
    SELECT n.pool_id, n.id, 1, n.app_id, 'bind', clock_timestamp() + p_lease, v_now FROM new_line AS n
  )
  SELECT array_agg(n.id) INTO v_made FROM new_line AS n;

  SELECT array_agg(CASE
      WHEN o.outcome IS NOT NULL THEN o.outcome
      WHEN o.x_id IS NULL THEN 'exhausted'
      WHEN (o.line_id = ANY (v_made)) IS TRUE THEN 'won'
      ELSE 'busy' END ORDER BY o.ord)
  INTO outcomes FROM unnest(outcomes, v_x, p_line) WITH ORDINALITY AS o (outcome, x_id, line_id, ord);

  IF 'busy' = ANY (outcomes) THEN
    -- A line sits where the place said that nobody did. The place is the one that is wrong: it says so from now on.
    UPDATE place AS p SET line_id = l.id, party_key = l.a_key, rests_until = NULL
    FROM unnest(outcomes, p_pool, v_x, v_extension) AS i (outcome, pool_id, x_id, extension)
    JOIN line AS l ON l.x_key = i.pool_id::bigint * 100000 + i.x_id AND l.seat = i.extension
    WHERE i.outcome = 'busy' AND p.pool_id = i.pool_id AND p.x_id = i.x_id AND p.extension = i.extension;
  END IF;
  IF outcomes && ARRAY['busy', 'exhausted', 'taken'] THEN
    -- The key must not name what was not made.
    UPDATE idempotency AS d SET pool_id = NULL, binding_id = NULL
    FROM (
      SELECT u.* FROM unnest(outcomes, p_app, p_caller, p_key_hash, p_key_token, p_binding)
        AS u (outcome, app_id, caller_id, key_hash, key_token, binding_id)
      WHERE u.outcome IN ('busy', 'exhausted', 'taken') AND u.key_hash IS NOT NULL
      ORDER BY u.app_id, u.caller_id, u.key_hash
    ) AS i
    WHERE d.app_id = i.app_id AND d.caller_id = i.caller_id AND d.key_hash = i.key_hash
      AND d.token = i.key_token AND d.binding_id = i.binding_id;
  END IF;
  RETURN QUERY
  SELECT t.ord::integer, t.outcome, v_now, t.x_id, t.extension, t.chosen, t.first_fit,
         (SELECT x.number FROM x_number AS x WHERE x.pool_id = p_pool[t.ord] AND x.x_id = t.x_id)
  FROM unnest(outcomes, v_x, v_extension, v_chosen, v_first) WITH ORDINALITY
    AS t (outcome, x_id, extension, chosen, first_fit, ord);
END
$$;
COMMENT ON FUNCTION reserve_places IS
  'Claims a place for each item of a batch: the extension asked for, else one on which the party itself rests, else as pick_places() does. Per item: won; busy (the party is being given an X elsewhere: try again); exhausted (no place is free); taken (the extension asked for is not); limit (the party has p_most X); closed (the pool is); superseded (the idempotency key belongs to a twin). A loser leaves nothing behind.';

CREATE FUNCTION rechoose_place(
  p_lease interval, p_pool integer, p_old_line uuid, p_no integer, p_token integer, p_bar interval, p_outcome text,
  p_http smallint, p_code text, p_prefix integer, p_line uuid, p_a_sealed bytea, p_callback bytea
) RETURNS TABLE (outcome text, x_id integer, extension smallint, first_fit integer, number text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  old record; -- not the row type: "line" is also the name of a geometric type
  bound binding%ROWTYPE;
  won record;
BEGIN
  UPDATE platform_call AS c
  SET state = 'settled', settled_at = clock_timestamp(), outcome = p_outcome, http = p_http, code = p_code
  WHERE c.pool_id = p_pool AND c.line_id = p_old_line AND c.no = p_no AND c.token = p_token AND c.settled_at IS NULL;
  IF NOT FOUND THEN
    RETURN QUERY SELECT 'superseded', NULL::integer, NULL::smallint, NULL::integer, NULL::text;
    RETURN;
  END IF;
  UPDATE line AS l SET state = 'failed', seat = NULL, sweep_at = NULL
  WHERE l.pool_id = p_pool AND l.id = p_old_line RETURNING l.* INTO old;
  -- Barred with everybody, so with nobody as its last party.
  UPDATE place AS p SET until = greatest(broker_now() + p_bar, p.rests_until), party_key = NULL, rests_until = NULL
  WHERE p.pool_id = p_pool AND p.x_id = old.x_id AND p.extension = old.extension AND p.line_id = p_old_line;
  UPDATE binding AS b SET state = 'released', reason = coalesce(b.reason, 'released'), ended_at = broker_now()
  WHERE b.line_id = p_old_line AND b.state = 'releasing';
  SELECT b.* INTO bound FROM binding AS b WHERE b.line_id = p_old_line AND b.state = 'pending' FOR UPDATE;
  IF NOT FOUND THEN
    RETURN QUERY SELECT 'released', NULL::integer, NULL::smallint, NULL::integer, NULL::text;
    RETURN;
  END IF;
  -- A binding keeps its id and its row; reserve_places() inserts one, so the first makes room and hands over its fields.
  -- Its X is among those that its party has had all the time, so no limit is asked about.
  DELETE FROM binding AS b WHERE b.pool_id = p_pool AND b.id = bound.id;
  SELECT r.* INTO won FROM reserve_places(
    p_lease, ARRAY[NULL::integer], ARRAY[p_pool], ARRAY[p_prefix],
    ARRAY[CASE WHEN bound.chosen = 'asked' THEN old.extension END], ARRAY[old.app_id], ARRAY[bound.caller_id], ARRAY[p_line],
    ARRAY[bound.id], ARRAY[old.a_key], ARRAY[p_a_sealed], ARRAY[p_callback], ARRAY[old.direction], ARRAY[old.options],
    ARRAY[old.ttl_s], ARRAY[bound.ttl_s], ARRAY[bound.order_id], ARRAY[bound.user_data], ARRAY[bound.metadata::text],
    ARRAY[NULL::bytea], ARRAY[NULL::integer]) AS r;
  IF won.outcome <> 'won' THEN
    RAISE EXCEPTION 'no place available: %', won.outcome USING ERRCODE = 'BB002', DETAIL = won.outcome;
  END IF;
  UPDATE binding AS b SET created_at = bound.created_at, version = bound.version, moves = bound.moves
  WHERE b.pool_id = p_pool AND b.id = bound.id;
  RETURN QUERY SELECT 'won', won.x_id, won.extension, won.first_fit, won.number;
END
$$;
COMMENT ON FUNCTION rechoose_place IS
  'Gives the pending binding of a line another place after its bind was refused for this one: settles the old call, ends the old line, bars its place for everybody for p_bar, claims anew (one that was asked for: the same extension on another X). All or nothing (BB002: there is none); superseded: the caller no longer owns the call.';

CREATE FUNCTION free_codes(p_pool integer, p_asked smallint, p_many integer) RETURNS TABLE (extension smallint)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := broker_now();
BEGIN
  RETURN QUERY
  -- The last X are the emptiest: they are given out last.
  WITH some_x AS MATERIALIZED (
    SELECT x.x_id FROM x_number AS x WHERE x.pool_id = p_pool AND x.state = 'open' ORDER BY x.x_id DESC LIMIT 50
  ),
  near AS MATERIALIZED (
    -- All X of a pool have the same codes: the first one tells which there are.
    SELECT p.extension FROM place AS p
    WHERE p.pool_id = p_pool AND p.x_id = (SELECT min(s.x_id) FROM some_x AS s) AND p.in_use AND p.extension > 0
    ORDER BY abs(p.extension - p_asked), p.extension LIMIT 40
  )
  SELECT n.extension FROM near AS n
  WHERE EXISTS (
    SELECT FROM some_x AS s CROSS JOIN LATERAL (
      SELECT FROM place AS p
      WHERE p.pool_id = p_pool AND p.x_id = s.x_id AND p.extension = n.extension AND p.in_use AND p.until <= v_now OFFSET 0
    ) AS f)
  ORDER BY abs(n.extension - p_asked), n.extension LIMIT p_many;
END
$$;
COMMENT ON FUNCTION free_codes(integer, smallint, integer) IS
  'The extensions nearest to one that are free on one of the last 50 open X of a pool: looks at no more than 40 of them.';

CREATE FUNCTION count_places(p_pool integer[])
RETURNS TABLE (pool_id integer, held bigint, resting bigint, free bigint, not_open bigint, not_in_use bigint)
LANGUAGE plpgsql STABLE SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := broker_now();
BEGIN
  RETURN QUERY
  SELECT i.pool_id, coalesce(sum(c.held), 0)::bigint, coalesce(sum(c.resting), 0)::bigint,
         coalesce(sum(c.many - c.held - c.resting) FILTER (WHERE c.open AND c.in_use), 0)::bigint,
         coalesce(sum(c.many - c.held - c.resting) FILTER (WHERE NOT c.open), 0)::bigint,
         coalesce(sum(c.many - c.held - c.resting) FILTER (WHERE c.open AND NOT c.in_use), 0)::bigint
  FROM unnest(p_pool) AS i (pool_id) LEFT JOIN LATERAL (
    SELECT x.state = 'open' AS open, p.in_use, count(*) AS many, count(*) FILTER (WHERE p.until = 'infinity') AS held,
           count(*) FILTER (WHERE p.until > v_now AND p.until < 'infinity') AS resting
    FROM place AS p JOIN x_number AS x ON x.pool_id = p.pool_id AND x.x_id = p.x_id
    WHERE p.pool_id = i.pool_id GROUP BY 1, 2
  ) AS c ON true GROUP BY i.pool_id;
END
$$;
COMMENT ON FUNCTION count_places(integer[]) IS
  'Per pool its places, each counted once: held, resting, or else of an X that is not open, not given out, free. Reads all places of the pools: ask seldom.';
