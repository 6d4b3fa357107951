-- Events: positions, reading them, keeping them.

-- name: place
SELECT e.placed, e.gaps FROM place_events($1) AS e;

-- name: feeds
SELECT f.app_id, f.upto, f.swept FROM event_feed AS f;

-- name: feed
SELECT f.upto, f.swept FROM event_feed AS f WHERE f.app_id = $1;

-- name: read
SELECT e.pos, e.at, e.type, e.pool_id, e.binding_id, e.x, e.extension, e.expires_at, e.reason, e.data, e.order_id,
       e.user_data, e.metadata
FROM events_placed($1, $2, $3, $4, $5) AS e;

-- name: tend
SELECT tend_events($1, $2) AS step;
