-- name: live_of_orders
SELECT ord, pool_id, id FROM live_of_orders($1, $2, $3);

-- name: by_order
SELECT pool_id, id, fits, cut FROM list_by_order($1, $2, $3, $4, $5);

-- name: by_seat
SELECT pool_id, id, fits, cut FROM list_by_seat($1, $2, $3, $4, $5);

-- name: by_party
SELECT pool_id, id, fits, cut FROM list_by_party($1, $2, $3, $4, $5);

-- name: walk
SELECT pool_id, id, fits, cut FROM walk_pools($1, $2, $3, $4, $5, $6);

-- name: figures
SELECT pool_id, live, x_in_use, resting, most_barred, as_of FROM pool_figures($1);
