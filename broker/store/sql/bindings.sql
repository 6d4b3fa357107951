-- name: show
SELECT b.pool_id, b.id, b.app_id, b.state, b.reason, b.ttl_s, b.created_at, b.expires_at, b.ended_at, b.order_id,
       b.user_data, b.metadata::text AS metadata, b.line_id, l.x_id, x.number, l.direction, l.a_key, l.b_key, l.a_sealed, l.b_sealed,
       l.subscription_id
FROM unnest($1::integer[], $2::uuid[]) AS i (pool_id, id)
JOIN binding AS b ON b.pool_id = i.pool_id AND b.id = i.id
JOIN line AS l ON l.pool_id = b.pool_id AND l.id = b.line_id
JOIN x_number AS x ON x.pool_id = l.pool_id AND x.x_id = l.x_id;

-- name: release
SELECT ord, line_id, no, line_state, number, subscription_id
FROM release_bindings($1, $2, $3, $4, make_interval(secs => $5));
