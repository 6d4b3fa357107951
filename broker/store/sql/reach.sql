-- Who is, or was, behind an X; and the history's upkeep.

-- name: behind
SELECT pool_id, line_id, state, direction, a_sealed, b_sealed, callee_sealed, callee_user_data, options, over, live, why,
       bindings, user_data
FROM behind($1, $2, $3, $4, $5, $6);

-- name: behind_all
SELECT ord, pool_id, line_id, state, direction, a_sealed, b_sealed, callee_sealed, callee_user_data, options, over, live, why,
       bindings, user_data
FROM behind_all($1, $2, $3, $4);

-- name: behind_y
SELECT y.pool_id, y.line_id, y.state, y.direction, y.a_sealed, y.over, y.peer_id, y.b_sealed, y.binding_id
FROM behind_y($1, (SELECT p.app_id FROM pool AS p WHERE p.id = $2), $3, $4) AS y;

-- name: was_behind
SELECT pool_id, line_id, direction, a_sealed, b_sealed, why, bindings FROM was_behind($1, $2, $3, $4, $5);

-- name: kept
-- Whether the moment has come yet, and whether what was then is still kept.
SELECT $1::timestamptz <= broker_now() AS come,
       $1::timestamptz >= ((broker_now() AT TIME ZONE 'UTC')::date - $2::integer)::timestamp AT TIME ZONE 'UTC' AS kept;

-- name: spot
SELECT x.pool_id, x.x_id, x.number, a.mode, p.routing, a.retention_days, a.extension_digits, a.shadow,
       a.shadow_changed_at
FROM x_number AS x JOIN pool AS p ON p.id = x.pool_id JOIN app AS a ON a.id = p.app_id
WHERE x.number = $1 AND x.state <> 'moved';

-- name: audit
INSERT INTO audit (at, who, what, pool_id, binding_id, line_id)
SELECT broker_now(), $1, 'reveal', $2, i.id, $3
FROM unnest(CASE WHEN cardinality($4::uuid[]) > 0 THEN $4::uuid[] ELSE ARRAY[NULL::uuid] END) AS i (id);

-- name: tend
SELECT tend_held($1, $2) AS step;
